package proxy

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/netnstest"
	"golang.org/x/sys/unix"
)

// TestTinySegments sends bytes one by one, at random pauses, both ways at once.
func TestTinySegments(t *testing.T) {
	const size = 1500
	m := meet(t)
	m.each(func(t *testing.T, m *meeting, w way) {
		before := m.recorded()
		cl, srv := m.pair(w.address)
		results := make(chan error, 2)
		for seed, c := range []*net.TCPConn{cl, srv} {
			random := rand.New(rand.NewPCG(1, uint64(seed)))
			go func() {
				for pos := range size {
					if _, err := c.Write(noiseAt(seed, pos)[:1]); err != nil {
						results <- err
						return
					}
					if random.IntN(16) == 0 {
						time.Sleep(time.Duration(random.IntN(200)) * time.Microsecond) //nolint:forbidigo // a jerky sender
					}
				}
				results <- c.CloseWrite()
			}()
		}
		wantNoise(t, srv, 0, size)
		wantNoise(t, cl, 1, size)
		for range 2 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		r := m.nextRecord(t, before)
		if r.BytesIn != size || r.BytesOut != size || r.PathIn != "copy" || r.PathOut != "copy" {
			t.Errorf("record has %d bytes in by %s and %d out by %s, want %d by copy",
				r.BytesIn, r.PathIn, r.BytesOut, r.PathOut, size)
		}
	})
}

// wantNoise reads c to its end, which comes after size bytes of stream seed.
func wantNoise(t *testing.T, c net.Conn, seed, size int) {
	t.Helper()
	if n, err := readNoise(c, seed); n != size || err != nil {
		t.Errorf("read %d bytes and %v, want %d and the end of the stream", n, err, size)
	}
}

// TestTinyWindows has both ends with receive buffers and segments as small as
// the kernel allows.
func TestTinyWindows(t *testing.T) {
	const size = 300_000
	m := meet(t)
	m.each(func(t *testing.T, m *meeting, w way) {
		cl, srv := m.pair(w.address)
		for _, c := range []*net.TCPConn{cl, srv} {
			control(t, c, func(fd int) error {
				return errors.Join(
					os.NewSyscallError("setsockopt(SO_RCVBUF)", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)),
					os.NewSyscallError("setsockopt(TCP_WINDOW_CLAMP)", unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_WINDOW_CLAMP, 600)))
			})
		}
		results := make(chan error, 2)
		for seed, c := range []*net.TCPConn{cl, srv} {
			go func() {
				err := sendNoise(c, seed, size, 7777)
				results <- errors.Join(err, c.CloseWrite())
			}()
		}
		got := make(chan int, 1)
		go func() {
			n, _ := readNoise(srv, 0)
			got <- n
		}()
		wantNoise(t, cl, 1, size)
		if n := <-got; n != size {
			t.Errorf("server read %d bytes, want %d", n, size)
		}
		for range 2 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		cl.Close()
		srv.Close()
	})
}

// TestUrgentSmall sends urgent bytes among others. They keep their place.
func TestUrgentSmall(t *testing.T) {
	m := meet(t)
	m.eachEnd(func(t *testing.T, m *meeting, _ way, s side, actor, other *net.TCPConn) {
		before := m.recorded()
		got := make([]byte, 16)
		for range 20 {
			for _, part := range []struct {
				text   string
				urgent bool
			}{{"ab", false}, {"U", true}, {"cd", false}, {"V", true}} {
				sendText(t, actor, part.text, part.urgent)
			}
			if _, err := io.ReadFull(other, got[:6]); err != nil || string(got[:6]) != "abUcdV" {
				t.Fatalf("got %q and %v, want abUcdV", got[:6], err)
			}
			exchange(t, other, actor)
		}
		sendText(t, actor, "end", true)
		actor.Close()
		rest, err := io.ReadAll(other)
		if err != nil || string(rest) != "end" {
			t.Errorf("got %q and %v, want end and the end of the stream", rest, err)
		}
		other.Close()
		wantReason(t, m.nextRecord(t, before), s.close)
	})
}

func sendText(t *testing.T, c *net.TCPConn, text string, urgent bool) {
	t.Helper()
	if err := trySendText(c, text, urgent); err != nil {
		t.Fatal(err)
	}
}

func trySendText(c *net.TCPConn, text string, urgent bool) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	flags := unix.MSG_DONTWAIT
	if urgent {
		flags |= unix.MSG_OOB
	}
	var inner error
	err = raw.Write(func(fd uintptr) bool {
		n, err := unix.SendmsgN(int(fd), []byte(text), nil, nil, flags)
		if err == nil && n != len(text) {
			err = io.ErrShortWrite
		}
		inner = err
		return !errors.Is(err, unix.EAGAIN)
	})
	return errors.Join(err, inner)
}

// TestUrgentInStream sends urgent bytes in the middle of a spliced stream.
func TestUrgentInStream(t *testing.T) {
	const piece, pieces = 1 << 20, 8
	m := meet(t)
	m.eachEnd(func(t *testing.T, m *meeting, _ way, s side, actor, other *net.TCPConn) {
		before := m.recorded()
		sent := make(chan error, 1)
		go func() {
			for i := range pieces {
				if err := sendNoise(actor, i, piece, piece); err != nil {
					sent <- err
					return
				}
				if i%2 == 1 {
					if err := trySendText(actor, "U", true); err != nil {
						sent <- err
						return
					}
				}
			}
			sent <- actor.CloseWrite()
		}()
		for i := range pieces {
			if err := readNoiseN(other, i, 0, piece); err != nil {
				t.Fatal(err)
			}
			if i%2 == 1 {
				got := make([]byte, 1)
				if _, err := io.ReadFull(other, got); err != nil || got[0] != 'U' {
					t.Fatalf("got %q and %v behind piece %d, want U", got, err, i)
				}
			}
		}
		if _, err := other.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read %v, want the end of the stream", err)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		actor.Close()
		other.Close()
		r := m.nextRecord(t, before)
		wantReason(t, r, s.close)
		if path := []string{r.PathIn, r.PathOut}[s.index()]; path != "splice" {
			t.Errorf("record says %s, want splice", path)
		}
	})
}

// index is client or upstream.
func (s side) index() int {
	if s.name == sides[client].name {
		return client
	}
	return upstream
}

// TestUrgentBeforeItsEvent has an urgent byte, more data and FIN, or RST, come
// while the worker is about to splice and has not heard of them.
func TestUrgentBeforeItsEvent(t *testing.T) {
	m := meet(t)
	for _, reset := range []bool{false, true} {
		m.eachEnd(func(t *testing.T, m *meeting, _ way, s side, actor, other *net.TCPConn) {
			before := m.recorded()
			from := s.index()
			const stream = 4 << 20
			go func() { _ = sendNoise(actor, 1, stream, stream) }()
			if err := readNoiseN(other, 1, 0, stream); err != nil {
				t.Fatal(err)
			}
			spliced := false
			thaw := m.freeze(func(w *worker) {
				w.flows.all(func(f *flow) {
					spliced = f.dirs[from].stream && !f.legs[from].urgent
					f.legs[from].readable = true
					w.relay(f)
				})
			})
			sendText(t, actor, "before", false)
			sendText(t, actor, "U", true)
			sendText(t, actor, "after", false)
			if !reset {
				if err := actor.CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			waitAcked(t, actor)
			if reset {
				abort(actor)
			}
			thaw()
			rest, err := io.ReadAll(other)
			if string(rest) != "beforeUafter" || reset != errors.Is(err, unix.ECONNRESET) {
				t.Errorf("got %q and %v, want beforeUafter; reset: %v", rest, err, reset)
			}
			if !spliced {
				t.Error("the direction was not a stream: nothing is tested")
			}
			want := s.close
			if reset {
				want = s.reset
			}
			other.Close()
			actor.Close()
			wantReason(t, m.nextRecord(t, before), want)
		})
	}
	netnstest.Eventually(t, patience, func() bool { return m.proxy.Active() == 0 }, "no flow left")
}
