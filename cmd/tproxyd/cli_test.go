package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/golden"
	"golang.org/x/sys/unix"
)

// cli runs one command line in this process.
func cli(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = execute(t.Context(), env{stdout: &out, stderr: &errs}, args)
	return code, out.String(), errs.String()
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{}, {"help"}, {"-h"}, {"--help"}} {
		code, stdout, stderr := cli(t, args...)
		if code != exitOK || stderr != "" {
			t.Errorf("tproxyd %q: exit code %d, stderr %q", args, code, stderr)
		}
		golden.Compare(t, "help.golden", stdout)
	}
	var all strings.Builder
	for _, c := range commands() {
		code, stdout, stderr := cli(t, c.name, "--help")
		if code != exitOK || stderr != "" {
			t.Errorf("tproxyd %s --help: exit code %d, stderr %q", c.name, code, stderr)
		}
		fmt.Fprintf(&all, "$ tproxyd %s --help\n%s\n", c.name, stdout)
	}
	golden.Compare(t, "commands.golden", all.String())
}

// TestUsage wants exit code 2 and one line that says what is wrong and where
// to look.
func TestUsage(t *testing.T) {
	for line, want := range map[string]string{
		"start":                 `tproxyd: unknown command "start"; see tproxyd help`,
		"--config x":            `tproxyd: unknown command "--config"; see tproxyd help`,
		"run --confg x":         `tproxyd: run: flag provided but not defined: -confg; see tproxyd run --help`,
		"check --config":        `tproxyd: check: flag needs an argument: -config; see tproxyd check --help`,
		"check --quiet=perhaps": `tproxyd: check: invalid boolean value "perhaps" for -quiet: parse error; see tproxyd check --help`,
		"version now":           `tproxyd: version: unexpected argument "now"`,
		"run tproxyd.toml":      `tproxyd: run: unexpected argument "tproxyd.toml"`,
		"demo --json there":     `tproxyd: demo: unexpected argument "there"`,
	} {
		code, stdout, stderr := cli(t, strings.Fields(line)...)
		if code != exitUsage || stdout != "" || stderr != want+"\n" {
			t.Errorf("tproxyd %s: exit code %d, stdout %q, stderr %q, want %q", line, code, stdout, stderr, want)
		}
	}
}

func TestVersion(t *testing.T) {
	code, stdout, stderr := cli(t, "version")
	want := fmt.Sprintf("tproxyd %s (%s, revision ", version, runtime.Version())
	if code != exitOK || stderr != "" || !strings.HasPrefix(stdout, want) || strings.Count(stdout, "\n") != 1 {
		t.Errorf("version: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	code, stdout, stderr = cli(t, "version", "--json")
	var got map[string]string
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if code != exitOK || stderr != "" || len(got) != 3 || got["version"] != version || got["go"] != runtime.Version() || got["revision"] == "" {
		t.Errorf("version --json: exit code %d, %v, stderr %q", code, got, stderr)
	}
}

// broken is an output that nobody reads any more.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, unix.EPIPE }

// TestNoOutput wants a failure where what was asked for could not be printed.
func TestNoOutput(t *testing.T) {
	file := write(t, good)
	for _, line := range []string{"version", "version --json", "check --config " + file, "check --json --config " + file} {
		var errs bytes.Buffer
		code := execute(t.Context(), env{stdout: broken{}, stderr: &errs}, strings.Fields(line))
		if code != exitFailed || !strings.Contains(errs.String(), "broken pipe") {
			t.Errorf("tproxyd %s: exit code %d, stderr %q", line, code, &errs)
		}
	}
}

// TestHints wants an advice for each error that an operator can do something
// about, as it comes: wrapped.
func TestHints(t *testing.T) {
	for errno, want := range map[unix.Errno]string{
		unix.EPERM:         "CAP_NET_RAW",
		unix.EACCES:        "CAP_NET_BIND_SERVICE",
		unix.EADDRINUSE:    "ss -lntup",
		unix.EADDRNOTAVAIL: "disable_ipv6",
		unix.EAFNOSUPPORT:  "take its addresses out of the configuration",
		unix.EMFILE:        "LimitNOFILE",
		unix.ENOPROTOOPT:   "CONFIG_NFT_TPROXY",
	} {
		cause := fmt.Errorf("listen: %w", os.NewSyscallError("bind", errno))
		got := withHint(cause)
		if !errors.Is(got, errno) || !strings.HasPrefix(got.Error(), cause.Error()+"; ") || !strings.Contains(got.Error(), want) {
			t.Errorf("%v: %q", errno, got)
		}
		if strings.Contains(got.Error(), "\n") {
			t.Errorf("%v: more than one line: %q", errno, got)
		}
	}
	if len(hints) != 7 {
		t.Errorf("%d hints: this test knows 7", len(hints))
	}
	if err := errors.New("no errno"); withHint(err) != err { //nolint:errorlint // the very same
		t.Error("an error without a hint was changed")
	}
}
