package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/tproxyd/tproxyd/bench/load"
)

// The subjects. Ours is the one that the others are peers of: full is the same
// program with more to do, and other is another build of it.
const (
	ours       = "tproxyd"
	theFull    = "tproxyd-full"
	theShadow  = "tproxyd-shadow"
	theTap     = "tproxyd-tap"
	theOther   = "other"
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
	command func(o *options, dir string, w work) ([]string, error)
	// version asks for it.
	version func(ctx context.Context, o *options) (string, error)
	// capture and send are how to start it at works with frames, nil if it does
	// not do them. One that is asked answers when it is told to stop capturing.
	capture func(captureSpec) ([]string, error)
	asked   bool
	send    func(sendSpec) ([]string, error)
	use     sendUse
	// tcpOnly is a proxy without UDP.
	tcpOnly bool
	// daemon is a tproxyd, and checks is one that checks its backends.
	daemon, checks bool
	// shadow is one that copies what clients send, and does nothing else.
	shadow bool
	// recorder is one that records the headers of all packets.
	recorder bool
}

func allSubjects() []subject {
	list := []subject{
		{name: ours, command: tproxydCommand, daemon: true, capture: captureCommand, asked: true, send: method("auto"), version: func(ctx context.Context, o *options) (string, error) {
			return firstLine(ctx, o.tproxyd, "version")
		}},
		{name: theFull, command: fullCommand, daemon: true, checks: true},
		{name: theShadow, command: shadowCommand, daemon: true, shadow: true},
		{name: theTap, command: tapCommand, daemon: true, recorder: true},
		{name: theOther, command: otherCommand, daemon: true, version: func(ctx context.Context, o *options) (string, error) {
			return firstLine(ctx, o.other, "version")
		}},
		{name: theHAProxy, command: haproxyCommand, tcpOnly: true, version: func(ctx context.Context, o *options) (string, error) {
			return firstLine(ctx, o.haproxy, "-v")
		}},
		{name: theNginx, command: nginxCommand, version: func(ctx context.Context, o *options) (string, error) {
			return firstLine(ctx, o.nginx, "-v")
		}},
		{name: theGoCopy, command: goCopyCommand, version: func(context.Context, *options) (string, error) {
			return runtime.Version(), nil
		}},
		{name: theDirect},
	}
	return append(list, frameSubjects()...)
}

// super tells whether it sends super-frames.
func (s subject) super() bool { return s.name == ours || s.name == theRing }

// does tells whether the subject can do the work.
func (s subject) does(w work) bool {
	switch {
	case s.shadow:
		return w.shadow
	case w.shadow:
		return s.daemon && !s.checks && !s.recorder
	case w.parse:
		return s.name == ours
	case w.tap != nil:
		return s.capture != nil && (w.tap.encoding != recordOnly || s.name == ours)
	case w.send != nil:
		return s.send != nil && s.use.fits(w.send)
	case s.command == nil && s.name != theDirect:
		return false
	case w.udp != nil:
		return !s.tcpOnly
	case w.checks:
		return s.daemon && !s.recorder
	case w.mode == load.Idle:
		return s.command != nil // idle connections cost no proxy anything
	}
	return true
}

func subjectNames() []string {
	var names []string
	for _, s := range allSubjects() {
		names = append(names, s.name)
	}
	return names
}

// defaultSubjects are all that can be measured.
func defaultSubjects(o *options) []string {
	return slices.DeleteFunc(subjectNames(), func(name string) bool { return name == theOther && o.other == "" })
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
