package e2e

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

func TestIperf3(t *testing.T) {
	const port = 5201
	iperf3 := netnstest.Need(t, "iperf3", "iperf3")
	s := newSite(t, port)
	s.server(port, s.Server.Command(t.Context(), iperf3, "--server"))
	for _, w := range ways {
		for _, mode := range []string{"", "--reverse", "--bidir"} {
			args := []string{"--client", w.ip, "--bytes", "128M", "--parallel", "4", "--json"}
			if mode != "" {
				args = append(args, mode)
			}
			var got struct {
				Error string
				End   struct {
					Received struct{ Bytes int64 } `json:"sum_received"`
					Back     struct{ Bytes int64 } `json:"sum_received_bidir_reverse"`
				}
			}
			out := s.run(iperf3, args...)
			if err := json.Unmarshal([]byte(out), &got); err != nil {
				t.Fatalf("%s %s: %v\n%s", w.name, mode, err, out)
			}
			least := int64(32 << 20) // it stops when all is sent, and leaves unread what is on its way
			if mode == "--bidir" {   // the first direction that is through ends the other
				least = 1 << 20
			}
			if got.Error != "" || got.End.Received.Bytes < least || mode == "--bidir" && got.End.Back.Bytes < least {
				t.Errorf("%s %s: %+v", w.name, mode, got)
			}
		}
	}
	// It closes connections that still have data to read.
	s.wantEnds("client_reset", "upstream_reset")
}

// TestHalfClose has a client end its stream and only then get its answer.
func TestHalfClose(t *testing.T) {
	const port = 7000
	socat := netnstest.Need(t, "socat", "socat")
	s := newSite(t, port)
	s.server(port, s.Server.Command(t.Context(), socat, "-t", "10", "TCP6-LISTEN:7000,ipv6only=0,reuseaddr,fork", "EXEC:sha256sum"))
	path, sum := s.file("sent", 5<<20)
	for _, w := range ways {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		out := s.runInput(f, socat, "-t", "10", "-", "TCP:"+w.url(port))
		_ = f.Close() // only read
		if got := strings.Fields(out); len(got) == 0 || got[0] != sum {
			t.Errorf("%s: the answer after the end of the stream is %q, want %s", w.name, out, sum)
		}
	}
	s.wantEnds()
}
