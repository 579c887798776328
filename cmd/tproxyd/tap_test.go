package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/admin"
	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"golang.org/x/sys/unix"
)

// tapConfig has a capture of everything, and the recorder.
func tapConfig(dir, more string) string {
	return fmt.Sprintf(`
[tap]
block_size = "128KiB"
blocks = 32
settle = "20ms"
[[tap.capture]]
name = "all"
directory = "%s/captures"
profile = "payload"
max_size = "0B"
max_packets = 40
%s
[tap.recorder]
memory = "4MiB"
directory = "%s/dumps"
profile = "payload"
after = "100ms"
`, dir, more, dir)
}

// tap runs a tap command that has to end well, and returns what it prints.
func tapCommand(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, stderr := cli(t, append([]string{"tap", args[0]}, append(args[1:], "--address", adminAddress)...)...)
	if code != exitOK {
		t.Fatalf("tproxyd tap %q: exit code %d: %s", args, code, stderr)
	}
	return stdout
}

// tapStats is what tap stats prints.
func tapStats(t *testing.T) admin.TapStatus {
	t.Helper()
	var s admin.TapStatus
	if err := json.Unmarshal([]byte(tapCommand(t, "stats", "--json")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// tshark reads a file and returns its lines of fields.
func tshark(t *testing.T, file, filter string, fields ...string) []string {
	t.Helper()
	args := []string{"-n", "-r", file, "-Y", filter, "-T", "fields"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	cmd := exec.CommandContext(t.Context(), netnstest.Need(t, "tshark", "tshark"), args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil || strings.Contains(errs.String(), "appears to") {
		t.Fatalf("tshark %s: %v\n%s", file, err, &errs)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// flowID is the id of the one flow there is.
func flowID(t *testing.T) string {
	t.Helper()
	code, stdout, stderr := cli(t, "flows", "--json", "--address", adminAddress)
	var list admin.FlowList
	if err := json.Unmarshal([]byte(stdout), &list); code != exitOK || err != nil || len(list.Flows) != 1 {
		t.Fatalf("flows: exit code %d, %v: %s%s", code, err, stdout, stderr)
	}
	return list.Flows[0].ID.String()
}

// TestTapLife holds that a reload brings the tap and takes it away, that a wrong one
// leaves it as it is, and that files are whole in the end.
func TestTapLife(t *testing.T) {
	b := newBed(t)
	dir := t.TempDir()
	plain := configuration("", "")
	d := b.start(plain, options{})
	if code, _, stderr := cli(t, "tap", "list", "--address", adminAddress); code != exitFailed || !strings.Contains(stderr, "the tap is not configured") {
		t.Errorf("without a tap: exit code %d: %s", code, stderr)
	}
	c := b.open(targets["vip4"]) // before the tap

	d.wantReload(plain+tapConfig(dir, ""), true)
	for _, target := range targets {
		if err := b.talk(target); err != nil {
			t.Fatal(err)
		}
	}
	if err := ping(c); err != nil {
		t.Fatal(err)
	}
	captured := func() uint64 { return tapStats(t).Captures[0].Packets }
	netnstest.Eventually(t, patience, func() bool { return captured() >= 40 }, "a file is full")
	if list := tapCommand(t, "list"); !strings.Contains(list, "all      running") {
		t.Errorf("list:\n%s", list)
	}

	before := tapStats(t)
	for _, bad := range []string{`filter = "port http"`, `directory2 = ""`} {
		d.wantReload(plain+tapConfig(dir, bad), false)
	}
	d.wantReload(plain+strings.Replace(tapConfig(dir, ""), dir+"/captures", "/dev/null/x", 1), false)
	if after := tapStats(t); !after.Captures[0].Running || after.Captures[0].Packets < before.Captures[0].Packets {
		t.Errorf("after wrong reloads %+v, before %+v", after.Captures, before.Captures)
	}

	tapCommand(t, "stop", "all")
	if tapStats(t).Captures[0].Running {
		t.Error("a capture goes on after tap stop")
	}
	tapCommand(t, "start", "all")
	wantStatsContract(t)

	d.wantReload(plain, true)
	if code, _, stderr := cli(t, "tap", "stats", "--address", adminAddress); code != exitFailed || !strings.Contains(stderr, "the tap is not configured") {
		t.Errorf("with the tap taken away: exit code %d: %s", code, stderr)
	}
	d.wantReload(plain+tapConfig(dir, ""), true)
	if err := b.talk(targets["vip6"]); err != nil {
		t.Fatal(err)
	}
	netnstest.Eventually(t, patience, func() bool { return captured() > 0 }, "the new flow is captured")
	closeAll(t, c)
	if code := d.terminate(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	wantWhole(t, dir+"/captures")
}

// wantStatsContract holds the keys that are promised.
func wantStatsContract(t *testing.T) {
	t.Helper()
	var answer struct{ Captures []map[string]any }
	if err := json.Unmarshal([]byte(tapCommand(t, "stats", "--json")), &answer); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"name", "packets", "bytes", "ring_drops", "freezes", "sink_drops"} {
		if _, ok := answer.Captures[0][key]; !ok {
			t.Errorf("tap stats --json lacks %s: %v", key, answer.Captures[0])
		}
	}
}

// wantWhole wants complete files and nothing else in a directory.
func wantWhole(t *testing.T, dir string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 2 {
		t.Fatalf("files %v: %v", files, err)
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		if filepath.Ext(path) != ".pcapng" {
			t.Errorf("there is %s", path)
			continue
		}
		tshark(t, path, "tcp", "frame.number")
	}
}

// TestTapLive holds that a viewer gets what it asked for and no more.
func TestTapLive(t *testing.T) {
	b := newBed(t)
	d := b.start(configuration("", "")+tapConfig(t.TempDir(), "autostart = false"), options{})
	type result struct {
		code           int
		stdout, stderr string
	}
	done := make(chan result, 1)
	go func() {
		var r result
		r.code, r.stdout, r.stderr = cli(t, "tap", "live", "--address", adminAddress, "--service", "web", "--filter", "ip and tcp port 80", "--count", "8")
		done <- r
	}()
	netnstest.Eventually(t, patience, func() bool { return len(tapStats(t).Viewers) == 1 }, "there is a viewer")
	for _, target := range []string{"vip6", "intercept4", "vip4", "vip4"} {
		if err := b.talk(targets[target]); err != nil {
			t.Fatal(err)
		}
	}
	r := <-done
	file := filepath.Join(t.TempDir(), "live.pcapng")
	if err := os.WriteFile(file, []byte(r.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	packets := tshark(t, file, "frame", "tcp.port")
	if r.code != exitOK || len(packets) != 8 {
		t.Errorf("exit code %d, %d packets: %q %s", r.code, len(packets), packets, r.stderr)
	}
	if n := len(slices.DeleteFunc(tshark(t, file, "ip.addr == "+lab.ForeignIP4+" or ipv6", "frame.number"), func(s string) bool { return s == "" })); n > 0 {
		t.Errorf("%d packets of others", n)
	}

	// A reader that goes is a good end.
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan int, 1)
	go func() {
		var errs bytes.Buffer
		ended <- execute(t.Context(), env{stdout: writer, stderr: &errs}, []string{"tap", "live", "--address", adminAddress})
	}()
	if _, err := io.ReadFull(reader, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	_ = reader.Close()
	netnstest.Eventually(t, patience, func() bool {
		if err := b.talk(targets["vip4"]); err != nil {
			t.Fatal(err)
		}
		return len(ended) == 1
	}, "the viewer ends")
	if code := <-ended; code != exitOK {
		t.Errorf("exit code %d after its reader has gone", code)
	}
	_ = writer.Close()
	d.idle()
}

// TestTapDump holds that a dump of a flow has both its legs, from memory, and that
// SIGUSR1 writes one.
func TestTapDump(t *testing.T) {
	b := newBed(t)
	dir := t.TempDir()
	d := b.start(configuration("", "")+tapConfig(dir, "autostart = false"), options{})
	other := b.talk(targets["vip4"])
	c := b.open(targets["vip4"])
	if other != nil {
		t.Fatal(other)
	}
	id := flowID(t)
	file := filepath.Join(dir, "flow.pcapng")
	var legs []string
	netnstest.Eventually(t, patience, func() bool {
		tapCommand(t, "dump", "--last", "1m", "--flow", id, "--output", file)
		legs = tshark(t, file, "tcp.flags.syn == 1", "ip.dst")
		slices.Sort(legs)
		legs = slices.Compact(legs)
		return len(legs) >= 3
	}, "the dump has the flow")
	want := []string{lab.ClientIP4, lab.ServerIP4, lab.VIP4}
	for _, ip := range want {
		if !slices.Contains(legs, ip) {
			t.Errorf("no SYN to %s in %v", ip, legs)
		}
	}
	ids := tshark(t, file, "frame", "frame.packet_id")
	slices.Sort(ids)
	if ids = slices.Compact(ids); len(ids) != 1 || ids[0] == "" {
		t.Errorf("packet ids %q, want that of one flow", ids)
	}
	if leftover, _ := filepath.Glob(file + ".*"); len(leftover) > 0 {
		t.Errorf("left behind: %v", leftover)
	}

	d.signal(unix.SIGUSR1)
	netnstest.Eventually(t, patience, func() bool {
		dumps, _ := filepath.Glob(dir + "/dumps/*signal*.pcapng")
		return len(dumps) == 1
	}, "SIGUSR1 has written a dump")
	closeAll(t, c)
}

// TestTapRecords holds that the record of a flow says how much of it the tap saw,
// and that a daemon that ends holds none back.
func TestTapRecords(t *testing.T) {
	b := newBed(t)
	d := b.start(configuration("", "")+tapConfig(t.TempDir(), ""), options{})
	for _, target := range []string{"vip4", "vip6"} {
		if err := b.talk(targets[target]); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range d.records(2) {
		if !strings.Contains(line, `"tap_client":1.0000,"tap_upstream":1.0000`) {
			t.Errorf("record %s, want that the tap saw all of the flow", line)
		}
	}
	if err := b.talk(targets["vip4"]); err != nil {
		t.Fatal(err)
	}
	d.idle()
	d.terminate()
	d.records(3)
}
