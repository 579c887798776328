package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// haproxyCommand: splice-auto does not engage on this work, so splicing is
// asked for outright. maxconn makes HAProxy want 2*7000 descriptors and half as
// many for pipes, which must stay below the descriptor limit.
func haproxyCommand(o *options, dir string, w work) ([]string, error) {
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
	for _, s := range w.services() {
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
func nginxCommand(o *options, dir string, w work) ([]string, error) {
	var b strings.Builder
	connections := 16000
	if w.udp != nil {
		connections = 36000 // two for each flow, one of them with a descriptor
	}
	fmt.Fprintf(&b, `%s
daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile 18000;
pid %s/nginx.pid;
error_log stderr error;
events {
	use epoll;
	worker_connections %d;
	%s
}
stream {
	access_log off;
	proxy_half_close on;
	proxy_timeout 10m;
`, loadStreamModule(), dir, connections, multiAccept(w))
	for _, s := range w.services() {
		listen, bind := "backlog=4096", "$remote_addr"
		if w.udp != nil {
			listen = fmt.Sprintf("udp reuseport rcvbuf=%d", receiveBuffer)
			bind = "$remote_addr:$remote_port"
		}
		fmt.Fprintf(&b, `	server {
		listen %s:%d %s;
		proxy_bind %s transparent;
		proxy_pass %s:%d;
`, lab.VIP4, s.port, listen, bind, lab.ServerIP4, s.port)
		if s.responses > 0 {
			fmt.Fprintf(&b, "\t\tproxy_responses %d;\n", s.responses)
		}
		if w.udp != nil {
			fmt.Fprintf(&b, "\t\tproxy_timeout %s;\n", datagramIdle)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	path, err := writeConfig(dir, "nginx.conf", b.String())
	return []string{o.nginx, "-p", dir, "-e", "stderr", "-c", path}, err
}

// multiAccept: without it nginx reads one datagram for each event.
func multiAccept(w work) string {
	if w.udp != nil {
		return "multi_accept on;"
	}
	return ""
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

func goCopyCommand(_ *options, _ string, w work) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if w.udp != nil {
		s := w.service
		return []string{
			self, partGoDatagrams, fmt.Sprintf("%s:%d", lab.VIP4, s.port),
			fmt.Sprintf("%s:%d", lab.ServerIP4, s.port), fmt.Sprint(s.responses),
		}, nil
	}
	args := []string{self, partGoCopy}
	for _, s := range w.services() {
		args = append(args, fmt.Sprintf("%s:%d=%s:%d", lab.VIP4, s.port, lab.ServerIP4, s.port))
	}
	return args, nil
}

func writeConfig(dir, name, content string) (string, error) {
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, []byte(content), 0o644)
}
