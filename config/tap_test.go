package config

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestTap holds what the tables of the tap come to.
func TestTap(t *testing.T) {
	if cfg := mustParse(t, minimal); cfg.Tap != nil {
		t.Errorf("a tap without its table: %+v", cfg.Tap)
	}
	cfg := mustParse(t, fullTap+minimal)
	want := &Tap{
		Enabled: true, BlockSize: 1 << 20, Blocks: 64, Retire: 10 * time.Millisecond, Settle: 20 * time.Millisecond,
		Timestamp: TimestampSoftware, Fanout: FanoutNone,
		Captures: []Capture{{
			Name: "web", Directory: "/var/lib/tproxyd/captures", Direction: DirectionBoth, Sample: 100, Profile: ProfileHeaders,
			MaxSize: 64 << 20, KeepFiles: 16, GSO: GSOHost, Autostart: true,
		}},
		Recorder: &Recorder{
			Memory: 64 << 20, Directory: "/var/lib/tproxyd/dumps", Before: 10 * time.Second, After: 2 * time.Second,
			Triggers: []Trigger{TriggerUpstreamReset, TriggerConnectTimeout, TriggerHealthChange, TriggerEjection, TriggerSignal},
			Rate:     6, KeepFiles: 32, Profile: ProfileHeaders,
		},
	}
	if diff := cmp.Diff(want, cfg.Tap, sameAddrs); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}

	const other = `
[tap]
enabled = false
interfaces = ["veth*", "eth0"]
block_size = "128KiB"
fanout = "cpu"
fanout_rings = 2
settle = "1ms"
[[tap.capture]]
name = "b"
directory = "/tmp/../var"
services = ["web"]
backends = ["198.18.2.2:8443"]
clients = ["2001:db8::/32", "203.0.113.7"]
protocol = "tcp"
filter = "port 443"
sample = 10
profile = "payload"
snap_length = 1500
max_size = "0B"
keep_files = 0
gso = "wire"
[tap.recorder]
directory = "/var/lib/dumps"
triggers = ["rtt", "retransmits"]
rtt_threshold = "50ms"
retransmit_threshold = 7
`
	cfg = mustParse(t, other+minimal)
	c, p := cfg.Tap.Captures[0], netip.MustParsePrefix
	if diff := cmp.Diff([]netip.Prefix{p("203.0.113.7/32"), p("2001:db8::/32")}, c.Clients, sameAddrs); diff != "" {
		t.Errorf("clients (-want +got):\n%s", diff)
	}
	if c.Directory != "/var" || c.SnapLength != 1500 || c.Protocol != ProtocolTCP || cfg.Tap.Recorder.RTTThreshold != 50*time.Millisecond {
		t.Errorf("got %+v", c)
	}
	if len(cfg.Warnings) != 1 || !strings.Contains(cfg.Warnings[0], "the file never ends") {
		t.Errorf("warnings %q", cfg.Warnings)
	}
	checkRoundTrip(t, cfg)
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"0B": 0, "1B": 1, "64KiB": 64 << 10, "64 MiB": 64 << 20, "3GiB": 3 << 30, "1025KiB": 1025 << 10, "1TiB": 1 << 40,
	} {
		n, ok := parseSize(text)
		if !ok || n != want {
			t.Errorf("%q is %d, %t, want %d", text, n, ok, want)
		}
		if got := formatSize(n); got != strings.ReplaceAll(text, " ", "") {
			t.Errorf("%d is written %q, want %q", n, got, text)
		}
	}
	for _, text := range []string{"", "1", "1GB", "-1B", "1.5GiB", "999999999999999TiB", "B", "1 B "} {
		if n, ok := parseSize(text); ok {
			t.Errorf("%q is %d", text, n)
		}
	}
}
