package e2e

import (
	"encoding/json"
	"testing"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// iperfUDP is what iperf3 reports of a direction.
type iperfUDP struct {
	Packets int
	Lost    int `json:"lost_packets"`
}

// good tells whether a direction has carried what was asked for.
func (r *iperfUDP) good() bool { return r != nil && r.Packets > 50 && r.Lost == 0 }

// iperfReport is the end of iperf3's output.
type iperfReport struct {
	Error string
	End   struct {
		Sum  *iperfUDP
		Back *iperfUDP `json:"sum_bidir_reverse"`
	}
}

// TestIperf3UDP sends at a rate at which the socket buffers of the peers hold
// what comes in half a second, so that a busy machine loses nothing.
func TestIperf3UDP(t *testing.T) {
	const port = 5201
	iperf3 := netnstest.Need(t, "iperf3", "iperf3")
	s := newUDPSite(t, port, "")
	for _, ip := range serverIPs {
		s.daemon(s.Server.Command(t.Context(), iperf3, "--server", "--bind", ip))
		s.awaitSocket(s.Server, "tcp", addrPort(ip, port))
	}
	for _, w := range ways {
		for _, mode := range []string{"", "--reverse", "--bidir"} {
			args := []string{"--client", w.ip, "--udp", "--bitrate", "2M", "--length", "1200", "--bytes", "100K", "--json"}
			if mode != "" {
				args = append(args, mode)
			}
			var got iperfReport
			var out string
			netnstest.Eventually(t, patience, func() bool {
				out = s.run(iperf3, args...)
				got = iperfReport{}
				if err := json.Unmarshal([]byte(out), &got); err != nil {
					t.Fatalf("%s %s: %v\n%s", w.name, mode, err, out)
				}
				return got.Error != "the server is busy running a test. try again later" // the one before
			}, "iperf3's server is free")
			if got.Error != "" || !got.End.Sum.good() || (mode == "--bidir") != got.End.Back.good() {
				t.Errorf("%s %s:\n%s", w.name, mode, out)
			}
		}
	}
	// Who has enough closes its socket while the other still sends.
	s.wantUDP("port_unreachable", "client_reset", "send_failed")
}
