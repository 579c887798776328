package proxy

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"golang.org/x/sys/unix"
)

// side is one end of a flow in a test that is run both ways round.
type side struct {
	name                string
	reset, close        Reason // when this end resets, or closes first
	nearLink, otherLink string // the proxy's link to this end, and to the other
}

var sides = [2]side{
	client:   {"client", ClientReset, ClientClose, lab.ClientLink, lab.ServerLink},
	upstream: {"server", UpstreamReset, UpstreamClose, lab.ServerLink, lab.ClientLink},
}

// eachEnd runs test for every way with the client and with the server as the
// end that acts.
func (m *meeting) eachEnd(test func(t *testing.T, m *meeting, w way, s side, actor, other *net.TCPConn)) {
	for i, s := range sides {
		m.each(func(t *testing.T, m *meeting, w way) {
			cl, srv := m.pair(w.address)
			ends := [2]*net.TCPConn{cl, srv}
			test(t, m, w, s, ends[i], ends[1-i])
		})
	}
}

// TestResetIsReset has a RST on one leg be a RST on the other, and no FIN.
func TestResetIsReset(t *testing.T) {
	m := meet(t)
	m.eachEnd(func(t *testing.T, m *meeting, _ way, s side, actor, other *net.TCPConn) {
		seen := m.watchWire(t, s.otherLink)
		before := m.recorded()
		if _, err := actor.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		waitAcked(t, actor)
		abort(actor)
		got := make([]byte, 10)
		if _, err := io.ReadFull(other, got); err != nil || string(got) != "last words" {
			t.Errorf("got %q and %v, want the bytes before the RST", got, err)
		}
		wantReset(t, other)
		wantReason(t, m.nextRecord(t, before), s.reset)
		from, to := unmapped(other.RemoteAddr()), unmapped(other.LocalAddr())
		netnstest.Eventually(t, patience, func() bool { return seen.count(from, to, flagRST) == 1 }, "a RST on the wire")
		if n := seen.count(from, to, flagFIN); n != 0 {
			t.Errorf("%d FIN on the wire, want none", n)
		}
	})
}

// TestResetAfterFIN has one end close its direction and later abort: the other
// gets the end of the stream, and then RST although nothing is sent any more.
func TestResetAfterFIN(t *testing.T) {
	m := meet(t)
	m.eachEnd(func(t *testing.T, m *meeting, _ way, s side, actor, other *net.TCPConn) {
		seen := m.watchWire(t, s.otherLink)
		before := m.recorded()
		if err := actor.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read %v, want the end of the stream", err)
		}
		abort(actor)
		wantReason(t, m.nextRecord(t, before), s.reset)
		from, to := unmapped(other.RemoteAddr()), unmapped(other.LocalAddr())
		netnstest.Eventually(t, patience, func() bool { return seen.count(from, to, flagRST) == 1 }, "a RST on the wire")
	})
}

// TestResetWithFIN is the same with data, FIN and RST met at once. Whoever
// talks to the actor directly reads the data and the end of the stream.
func TestResetWithFIN(t *testing.T) {
	m := meet(t)
	m.eachEnd(func(t *testing.T, m *meeting, _ way, s side, actor, other *net.TCPConn) {
		before := m.recorded()
		thaw := m.freeze(nil)
		if err := sendNoise(actor, 3, 50_000, 50_000); err != nil {
			t.Fatal(err)
		}
		if err := actor.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		waitAcked(t, actor)
		abort(actor)
		thaw()
		if n, err := readNoise(other, 3); n != 50_000 || err != nil {
			t.Errorf("read %d bytes and %v, want 50000 and the end of the stream", n, err)
		}
		// The other end has nothing to say: the RST alone ends the flow.
		wantReason(t, m.nextRecord(t, before), s.reset)
	})
}

// TestResetBehindData has an end abort when a slow reader has not got half of
// what it sent. The reader gets every byte, then RST.
func TestResetBehindData(t *testing.T) {
	const size = 1 << 20
	m := meet(t)
	m.eachEnd(func(t *testing.T, m *meeting, _ way, s side, actor, other *net.TCPConn) {
		before := m.recorded()
		if err := other.SetReadBuffer(8 << 10); err != nil {
			t.Fatal(err)
		}
		sent := make(chan error, 1)
		go func() { sent <- sendNoise(actor, 5, size, size) }()
		// Read until the proxy has all that the actor sent.
		const first = 400 << 10
		if err := readNoiseN(other, 5, 0, first); err != nil {
			t.Fatal(err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		waitAcked(t, actor)
		abort(actor)
		check := &noiseCheck{seed: 5, pos: first}
		piece := make([]byte, 16<<10)
		for {
			n, err := other.Read(piece)
			if _, bad := check.Write(piece[:n]); bad != nil {
				t.Fatal(bad)
			}
			if err != nil {
				if !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("read %v, want connection reset", err)
				}
				break
			}
		}
		if check.pos != size {
			t.Errorf("reader got %d bytes, want %d", check.pos, size)
		}
		r := m.nextRecord(t, before)
		wantReason(t, r, s.reset)
		if r.BytesIn+r.BytesOut != size {
			t.Errorf("record has %d bytes in and %d out, want %d", r.BytesIn, r.BytesOut, size)
		}
	})
}

// TestResetByBoth has the reader abort as well while the proxy waits for it to
// take what came before the other's RST: nothing is left to wait for.
func TestResetByBoth(t *testing.T) {
	m := meet(t)
	m.eachEnd(func(t *testing.T, m *meeting, _ way, s side, actor, other *net.TCPConn) {
		before := m.recorded()
		if err := other.SetReadBuffer(4 << 10); err != nil {
			t.Fatal(err)
		}
		if err := sendNoise(actor, 5, 64<<10, 64<<10); err != nil {
			t.Fatal(err)
		}
		waitAcked(t, actor)
		abort(actor)
		netnstest.Eventually(t, patience, func() bool { return m.inState(resetting) == 1 }, "the proxy knows of the RST")
		abort(other)
		wantReason(t, m.nextRecord(t, before), s.reset)
	})
}

// inState is the number of flows in state s.
func (b *bed) inState(s state) int {
	counts := make([]int, len(b.proxy.workers))
	b.proxy.each(func(w *worker) {
		w.flows.all(func(f *flow) {
			if f.state == s {
				counts[w.id]++
			}
		})
	})
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return sum
}

// TestAnswerBeforeReset has a server answer without having read the request,
// and close: its RST does not overtake the answer.
func TestAnswerBeforeReset(t *testing.T) {
	const answer = 200 << 10
	m := meet(t)
	for _, withFIN := range []bool{false, true} {
		m.each(func(t *testing.T, m *meeting, w way) {
			before := m.recorded()
			cl, srv := m.pair(w.address)
			asked := make(chan error, 1)
			go func() { asked <- sendNoise(cl, 1, 64<<20, 32<<10) }()
			if err := readNoiseN(srv, 1, 0, 100_000); err != nil {
				t.Fatal(err)
			}
			if err := sendNoise(srv, 2, answer, answer); err != nil {
				t.Fatal(err)
			}
			if withFIN {
				if err := srv.CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			waitAcked(t, srv)
			srv.Close() // with unread data: RST
			n, err := readNoise(cl, 2)
			if n != answer {
				t.Errorf("client got %d bytes and %v, want the answer of %d", n, err, answer)
			}
			if withFIN && err != nil {
				t.Errorf("client got %v, want the end of the answer", err)
			}
			// Either the client's read or its write is told of the RST.
			werr := <-asked
			if !withFIN && !errors.Is(err, unix.ECONNRESET) && !errors.Is(werr, unix.ECONNRESET) {
				t.Errorf("client read %v and wrote %v, want connection reset", err, werr)
			}
			wantReason(t, m.nextRecord(t, before), UpstreamReset)
		})
	}
}

// TestBannerBeforeReset has servers speak and abort before the proxy even
// knows that it is connected.
func TestBannerBeforeReset(t *testing.T) {
	m := meet(t)
	restore, err := m.CutServer()
	if err != nil {
		t.Fatal(err)
	}
	var clients []*net.TCPConn
	for _, w := range ways(80) {
		clients = append(clients, m.dial(w.address))
	}
	netnstest.Eventually(t, patience, func() bool { return m.inState(connecting) == len(clients) }, "the proxy has sent its SYNs")
	thaw := m.freeze(nil)
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	for range clients { // SYNs are sent again after a second
		srv := m.accept()
		if err := sendNoise(srv, 9, 1000, 1000); err != nil {
			t.Fatal(err)
		}
		waitAcked(t, srv)
		abort(srv)
	}
	thaw()
	for _, c := range clients {
		if n, err := readNoise(c, 9); n != 1000 || !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("client got %d bytes and %v, want 1000 and connection reset", n, err)
		}
	}
	for _, r := range m.records.wait(t, len(clients)) {
		wantReason(t, r, UpstreamReset)
		if r.BytesOut != 1000 || r.Connect < 0 {
			t.Errorf("record has %d bytes out and connect time %v, want 1000 and one", r.BytesOut, r.Connect)
		}
	}
	m.wantBooks(t)
}

// TestResetWaitsForProgress has a reader that takes the bytes before a RST
// more slowly than half_close_timeout allows for a peer that does nothing.
func TestResetWaitsForProgress(t *testing.T) {
	const size, piece = 256 << 10, 8 << 10
	const timeout = 300 * time.Millisecond
	m := meet(t, func(s *Service) { s.HalfCloseTimeout = timeout })
	w := ways(80)[0]
	cl, srv := m.pair(w.address)
	if err := cl.SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	if err := sendNoise(srv, 5, size, size); err != nil {
		t.Fatal(err)
	}
	waitAcked(t, srv)
	abort(srv)
	start := time.Now()
	for pos := 0; pos < size; pos += piece {
		// Spread over four times the timeout.
		time.Sleep(time.Until(start.Add(4 * timeout * time.Duration(pos) / size))) //nolint:forbidigo // a slow reader
		if err := readNoiseN(cl, 5, pos, piece); err != nil {
			t.Fatalf("at %d: %v", pos, err)
		}
	}
	wantReset(t, cl)
	m.wantBooks(t)
}
