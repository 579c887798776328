// How many threads there are is configured. For finding it out by itself the
// runtime would keep two files of the cgroup open.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command tproxyd is a transparent TCP and UDP proxy daemon for Linux.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/tproxyd/tproxyd/config"
)

// version is set by the linker; see the Makefile.
var version = "devel"

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // wrong usage or an invalid configuration
)

const defaultConfig = "/etc/tproxyd/tproxyd.toml"

// env is what a command gets from the outside.
type env struct {
	stdout, stderr io.Writer
}

// command is one subcommand.
type command struct {
	name, summary string
	run           func(ctx context.Context, e env, args []string) error
}

func commands() []command {
	return []command{
		{"run", "run the proxy in the foreground, as systemd does", cmdRun},
		{"check", "check a configuration and print it with all defaults filled in", cmdCheck},
		{"status", "show the state of the running daemon; --check for keepalived and the like", cmdStatus},
		{"flows", "list the flows of the running daemon, or cut one", cmdFlows},
		{"backend", "list the backends of the running daemon, or change one", backendCommands().run},
		{"tap", "capture what goes through the running daemon, live, to files or from memory", tapCommands().run},
		{"extcap", "be a capture program of Wireshark", cmdExtcap},
		{"demo", "show the proxy at work in a lab of its own, without root", cmdDemo},
		{"replay", "send a capture file again, by an interface", cmdReplay},
		{"zcprobe", "find out which ways of sending copy, on this kernel and interface", cmdZCProbe},
		{"version", "print the version", cmdVersion},
	}
}

func main() {
	e := env{stdout: os.Stdout, stderr: os.Stderr}
	args := os.Args[1:]
	if isExtcap(os.Args[0]) {
		args = append([]string{"extcap"}, args...)
	}
	os.Exit(execute(context.Background(), e, args))
}

// execute runs one command line and returns the exit code.
func execute(ctx context.Context, e env, args []string) int {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		fmt.Fprint(e.stdout, help())
		return exitOK
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return exitCode(e, c.run(ctx, e, args[1:]))
		}
	}
	fmt.Fprintf(e.stderr, "tproxyd: unknown command %q; see tproxyd help\n", args[0])
	return exitUsage
}

// exitCode prints err, one line each, and turns it into an exit code.
func exitCode(e env, err error) int {
	var usage usageError
	var invalid config.Errors
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errReported):
		return exitFailed
	case errors.As(err, &invalid):
		fmt.Fprintln(e.stderr, invalid.Error())
		return exitUsage
	case errors.As(err, &usage):
		fmt.Fprintf(e.stderr, "tproxyd: %v\n", err)
		return exitUsage
	}
	fmt.Fprintf(e.stderr, "tproxyd: %v\n", withHint(err))
	return exitFailed
}

// usageError is a wrong command line.
type usageError struct{ error }

// errReported ends with exit code 1 and prints nothing more.
var errReported = errors.New("reported already")

func help() string {
	var b strings.Builder
	b.WriteString("tproxyd is a transparent TCP and UDP proxy for Linux.\n\nUsage: tproxyd COMMAND [FLAGS]\n\nCommands:\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "  %-9s %s\n", c.name, c.summary)
	}
	b.WriteString("\ntproxyd COMMAND --help lists the flags of a command.\nExit codes: 0 well, 1 failed, 2 wrong usage or an invalid configuration.\n")
	return b.String()
}

// parse reads the flags of a command that takes no other arguments.
func parse(e env, fs *flag.FlagSet, args []string) error {
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(e.stdout, "Usage: tproxyd %s [FLAGS]\n", fs.Name())
		fs.SetOutput(e.stdout)
		fs.PrintDefaults()
		return err
	case err != nil:
		return usageError{fmt.Errorf("%s: %w; see tproxyd %s --help", fs.Name(), err, fs.Name())}
	case fs.NArg() > 0:
		return usageError{fmt.Errorf("%s: unexpected argument %q", fs.Name(), fs.Arg(0))}
	}
	return nil
}

func cmdVersion(_ context.Context, e env, args []string) error {
	fs := flag.NewFlagSet("version", flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "print JSON")
	if err := parse(e, fs, args); err != nil {
		return err
	}
	v := buildVersion()
	if *asJSON {
		return printJSON(e.stdout, v)
	}
	_, err := fmt.Fprintf(e.stdout, "tproxyd %s (%s, revision %s)\n", v.Version, v.Go, v.Revision)
	return err
}

// buildInfo is what version prints.
type buildInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Go       string `json:"go"`
}

func buildVersion() buildInfo {
	b := buildInfo{Version: version, Revision: "unknown"}
	if info, ok := debug.ReadBuildInfo(); ok {
		b.Go = info.GoVersion
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.Revision = s.Value
			}
		}
	}
	return b
}
