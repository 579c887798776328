package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/vishvananda/netlink"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// recordFrames writes a capture of frames of an EtherType for experiments, with
// some of them far apart, and returns the frames.
func recordFrames(t *testing.T, path string, n int) [][]byte {
	t.Helper()
	at := time.Unix(1_600_000_000, 0)
	var frames [][]byte
	var times []time.Time
	for i := range n {
		if i%5 == 4 {
			at = at.Add(40 * time.Millisecond)
		}
		f := append([]byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5}, bytes.Repeat([]byte{byte(i)}, 46+i*3)...)
		frames, times = append(frames, f), append(times, at)
	}
	writeCapture(t, path, frames, times)
	return frames
}

func writeCapture(t *testing.T, path string, frames [][]byte, times []time.Time) {
	t.Helper()
	var b bytes.Buffer
	w := pcapgo.NewWriterNanos(&b)
	if err := w.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for i, f := range frames {
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: times[i], CaptureLength: len(f), Length: len(f)}, f); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// dump has tcpdump capture frames of the client until n are there, while do
// runs, and returns them with their times.
func dump(t *testing.T, l *lab.Lab, n int, filter string, do func()) (frames [][]byte, times []time.Time) {
	t.Helper()
	tcpdump := netnstest.Need(t, "tcpdump", "tcpdump")
	out := filepath.Join(t.TempDir(), "out")
	cmd := l.Client.Command(t.Context(), tcpdump, "-i", lab.EndLink, "-U", "--immediate-mode", "-Z", "root",
		"-c", fmt.Sprint(n), "-w", out, filter)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 4096)
	for seen := ""; !strings.Contains(seen, "listening on"); {
		k, err := stderr.Read(line)
		if seen += string(line[:k]); err != nil {
			t.Fatalf("tcpdump: %v: %s", err, seen)
		}
	}
	do()
	rest, _ := io.ReadAll(stderr)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("tcpdump: %v: %s", err, rest)
	}
	file, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	r, err := pcapgo.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	for {
		b, ci, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return frames, times
		}
		if err != nil {
			t.Fatal(err)
		}
		frames, times = append(frames, b), append(times, ci.Timestamp)
	}
}

// TestReplay captures with tcpdump what was replayed: the same frames in the
// same order, and no frame before its time. That a frame comes late is the
// machine's doing, so the rest of the spacing is held where time is pure, in
// internal/replay.
func TestReplay(t *testing.T) {
	l := netnstest.New(t)
	path := filepath.Join(t.TempDir(), "in.pcap")
	want := recordFrames(t, path, 30)
	for _, method := range []string{"auto", "ring", "gso"} {
		t.Run(method, func(t *testing.T) {
			var stdout string
			got, times := dump(t, l, len(want), "ether proto 0x88b5", func() {
				code, out, errs := cli(t, "replay", "--interface", lab.ClientLink, "--method", method, "--json", path)
				if code != exitOK || errs != "" {
					t.Errorf("exit code %d: %s", code, errs)
				}
				stdout = out
			})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if d := times[29].Sub(times[0]); d < 200*time.Millisecond {
				t.Errorf("six pauses of 40 ms took %v", d)
			}
			var s replaySummary
			if err := json.Unmarshal([]byte(stdout), &s); err != nil {
				t.Fatal(err)
			}
			if s.Sent != 30 || s.Refused != 0 || s.Rounds != 1 || s.Bytes != 30*60+3*29*30/2 || s.Interface != lab.ClientLink || s.Seconds <= 0 {
				t.Errorf("%s", stdout)
			}
		})
	}
}

func TestReplayLoopAndVLAN(t *testing.T) {
	l := netnstest.New(t)
	path := filepath.Join(t.TempDir(), "in.pcap")
	one := recordFrames(t, path, 10)
	var want [][]byte
	for range 3 {
		for _, f := range one {
			tagged := append([]byte{2, 0, 0, 0, 0, 9}, f[6:12]...)
			want = append(want, append(append(tagged, 0x81, 0, 0, 77), f[12:]...))
		}
	}
	got, _ := dump(t, l, len(want), "vlan", func() {
		code, out, errs := cli(t, "replay", path, "--interface", lab.ClientLink, "--topspeed", "--loop", "3",
			"--vlan", "77", "--map-mac", "02:00:00:00:00:02=02:00:00:00:00:09")
		if code != exitOK || errs != "" || !strings.HasPrefix(out, "30 frames, ") {
			t.Errorf("exit code %d: %s%s", code, out, errs)
		}
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestReplayLongTCP replays a frame as a host's own capture has it, before the
// device cut it. A veth takes it whole; where it could not, the kernel would cut.
func TestReplayLongTCP(t *testing.T) {
	l := netnstest.New(t)
	path := filepath.Join(t.TempDir(), "in.pcap")
	ip := &layers.IPv4{Version: 4, TTL: 9, Protocol: layers.IPProtocolTCP, SrcIP: net.IP{203, 0, 113, 7}, DstIP: net.ParseIP(lab.ClientIP4)}
	tcp := &layers.TCP{SrcPort: 7, DstPort: 9, ACK: true}
	if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	payload := bytes.Repeat([]byte("0123456789"), 500)
	b := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: layers.EthernetTypeIPv4},
		ip, tcp, gopacket.Payload(payload))
	if err != nil {
		t.Fatal(err)
	}
	writeCapture(t, path, [][]byte{b.Bytes()}, []time.Time{time.Unix(1, 0)})
	code, _, errs := cli(t, "replay", path, "--interface", lab.ClientLink)
	if code != exitFailed || !strings.Contains(errs, "1 frames were refused") {
		t.Errorf("without gso: exit code %d: %s", code, errs)
	}
	got, _ := dump(t, l, 1, "tcp and src host 203.0.113.7", func() {
		if code, out, errs := cli(t, "replay", path, "--interface", lab.ClientLink, "--method", "gso"); code != exitOK || errs != "" {
			t.Errorf("exit code %d: %s%s", code, out, errs)
		}
	})
	if !bytes.HasSuffix(got[0], payload) || len(got[0]) != len(b.Bytes()) {
		t.Errorf("%d bytes arrived, want %d", len(got[0]), len(b.Bytes()))
	}
}

func TestReplayErrors(t *testing.T) {
	netnstest.New(t)
	dir := t.TempDir()
	path, text := filepath.Join(dir, "in.pcap"), filepath.Join(dir, "text")
	recordFrames(t, path, 500) // the last 15 are longer than the MTU
	if err := os.WriteFile(text, []byte("this is no capture at all, but a text"), 0o600); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName(lab.ServerLink)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP(lab.ServerIP4)}); err != nil {
		t.Fatal(err)
	}
	for line, tt := range map[string]struct {
		code int
		want string
	}{
		"replay":                    {exitUsage, "FILE is missing"},
		"replay x":                  {exitUsage, "--interface is missing"},
		"replay x y --interface lo": {exitUsage, `unexpected argument "y"`},
		"replay --interface lo":     {exitUsage, "FILE is missing"},
		"replay --speed fast x":     {exitUsage, "invalid value"},
		"replay x --interface lo --pps 1 --speed 2":                    {exitUsage, "only one of"},
		"replay x --interface lo --pps -1":                             {exitUsage, "have to be positive"},
		"replay x --interface lo --speed NaN":                          {exitUsage, "have to be positive"},
		"replay x --interface lo --loop 0":                             {exitUsage, "at least 1"},
		"replay x --interface lo --vlan 5000":                          {exitUsage, "want 1 to 4094"},
		"replay x --interface lo --map-ip 1=2":                         {exitUsage, "invalid value"},
		"replay x --interface lo --method pigeon":                      {exitUsage, "parse method"},
		"replay x --interface nowhere0":                                {exitFailed, "find interface nowhere0"},
		"replay x --interface lab-server":                              {exitFailed, "has a default route"},
		"replay /x --interface lab-server --force":                     {exitFailed, "no such file"},
		"replay " + text + " --interface lo":                           {exitFailed, "Unknown magic"},
		"replay " + path + " --topspeed --interface " + lab.ClientLink: {exitFailed, "15 frames were refused, the first because: frame is too long"},
		"zcprobe --interface lab-server":                               {exitFailed, "has a default route"},
		"zcprobe --interface nowhere0":                                 {exitFailed, "find interface nowhere0"},
		"zcprobe --interface nowhere0 --force":                         {exitFailed, "probe nowhere0"},
		"zcprobe lo":                                                   {exitUsage, "unexpected argument"},
	} {
		code, _, errs := cli(t, strings.Fields(line)...)
		if code != tt.code || !strings.Contains(errs, tt.want) {
			t.Errorf("tproxyd %s: exit code %d, %q, want %d with %q", line, code, errs, tt.code, tt.want)
		}
	}
}

// TestZCProbe wants the contract: each method once, with a result.
func TestZCProbe(t *testing.T) {
	netnstest.New(t)
	want := map[string]string{
		"ring": "copied", "mmsg": "copied", "gso": "copied", "splice-udp": "by-reference", "splice-raw": "copied",
	}
	code, stdout, stderr := cli(t, "zcprobe", "--json")
	if code != exitOK || stderr != "" {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	var p struct {
		Methods []struct{ Method, Result string }
	}
	if err := json.Unmarshal([]byte(stdout), &p); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, m := range p.Methods {
		got[m.Method] = m.Result
	}
	if diff := cmp.Diff(want, got); diff != "" || len(p.Methods) != len(want) {
		t.Errorf("-want +got\n%s", diff)
	}
	code, stdout, stderr = cli(t, "zcprobe", "--interface", lab.ClientLink)
	if code != exitOK || stderr != "" || !strings.Contains(stdout, "splice-udp  by-reference  ") || !strings.Contains(stdout, "ring        unknown ") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if _, err := netlink.LinkByName(probePair); err == nil {
		t.Errorf("%s is still there", probePair)
	}
}

// TestZCProbeAlone runs as a user would, outside of every sandbox, and finds a
// namespace for itself.
func TestZCProbeAlone(t *testing.T) {
	if code, stdout, stderr := alone(t, "zcprobe"); code != exitOK || stderr != "" || !strings.Contains(stdout, "splice-udp  by-reference") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}

// alone runs a command line as a process that does not know of our sandbox.
func alone(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "TPROXYD_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, daemonEnv+"={}")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Log(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}
