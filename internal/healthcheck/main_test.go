package healthcheck

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

func TestMain(m *testing.M) {
	if os.Getenv(acceptorEnv) != "" {
		accept()
		return
	}
	netnstest.Main(m)
}

// limit is how long anything may take that has to happen.
const limit = 10 * time.Second

// patient is a timeout that only a backend that hangs reaches.
const patient = 20 * time.Second

// listen serves connections one by one with answer, which need not close them.
func listen(t testing.TB, answer func(net.Conn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, ln, answer)
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

func serve(t testing.TB, ln net.Listener, answer func(net.Conn)) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				if answer != nil {
					answer(c)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
}

// servePackets answers datagrams; a nil answer is none.
func servePackets(t testing.TB, pc net.PacketConn, answer func([]byte) [][]byte) netip.AddrPort {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, maxDatagram)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			for _, a := range answer(b[:n]) {
				_, _ = pc.WriteTo(a, from)
			}
		}
	})
	t.Cleanup(func() {
		_ = pc.Close()
		wg.Wait()
	})
	return pc.LocalAddr().(*net.UDPAddr).AddrPort()
}

func listenPackets(t testing.TB, answer func([]byte) [][]byte) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return servePackets(t, pc, answer)
}

// closed is an address where nobody listens.
func closed(t testing.TB, udp bool) netip.AddrPort {
	t.Helper()
	if udp {
		pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = pc.Close() }()
		return pc.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// run checks once.
func run(t testing.TB, c Check, addr netip.AddrPort) finding {
	t.Helper()
	if c.Timeout == 0 {
		c.Timeout = patient
	}
	target := Target{Service: "s", Backend: "b", Addr: addr, Check: &c}
	return target.check(context.Background(), time.Now)
}

func wantOutcome(t *testing.T, f finding, want Outcome) {
	t.Helper()
	if f.outcome != want || (f.detail == "") != (want == OK) {
		t.Errorf("%v: %q, want %v", f.outcome, f.detail, want)
	}
}

// hang keeps a connection until the other side ends it.
func hang(c net.Conn) {
	b := make([]byte, 4096)
	for {
		if _, err := c.Read(b); err != nil {
			return
		}
	}
}

// reset ends a connection by RST.
func reset(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }
