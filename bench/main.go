package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// Exit codes, the same as tproxyd's.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// daemonEnv carries the path of the daemon that was built into the sandbox,
// where there is no network to build it.
const daemonEnv = "TPROXYD_BENCH_DAEMON"

// options are what the user asked for.
type options struct {
	json       bool
	rounds     int
	works      []work
	subjects   []string
	duration   time.Duration
	idleFlows  int
	captureDir string
	checkTime  time.Duration

	source  string // tproxyd's source policy
	tproxyd string // paths of programs; empty tproxyd is built
	other   string
	haproxy string
	nginx   string
}

func main() {
	if code, ok := part(os.Args[1:]); ok {
		os.Exit(code)
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	opts, err := parseOptions(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := runSandboxed(ctx, opts, stdout, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
	}
	return code
}

// runSandboxed prepares what needs the host, and measures in the sandbox.
func runSandboxed(ctx context.Context, opts *options, stdout, stderr io.Writer) (code int, err error) {
	if lab.InSandbox() {
		if opts.tproxyd == "" {
			opts.tproxyd = os.Getenv(daemonEnv)
		}
		return measureAndPrint(ctx, opts, stdout, stderr)
	}
	if (opts.wants(ours) || opts.wants(theFull) || opts.wants(theShadow)) && opts.tproxyd == "" {
		dir, err := os.MkdirTemp("", "tproxyd-bench-")
		if err != nil {
			return exitFailed, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		path, err := buildDaemon(ctx, dir)
		if err != nil {
			return exitFailed, err
		}
		if err := os.Setenv(daemonEnv, path); err != nil {
			return exitFailed, err
		}
	}
	code, err = lab.Reexec(ctx)
	if err != nil {
		return exitFailed, err
	}
	return code, nil
}

func measureAndPrint(ctx context.Context, opts *options, stdout, stderr io.Writer) (int, error) {
	report, err := measureAll(ctx, opts, stderr)
	if err != nil {
		return exitFailed, err
	}
	if opts.json {
		err = report.writeJSON(stdout)
	} else {
		err = report.writeText(stdout)
	}
	if err != nil {
		return exitFailed, fmt.Errorf("print report: %w", err)
	}
	if n := len(report.Failures); n > 0 {
		return exitFailed, fmt.Errorf("%d measurements failed", n)
	}
	return exitOK, nil
}

func (o *options) wants(subject string) bool {
	return slices.Contains(o.subjects, subject)
}

func parseOptions(args []string, stderr io.Writer) (*options, error) {
	o := &options{idleFlows: idleFlows, checkTime: checkTime}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.BoolVar(&o.json, "json", false, "print the report as JSON")
	fs.IntVar(&o.rounds, "rounds", 1, "how often everything is measured")
	works := fs.String("work", strings.Join(workNames(), ","), "what is measured, comma-separated")
	subjects := fs.String("subjects", "", "who is measured, comma-separated (default: all; other only with --other)")
	fs.DurationVar(&o.duration, "duration", 3*time.Second, "length of a measurement")
	fs.StringVar(&o.captureDir, "capture-dir", "/dev/shm", "where captures are written to while they are measured; they need some GB")
	fs.StringVar(&o.source, "source", "client-ip", "source policy of tproxyd: client, client-ip or prefer-client")
	fs.StringVar(&o.tproxyd, "tproxyd", "", "path of tproxyd (default: built from ./cmd/tproxyd)")
	fs.StringVar(&o.other, "other", "", "path of another build of tproxyd to compare with")
	fs.StringVar(&o.haproxy, "haproxy", "haproxy", "path of haproxy")
	fs.StringVar(&o.nginx, "nginx", "nginx", "path of nginx")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if o.rounds < 1 || o.duration < 10*time.Millisecond {
		return nil, errors.New("--rounds must be at least 1 and --duration at least 10ms")
	}
	switch o.source {
	case "client", "client-ip", "prefer-client":
	default:
		return nil, fmt.Errorf("--source %q: must be client, client-ip or prefer-client, for the backend checks the client's address", o.source)
	}
	for _, name := range splitList(*works) {
		w, err := workByName(name)
		if err != nil {
			return nil, err
		}
		o.works = append(o.works, w)
	}
	if *subjects == "" {
		*subjects = strings.Join(defaultSubjects(o), ",")
	}
	for _, name := range splitList(*subjects) {
		if _, err := subjectByName(name); err != nil {
			return nil, err
		}
		o.subjects = append(o.subjects, name)
	}
	if o.wants(theOther) && o.other == "" {
		return nil, fmt.Errorf("subject %q needs --other PATH, another build of tproxyd", theOther)
	}
	if len(o.works) == 0 || len(o.subjects) == 0 {
		return nil, errors.New("--work and --subjects must name something")
	}
	return o, nil
}

// splitList splits at commas and drops what is empty or named twice.
func splitList(s string) []string {
	var out []string
	seen := map[string]bool{}
	for f := range strings.SplitSeq(s, ",") {
		if f = strings.TrimSpace(f); f != "" && !seen[f] {
			seen[f] = true
			out = append(out, f)
		}
	}
	return out
}
