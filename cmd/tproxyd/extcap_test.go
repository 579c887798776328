package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/golden"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"golang.org/x/sys/unix"
)

// TestExtcap holds what Wireshark is told.
func TestExtcap(t *testing.T) {
	var all strings.Builder
	for _, line := range []string{
		"--extcap-interfaces --extcap-version=4.0",
		"--extcap-dlts --extcap-interface tproxyd",
		"--extcap-config --extcap-interface tproxyd",
		"--extcap-interface tproxyd --extcap-capture-filter tcp",
		"--extcap-interface tproxyd --extcap-capture-filter nonsense",
	} {
		code, stdout, stderr := cli(t, append([]string{"extcap"}, strings.Fields(line)...)...)
		if code != exitOK || stderr != "" {
			t.Errorf("%s: exit code %d, %s", line, code, stderr)
		}
		all.WriteString("$ tproxyd-extcap " + line + "\n" + strings.ReplaceAll(stdout, version, "VERSION"))
	}
	golden.Compare(t, "extcap.golden", all.String())
	for _, line := range []string{
		"", "--capture --extcap-interface eth0", "--capture --extcap-interface tproxyd",
		"--extcap-interface tproxyd --capture --fifo x --extcap-capture-filter nonsense",
	} {
		if code, _, stderr := cli(t, append([]string{"extcap"}, strings.Fields(line)...)...); code != exitUsage {
			t.Errorf("extcap %s: exit code %d, %s", line, code, stderr)
		}
	}
	for name, want := range map[string]bool{"/usr/lib/x/tproxyd-extcap": true, "tproxyd": false, "/tproxyd-extcap/tproxyd": false} {
		if isExtcap(name) != want {
			t.Errorf("%s is the capture program: %t", name, !want)
		}
	}
}

// TestExtcapByTshark has the real thing list and run the capture program.
func TestExtcapByTshark(t *testing.T) {
	b := newBed(t)
	d := b.start(configuration("", "")+"[tap]\nblock_size = \"128KiB\"\nblocks = 16\n", options{})
	tshark := func(args ...string) *exec.Cmd {
		return exec.CommandContext(t.Context(), netnstest.Need(t, "tshark", "tshark"), args...)
	}
	extcap := t.TempDir()
	build := exec.CommandContext(t.Context(), netnstest.Need(t, "go", "golang"), "build", "-buildvcs=false", "-o", filepath.Join(extcap, extcapName), ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// Root's tshark looks nowhere else than in the directory of the system, over
	// which ours is mounted, in the mount namespace of the tests.
	folders, err := tshark("-G", "folders").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(folders), "Extcap path:")
	dir, _, _ := strings.Cut(rest, "\n")
	if dir = strings.TrimSpace(dir); unix.Mount(extcap, dir, "", unix.MS_BIND, "") != nil {
		t.Fatalf("cannot mount over %q", dir)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	list, err := tshark("-D").CombinedOutput()
	if err != nil || !strings.Contains(string(list), "tproxyd (Flows of tproxyd, both legs)") {
		t.Fatalf("tshark -D: %v\n%s", err, list)
	}
	capture := tshark("-n", "-i", extcapInterface, "-o", "extcap.tproxyd.config:"+d.config, "-c", "6", "-T", "fields", "-e", "tcp.port", "-e", "frame.packet_id")
	var out, errs bytes.Buffer
	capture.Stdout, capture.Stderr = &out, &errs
	if err := capture.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- capture.Wait() }()
	netnstest.Eventually(t, 2*patience, func() bool {
		if err := b.talk(targets["vip4"]); err != nil {
			t.Fatal(err)
		}
		return len(ended) == 1
	}, "tshark has its packets")
	if err := <-ended; err != nil {
		t.Errorf("tshark: %v\n%s", err, &errs)
	}
	if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != 6 || !strings.Contains(lines[0], port) {
		t.Errorf("packets %q\n%s", lines, &errs)
	}
	netnstest.Eventually(t, patience, func() bool { return len(tapStats(t).Viewers) == 0 }, "the viewer has gone")
	d.signal(unix.SIGUSR1) // without a recorder: only the log says so
	d.logged("SIGUSR1: nothing to write")
}
