package proxy

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// TestHalfClose has one end close its direction at once and the other send
// long after that.
func TestHalfClose(t *testing.T) {
	const size = 2 << 20
	m := meet(t)
	m.eachEnd(func(t *testing.T, m *meeting, _ way, s side, actor, other *net.TCPConn) {
		before := m.recorded()
		if err := sendNoise(actor, 1, 1000, 1000); err != nil {
			t.Fatal(err)
		}
		if err := actor.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if n, err := readNoise(other, 1); n != 1000 || err != nil {
			t.Fatalf("read %d bytes and %v, want 1000 and the end of the stream", n, err)
		}
		for i := range 3 {
			sent := make(chan error, 1)
			go func() { sent <- sendNoise(other, 10+i, size, 100_000) }()
			if err := readNoiseN(actor, 10+i, 0, size); err != nil {
				t.Fatal(err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		}
		other.Close()
		if _, err := actor.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read %v, want the end of the stream", err)
		}
		actor.Close()
		r := m.nextRecord(t, before)
		wantReason(t, r, s.close)
		if r.BytesIn+r.BytesOut != 1000+3*size {
			t.Errorf("record has %d bytes in and %d out, want %d", r.BytesIn, r.BytesOut, 1000+3*size)
		}
	})
}

// TestFINBehindData has FIN come right behind the data, at sizes around those
// of the proxy's buffers, and with all of it there at once.
func TestFINBehindData(t *testing.T) {
	m := meet(t)
	m.eachEnd(func(t *testing.T, m *meeting, w way, s side, actor, other *net.TCPConn) {
		before := m.recorded()
		sizes := []int{0, 1, 511, 512, 513, 4095, 4096, 4097, 65535, 65536, 65537, 131072, 300_000}
		for i, size := range sizes {
			for _, frozen := range []bool{false, true} {
				finBehindData(t, m, size, frozen, actor, other)
				if i < len(sizes)-1 || !frozen {
					actor, other = m.pair(w.address)
					if s.reset == UpstreamReset {
						actor, other = other, actor
					}
				}
			}
		}
		for _, r := range m.records.wait(t, before+2*len(sizes))[before:] {
			wantReason(t, r, s.close)
		}
	})
}

func finBehindData(t *testing.T, m *meeting, size int, frozen bool, actor, other *net.TCPConn) {
	t.Helper()
	thaw := func() {}
	if frozen {
		thaw = m.freeze(nil)
	}
	sent := make(chan error, 1)
	go func() {
		err := sendNoise(actor, size, size, size)
		sent <- errors.Join(err, actor.CloseWrite())
	}()
	if frozen && size <= 64<<10 { // more may have to wait for room
		netnstest.Eventually(t, patience, func() bool { return len(sent) > 0 }, "all is sent")
	}
	thaw()
	if n, err := readNoise(other, size); n != size || err != nil {
		t.Errorf("read %d bytes and %v, want %d and the end of the stream", n, err, size)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if err := sendNoise(other, 1, 10, 10); err != nil {
		t.Error(err)
	}
	other.Close()
	if n, err := readNoise(actor, 1); n != 10 || err != nil {
		t.Errorf("answer of %d bytes and %v, want 10 and the end of the stream", n, err)
	}
	actor.Close()
}

// TestFINBeforeUpstream has clients say all they have to say, and close their
// direction, before there is an upstream.
func TestFINBeforeUpstream(t *testing.T) {
	sizes := []int{0, 100, 4096, 20_000}
	m := meet(t)
	restore, err := m.CutServer()
	if err != nil {
		t.Fatal(err)
	}
	var clients []*net.TCPConn
	for _, w := range ways(80) {
		for _, size := range sizes {
			c := m.dial(w.address)
			if err := sendNoise(c, 4, size, size); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			waitAcked(t, c)
			clients = append(clients, c)
		}
	}
	netnstest.Eventually(t, patience, func() bool { return m.inState(connecting) == len(clients) }, "all wait for their upstream")
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	got := map[int]int{}
	for range clients { // SYNs are sent again after a second
		srv := m.accept()
		n, err := readNoise(srv, 4)
		if err != nil {
			t.Errorf("server read %v, want the end of the stream", err)
		}
		got[n]++
		if err := sendNoise(srv, 5, 70_000, 70_000); err != nil {
			t.Error(err)
		}
		srv.Close()
	}
	for _, size := range sizes {
		if got[size] != len(ways(80)) {
			t.Errorf("servers got these sizes so often: %v; want each of %v from %d flows", got, sizes, len(ways(80)))
		}
	}
	for _, c := range clients {
		if n, err := readNoise(c, 5); n != 70_000 || err != nil {
			t.Errorf("client read %d bytes and %v, want 70000 and the end of the stream", n, err)
		}
		c.Close()
	}
	for _, r := range m.records.wait(t, len(clients)) {
		wantReason(t, r, ClientClose)
	}
	m.wantBooks(t)
}

// TestFINAfterQuiet has the first FIN come when nothing was sent for longer
// than half_close_timeout, which counts from there and not from the last byte.
func TestFINAfterQuiet(t *testing.T) {
	const timeout = 400 * time.Millisecond
	m := meet(t, func(s *Service) { s.HalfCloseTimeout = timeout })
	type flowEnds struct{ actor, other *net.TCPConn }
	var flows []flowEnds
	for _, w := range ways(80) {
		cl, srv := m.pair(w.address)
		exchange(t, cl, srv)
		flows = append(flows, flowEnds{cl, srv})
		cl, srv = m.pair(w.address)
		exchange(t, cl, srv)
		flows = append(flows, flowEnds{srv, cl})
	}
	time.Sleep(timeout + timeout/4) //nolint:forbidigo // the quiet
	for _, f := range flows {
		if err := f.actor.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.other.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read %v, want the end of the stream", err)
		}
		if err := sendNoise(f.other, 2, 1000, 1000); err != nil {
			t.Error(err)
		}
		f.other.Close()
		if n, err := readNoise(f.actor, 2); n != 1000 || err != nil {
			t.Errorf("read %d bytes and %v, want 1000 and the end of the stream", n, err)
		}
		f.actor.Close()
	}
	for _, r := range m.records.wait(t, len(flows)) {
		if r.Reason != ClientClose.String() && r.Reason != UpstreamClose.String() {
			t.Errorf("record says %s, want a close", r.Reason)
		}
	}
	m.wantBooks(t)
}
