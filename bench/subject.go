package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// The subjects. Ours is the one that the others are peers of.
const (
	ours       = "tproxyd"
	theDirect  = "direct"
	theGoCopy  = "gocopy"
	theHAProxy = "haproxy"
	theNginx   = "nginx"
)

// subject is a proxy, or none.
type subject struct {
	name string
	// command writes what the proxy needs to dir and returns how to start it
	// in the foreground; nil if there is no proxy.
	command func(o *options, dir string) ([]string, error)
	// version asks for it.
	version func(ctx context.Context, o *options) (string, error)
}

func allSubjects() []subject {
	return []subject{
		{ours, tproxydCommand, func(ctx context.Context, o *options) (string, error) {
			return firstLine(ctx, o.tproxyd, "version")
		}},
		{theHAProxy, haproxyCommand, func(ctx context.Context, o *options) (string, error) {
			return firstLine(ctx, o.haproxy, "-v")
		}},
		{theNginx, nginxCommand, func(ctx context.Context, o *options) (string, error) {
			return firstLine(ctx, o.nginx, "-v")
		}},
		{theGoCopy, goCopyCommand, func(context.Context, *options) (string, error) {
			return runtime.Version(), nil
		}},
		{theDirect, nil, nil},
	}
}

func subjectNames() []string {
	var names []string
	for _, s := range allSubjects() {
		names = append(names, s.name)
	}
	return names
}

func subjectByName(name string) (subject, error) {
	all := allSubjects()
	i := slices.IndexFunc(all, func(s subject) bool { return s.name == name })
	if i < 0 {
		return subject{}, fmt.Errorf("no subject %q: there are %s", name, strings.Join(subjectNames(), ", "))
	}
	return all[i], nil
}

// buildDaemon compiles tproxyd into dir.
func buildDaemon(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "tproxyd")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/tproxyd/tproxyd/cmd/tproxyd")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build tproxyd (run bench inside its module, or give --tproxyd PATH): %w\n%s", err, out)
	}
	return path, nil
}

func firstLine(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("run %s %s: %w (install it, or leave it out with --subjects)", name, strings.Join(args, " "), err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line), nil
}

func tproxydCommand(o *options, dir string) ([]string, error) {
	var b strings.Builder
	b.WriteString(`[daemon]
workers = 0
drain_timeout = "1s"

[log]
level = "warn"
access = "off"

[admin]
listen = "127.0.0.1:9180"
`)
	for _, s := range services {
		fmt.Fprintf(&b, `
[[service]]
name = %q
protocol = "tcp"
mode = "vip"
listen = ["%s:%d"]
source = %q

  [[service.backend]]
  address = "%s:%d"
`, s.name, lab.VIP4, s.port, o.source, lab.ServerIP4, s.port)
	}
	path, err := writeConfig(dir, "tproxyd.toml", b.String())
	return []string{o.tproxyd, "run", "--config", path}, err
}

// haproxyCommand: splice-auto does not engage on this work, so splicing is
// asked for outright. maxconn makes HAProxy want 2*7000 descriptors and half as
// many for pipes, which must stay below the descriptor limit.
func haproxyCommand(o *options, dir string) ([]string, error) {
	var b strings.Builder
	b.WriteString(`global
	nbthread 1
	maxconn 7000
defaults
	mode tcp
	option splice-request
	option splice-response
	timeout connect 3s
	timeout client 10m
	timeout server 10m
`)
	for _, s := range services {
		fmt.Fprintf(&b, `listen %s
	bind %s:%d transparent
	source 0.0.0.0 usesrc clientip
	server backend %s:%d
`, s.name, lab.VIP4, s.port, lab.ServerIP4, s.port)
	}
	path, err := writeConfig(dir, "haproxy.cfg", b.String())
	return []string{o.haproxy, "-db", "-f", path}, err
}

// nginxCommand: one process that is master and worker. It does the same work,
// needs no second user, and nothing of it can be left behind.
func nginxCommand(o *options, dir string) ([]string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, `%s
daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile 18000;
pid %s/nginx.pid;
error_log stderr error;
events {
	use epoll;
	worker_connections 16000;
}
stream {
	access_log off;
	proxy_half_close on;
	proxy_timeout 10m;
`, loadStreamModule(), dir)
	for _, s := range services {
		fmt.Fprintf(&b, `	server {
		listen %s:%d backlog=4096;
		proxy_bind $remote_addr transparent;
		proxy_pass %s:%d;
	}
`, lab.VIP4, s.port, lab.ServerIP4, s.port)
	}
	b.WriteString("}\n")
	path, err := writeConfig(dir, "nginx.conf", b.String())
	return []string{o.nginx, "-p", dir, "-e", "stderr", "-c", path}, err
}

// loadStreamModule is the directive for builds that have the module apart, as
// Debian's libnginx-mod-stream.
func loadStreamModule() string {
	const module = "/usr/lib/nginx/modules/ngx_stream_module.so"
	if _, err := os.Stat(module); err != nil {
		return ""
	}
	return "load_module " + module + ";"
}

func goCopyCommand(_ *options, _ string) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{self, partGoCopy}
	for _, s := range services {
		args = append(args, fmt.Sprintf("%s:%d=%s:%d", lab.VIP4, s.port, lab.ServerIP4, s.port))
	}
	return args, nil
}

func writeConfig(dir, name, content string) (string, error) {
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, []byte(content), 0o644)
}
