package load

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

const patience = 20 * time.Second

// hosts are addresses that any socket here may use.
var hosts = netip.MustParsePrefix("127.0.0.0/8")

func freeDatagramPort(t *testing.T) netip.AddrPort {
	t.Helper()
	s, err := openDatagramSocket(netip.AddrPortFrom(loopback, 0))
	if err != nil {
		t.Fatal(err)
	}
	s.close()
	return netip.AddrPortFrom(loopback, s.port)
}

func startDatagramBackend(t *testing.T, size int, clients netip.Prefix) (*peer, netip.AddrPort) {
	t.Helper()
	addr := freeDatagramPort(t)
	p := startPeer(t, func(s Streams) error {
		b, err := NewDatagramBackend(DatagramBackendConfig{Listen: []netip.AddrPort{addr}, Clients: clients, Size: size}, s)
		if err != nil {
			return err
		}
		return b.Run()
	})
	p.ask("", &DatagramReport{})
	return p, addr
}

func startDatagramClient(t *testing.T, cfg DatagramConfig) *peer {
	t.Helper()
	cfg.Sources = hosts
	p := startPeer(t, func(s Streams) error {
		c, err := NewDatagramClient(cfg, s)
		if err != nil {
			return err
		}
		return c.Run()
	})
	p.ask("", &DatagramReport{})
	return p
}

// sendSome sends at least n datagrams at a rate that no buffer minds, and
// returns what both ends counted.
func sendSome(t *testing.T, client, backend *peer, n uint64) (sent, received DatagramReport) {
	t.Helper()
	backend.ask("start 5 1000000", &received)
	client.ask("start 5 1000", &sent)
	netnstest.Eventually(t, patience, func() bool { client.ask("stat", &sent); return sent.Sent >= n }, "not sent")
	client.ask("stop", &sent)
	return sent, received
}

func TestDatagrams(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  DatagramConfig
	}{
		{"one flow", DatagramConfig{Flows: 1, Size: 200, Burst: 1}},
		{"flows", DatagramConfig{Flows: 40, Size: 200, Burst: 1}},
		{"one flow in runs", DatagramConfig{Flows: 1, Size: 1200, Burst: MaxDatagram / 1200}},
		{"flows in runs", DatagramConfig{Flows: 3, Size: MinDatagram, Burst: 7}},
		{"queries", DatagramConfig{Ask: true, Size: 100, Burst: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			backend, addr := startDatagramBackend(t, tt.cfg.Size, hosts)
			tt.cfg.Target = addr
			client := startDatagramClient(t, tt.cfg)
			sent, received := sendSome(t, client, backend, 200)
			netnstest.Eventually(t, patience, func() bool {
				backend.ask("stat", &received)
				return received.Received >= sent.Sent
			}, fmt.Sprintf("backend has not got what was sent: %+v", sent))
			if received.Received != sent.Sent || received.Flows != max(1, tt.cfg.Flows) {
				t.Errorf("received %+v, want %d of %d flows", received, sent.Sent, max(1, tt.cfg.Flows))
			}
			if received.Duplicates+received.Reordered+received.Foreign+received.Errors+received.Overflow != 0 {
				t.Errorf("received %+v, want nothing but the datagrams", received)
			}
			if sent.LastSentNS <= sent.FirstSentNS || received.LastReceivedNS <= received.FirstReceivedNS {
				t.Errorf("sent %+v, received %+v: the last is not later than the first", sent, received)
			}
			if !tt.cfg.Ask {
				return
			}
			netnstest.Eventually(t, patience, func() bool { client.ask("stat", &sent); return sent.Received >= sent.Sent }, "answers are missing")
			if sent.Received != sent.Sent || sent.Duplicates+sent.Foreign+sent.Errors != 0 {
				t.Errorf("client: %+v, want an answer to each of its queries", sent)
			}
		})
	}
}

// A new run begins with nothing, and what is late from the one before is not
// counted in it.
func TestDatagramEpochs(t *testing.T) {
	backend, addr := startDatagramBackend(t, 100, hosts)
	client := startDatagramClient(t, DatagramConfig{Target: addr, Flows: 2, Size: 100, Burst: 1})
	sent, received := sendSome(t, client, backend, 10)
	backend.ask("start 6 0", &received)
	if received.Received != 0 || received.Epoch != 6 {
		t.Errorf("received %+v, want nothing of epoch 6", received)
	}
	client.ask("start 5 1000", &sent) // another one than the backend's
	if sent.Sent != 0 {
		t.Errorf("sent %+v, want nothing yet", sent)
	}
	netnstest.Eventually(t, patience, func() bool { client.ask("stat", &sent); return sent.Sent >= 10 }, "not sent")
	backend.ask("stat", &received)
	if received.Received != 0 || received.Errors != 0 {
		t.Errorf("received %+v, want none of another epoch, and no error", received)
	}
}

// lossyRelay passes datagrams on from a socket of its own, so it is not
// transparent. It loses every tenth, repeats every twentieth, and swaps every
// fiftieth with the one before it.
type lossyRelay struct {
	passed, repeated, swapped uint64
	held                      []byte
}

func (r *lossyRelay) run(in, out *net.UDPConn) error {
	buf := make([]byte, 2000)
	for n := 1; ; n++ {
		size, err := in.Read(buf)
		if err != nil {
			return err
		}
		if err := r.pass(n, buf[:size], out); err != nil {
			return err
		}
	}
}

func (r *lossyRelay) pass(n int, data []byte, out *net.UDPConn) error {
	var errs []error
	send := func(b []byte) {
		_, err := out.Write(b)
		errs = append(errs, err)
	}
	switch {
	case n%10 == 0:
		return nil
	case n%50 == 24:
		r.held = append(r.held[:0], data...)
		return nil // until the next
	case n%50 == 25:
		send(data)
		send(r.held)
		r.passed += 2
		r.swapped++
	case n%20 == 7:
		send(data)
		send(data)
		r.passed++
		r.repeated++
	default:
		send(data)
		r.passed++
	}
	return errors.Join(errs...)
}

// Loss, repetition, another order and another source are counted exactly.
func TestLossyRelay(t *testing.T) {
	backend, addr := startDatagramBackend(t, 300, hosts)
	in, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
	if err != nil {
		t.Fatal(err)
	}
	if err := in.SetReadBuffer(200 << 10); err != nil { // the kernel doubles it: room for all
		t.Fatal(err)
	}
	out, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	relay := &lossyRelay{}
	ended := make(chan error, 1)
	go func() { ended <- relay.run(in, out) }()
	client := startDatagramClient(t, DatagramConfig{
		Target: in.LocalAddr().(*net.UDPAddr).AddrPort(), Flows: 1, Size: 300, Burst: 1,
	})
	sent, received := sendSome(t, client, backend, 200)
	// What is in the relay's queue when it ends is lost: wait for its last.
	netnstest.Eventually(t, patience, func() bool {
		backend.ask("stat", &received)
		return received.Received >= sent.Sent-sent.Sent/10-1
	}, "the relay does not pass what it should")
	_ = in.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("relay: %v", err)
	}
	netnstest.Eventually(t, patience, func() bool {
		backend.ask("stat", &received)
		return received.Received == relay.passed && received.Duplicates == relay.repeated
	}, "what the relay passed has not arrived")
	if received.Reordered != relay.swapped || relay.swapped == 0 || relay.repeated == 0 {
		t.Errorf("received %+v, want %d behind a later one; relay %+v", received, relay.swapped, relay)
	}
	if received.Foreign != relay.passed+relay.repeated || received.ForeignPeer != out.LocalAddr().String() {
		t.Errorf("received %+v, want all of them to be foreign, from %s", received, out.LocalAddr())
	}
	if received.Errors != 0 {
		t.Errorf("received %+v, want no error", received)
	}
}

// A datagram of another size or content is an error.
func TestDatagramDamageIsFound(t *testing.T) {
	backend, addr := startDatagramBackend(t, 100, hosts)
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	b := make([]byte, 100)
	datagram{port: uint16(conn.LocalAddr().(*net.UDPAddr).Port)}.put(b, newPattern())
	var r DatagramReport
	for i, tt := range []struct {
		data []byte
		want string
	}{
		{b[:99], "99 bytes, want 100"},
		{make([]byte, 100), "99 bytes, want 100"}, // the first stays
	} {
		if _, err := conn.Write(tt.data); err != nil {
			t.Fatal(err)
		}
		netnstest.Eventually(t, patience, func() bool { backend.ask("stat", &r); return r.Errors == uint64(i+1) }, "no error")
		if !strings.Contains(r.FirstError, tt.want) {
			t.Errorf("error %q, want %q", r.FirstError, tt.want)
		}
	}
	if r.Received != 0 {
		t.Errorf("received %+v, want nothing", r)
	}
}

func TestDatagramConfigRefused(t *testing.T) {
	good := DatagramConfig{Target: netip.AddrPortFrom(loopback, 9), Sources: hosts, Flows: 1, Size: 100, Burst: 1}
	for name, change := range map[string]func(*DatagramConfig){
		"no flows":        func(c *DatagramConfig) { c.Flows = 0 },
		"flows and asks":  func(c *DatagramConfig) { c.Ask = true },
		"too many flows":  func(c *DatagramConfig) { c.Flows = maxFlows + 1 },
		"too small":       func(c *DatagramConfig) { c.Size = MinDatagram - 1 },
		"too large a run": func(c *DatagramConfig) { c.Size, c.Burst = 1200, 55 },
		"no burst":        func(c *DatagramConfig) { c.Burst = 0 },
		"IPv6 target":     func(c *DatagramConfig) { c.Target = netip.AddrPortFrom(netip.IPv6Loopback(), 9) },
		"IPv6 sources":    func(c *DatagramConfig) { c.Sources = netip.MustParsePrefix("2001:db8::/64") },
		"one source":      func(c *DatagramConfig) { c.Sources = netip.MustParsePrefix("127.0.0.1/32") },
	} {
		cfg := good
		change(&cfg)
		if c, err := NewDatagramClient(cfg, Streams{}); err == nil {
			c.close()
			t.Errorf("%s: no error", name)
		}
	}
}
