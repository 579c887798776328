package accesslog_test

import (
	"encoding/json"
	"flag"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tproxyd/tproxyd/internal/accesslog"
)

var update = flag.Bool("update", false, "write the golden files")

var formats = map[accesslog.Format]func([]byte, *accesslog.Record) []byte{
	accesslog.FormatJSON:    accesslog.AppendJSON,
	accesslog.FormatHAProxy: accesslog.AppendHAProxy,
}

func TestGolden(t *testing.T) {
	for format, appendRecord := range formats {
		t.Run(string(format), func(t *testing.T) {
			var got []byte
			for _, r := range records() {
				got = append(appendRecord(got, &r), '\n')
			}
			file := filepath.Join("testdata", string(format)+".golden")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		})
	}
}

func TestJSONFields(t *testing.T) {
	r := full()
	var got map[string]any
	if err := json.Unmarshal(accesslog.AppendJSON(nil, &r), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"time": "2026-02-03T04:05:06.007891Z", "flow_id": "00c0ffee00000001",
		"service": "web", "protocol": "tcp",
		"client": "198.18.1.2:40000", "destination": "203.0.113.10:443",
		"backend": "198.18.2.2:8443", "backend_name": "web-1",
		"upstream_source": "198.18.1.2:40000", "source_policy": "client",
		"bytes_in": 517.0, "bytes_out": 104857600.0,
		"queue_ms": 0.0, "connect_ms": 1.042, "duration_ms": 2000.007,
		"path_in": "copy", "path_out": "splice", "retries": 1.0,
		"client_rtt_us": 25312.0, "upstream_rtt_us": -1.0, "client_retrans": 3.0, "upstream_retrans": -1.0, "limited_by": "network",
		"reason": "client_fin", "term": "--",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

// TestJSONOfDatagrams holds that udp has the counts of datagrams, zero or not, in
// place of what is known of tcp's legs, and that tcp has none of them, whatever
// the record says.
func TestJSONOfDatagrams(t *testing.T) {
	fields := func(r accesslog.Record) map[string]any {
		var got map[string]any
		if err := json.Unmarshal(accesslog.AppendJSON(nil, &r), &got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	got := fields(udp())
	if got["datagrams_in"] != 2.0 || got["datagrams_out"] != 3.0 || len(got) != 22 {
		t.Errorf("udp: %d fields, want 22: %v", len(got), got)
	}
	silent := udp()
	silent.DatagramsIn, silent.DatagramsOut = 1, 0
	if got := fields(silent); got["datagrams_in"] != 1.0 || got["datagrams_out"] != 0.0 || len(got) != 22 {
		t.Errorf("udp without a reply: %d fields, want 22: %v", len(got), got)
	}
	tcp := udp()
	tcp.Protocol = "tcp"
	got = fields(tcp)
	_, in := got["datagrams_in"]
	_, out := got["datagrams_out"]
	if in || out || len(got) != 25 {
		t.Errorf("tcp: %d fields, want 25: %v", len(got), got)
	}
}

// TestJSONOfTap holds that the parts that a tap saw are there for flows that one
// has looked at, of either protocol, and are never rounded up to the whole.
func TestJSONOfTap(t *testing.T) {
	for _, tt := range []struct {
		part float64
		want string
	}{
		{0, "0.0000"},
		{1, "1.0000"},
		{0.25, "0.2500"},
		{0.99999, "0.9999"},
		{0.00001, "0.0000"},
		{1.5, "1.0000"},
		{-1, "0.0000"},
		{math.NaN(), "0.0000"},
		{math.Inf(1), "1.0000"},
	} {
		for _, r := range []accesslog.Record{full(), udp()} {
			r.TapClient, r.TapUpstream = tt.part, 1
			if line := string(accesslog.AppendJSON(nil, &r)); strings.Contains(line, "tap_") {
				t.Errorf("without a tap: %s", line)
			}
			r.Tapped = true
			want := `"tap_client":` + tt.want + `,"tap_upstream":1.0000,"reason"`
			if line := string(accesslog.AppendJSON(nil, &r)); !strings.Contains(line, want) || !json.Valid([]byte(line)) {
				t.Errorf("%v: %s, want %s in it", tt.part, line, want)
			}
		}
	}
}

// TestHAProxyOfDatagrams holds that a line of udp differs from one of tcp in
// nothing: HAProxy's format has no place for the protocol.
func TestHAProxyOfDatagrams(t *testing.T) {
	tcp := udp()
	tcp.Protocol, tcp.DatagramsIn, tcp.DatagramsOut = "tcp", 0, 0
	r := udp()
	if diff := cmp.Diff(string(accesslog.AppendHAProxy(nil, &tcp)), string(accesslog.AppendHAProxy(nil, &r))); diff != "" {
		t.Errorf("line (-tcp +udp):\n%s", diff)
	}
}

func TestJSONOfNothing(t *testing.T) {
	var r accesslog.Record
	r.Connect = -1
	var got map[string]any
	if err := json.Unmarshal(accesslog.AppendJSON(nil, &r), &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"client", "destination", "backend", "upstream_source"} {
		if got[name] != "" {
			t.Errorf("%s = %q, want it empty", name, got[name])
		}
	}
	if got["connect_ms"] != -1.0 {
		t.Errorf("connect_ms = %v of a flow that never connected, want -1", got["connect_ms"])
	}
	if n := len(got); n != 20 {
		t.Errorf("%d fields, want all 20", n)
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	recs := records()[:5] // the others hold interface names in addresses
	buf := make([]byte, 0, 4096)
	for format, appendRecord := range formats {
		got := testing.AllocsPerRun(100, func() {
			for i := range recs {
				buf = appendRecord(buf[:0], &recs[i])
			}
		})
		if got != 0 {
			t.Errorf("%s: %v allocations, want none", format, got)
		}
	}
}

func FuzzAppend(f *testing.F) {
	for _, r := range records() {
		f.Add(r.Service, r.BackendName, r.Reason, r.Client.Addr().Zone(), r.FlowID, int64(r.Duration))
	}
	f.Fuzz(func(t *testing.T, service, backend, reason, zone string, n uint64, d int64) {
		r := full()
		r.Service, r.BackendName, r.Reason, r.Term = service, backend, reason, reason
		r.FlowID, r.BytesIn = n, n
		r.Protocol, r.DatagramsIn, r.DatagramsOut = "udp", n, n/2
		r.Duration = time.Duration(d)
		r.Client = netip.AddrPortFrom(netip.MustParseAddr("fe80::1").WithZone(zone), 1)

		line := accesslog.AppendJSON(nil, &r)
		if strings.ContainsAny(string(line), "\n\r") {
			t.Errorf("more than a line: %q", line)
		}
		var got struct {
			Service, Reason, Client string
			BackendName             string  `json:"backend_name"`
			BytesIn                 uint64  `json:"bytes_in"`
			DatagramsIn             uint64  `json:"datagrams_in"`
			DatagramsOut            uint64  `json:"datagrams_out"`
			DurationMs              float64 `json:"duration_ms"`
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		for _, s := range []struct{ in, out string }{
			{service, got.Service},
			{backend, got.BackendName},
			{reason, got.Reason},
			{r.Client.String(), got.Client},
		} {
			if want := throughJSON(t, s.in); s.out != want {
				t.Errorf("%q came back as %q, encoding/json says %q", s.in, s.out, want)
			}
		}
		ms := -1.0
		if d >= 0 {
			ms = float64(d/1000) / 1000
		}
		if got.DurationMs != ms {
			t.Errorf("duration of %d ns came back as %v ms, want %v", d, got.DurationMs, ms)
		}
		if got.BytesIn != n {
			t.Errorf("bytes_in %d came back as %d", n, got.BytesIn)
		}
		if got.DatagramsIn != n || got.DatagramsOut != n/2 {
			t.Errorf("datagrams %d, %d came back as %d, %d", n, n/2, got.DatagramsIn, got.DatagramsOut)
		}

		line = accesslog.AppendHAProxy(nil, &r)
		if words := strings.Split(string(line), " "); len(words) != 9 {
			t.Errorf("%d words, want 9: %q", len(words), line)
		}
		if n := strings.Count(string(line), "/"); n != 2+1+2+4+1 {
			t.Errorf("%d slashes, want 10: %q", n, line)
		}
	})
}

// throughJSON returns what encoding/json makes of s.
func throughJSON(t *testing.T, s string) (out string) {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func BenchmarkAppend(b *testing.B) {
	r := full()
	for format, appendRecord := range formats {
		b.Run(string(format), func(b *testing.B) {
			b.ReportAllocs()
			buf := make([]byte, 0, 4096)
			for b.Loop() {
				buf = appendRecord(buf[:0], &r)
			}
			b.SetBytes(int64(len(buf)))
		})
	}
}
