package proxy

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// testCut makes a flow that has said something and then waits for both ends to
// be reset. Neither of them closes anything.
func testCut(t *testing.T, ip string, s Service, want Reason, during func(b *bed, c, up *net.TCPConn)) {
	t.Helper()
	b := newBed(t, s)
	served := make(chan *net.TCPConn, 1)
	left := make(chan struct{})
	b.server(80, func(c *net.TCPConn) {
		defer close(left)
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			t.Error(err)
		}
		served <- c
		wantRST(t, c)
	})
	c := b.dial(addrPort(ip, 80))
	if _, err := io.WriteString(c, "ping"); err != nil {
		t.Fatal(err)
	}
	during(b, c, <-served)
	wantRST(t, c)
	<-left
	b.ends("web", map[Reason]uint64{want: 1})
	if r := b.record(); r.Reason != want.String() || r.Term != want.Term() || r.BytesIn != 4 {
		t.Errorf("record %+v", r)
	}
}

func TestIdleTimeout(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		s := vip("web", 80)
		s.IdleTimeout = 50 * time.Millisecond
		testCut(t, ip, s, IdleTimeout, func(*bed, *net.TCPConn, *net.TCPConn) {})
	})
}

func TestMaxLifetime(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		s := vip("web", 80)
		s.MaxLifetime = 100 * time.Millisecond
		testCut(t, ip, s, LifetimeEnd, func(*bed, *net.TCPConn, *net.TCPConn) {})
	})
}

// TestHalfCloseTimeout has the client end its stream and the server stay.
func TestHalfCloseTimeout(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		s := vip("web", 80)
		s.HalfCloseTimeout = 50 * time.Millisecond
		b := newBed(t, s)
		fin, left := make(chan error, 1), make(chan error, 1)
		b.server(80, func(c *net.TCPConn) {
			_, err := io.ReadAll(c)
			fin <- err
			// There is nothing more to be read: only a write tells.
			for err == nil {
				_, err = c.Write(nil)
				if err == nil {
					err = socketError(c)
				}
			}
			left <- err
		})
		c := b.dial(addrPort(ip, 80))
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if err := <-fin; err != nil {
			t.Errorf("server: %v, want the end of the stream", err)
		}
		wantRST(t, c)
		t.Logf("server: %v", <-left)
		b.ends("web", map[Reason]uint64{HalfCloseTimeout: 1})
	})
}

// TestIdleIsOfBoth keeps one direction busy: the other may be silent.
func TestIdleIsOfBoth(t *testing.T) {
	s := vip("web", 80)
	s.IdleTimeout = 300 * time.Millisecond
	b := newBed(t, s)
	const words = 40
	b.server(80, func(c *net.TCPConn) {
		for range words { // in all, more than three times the timeout
			if _, err := io.WriteString(c, "word"); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(s.IdleTimeout / 12) //nolint:forbidigo // paces the sender
		}
	})
	c := b.dial(addrPort(lab.VIP4, 80))
	if all, err := io.ReadAll(c); err != nil || len(all) != words*4 {
		t.Errorf("read %d bytes, %v", len(all), err)
	}
	c.Close()
	b.ends("web", map[Reason]uint64{UpstreamClose: 1})
}

// TestStuckAfterReset has an upstream reset behind bytes that the client does
// not read. They lie in the client leg's send queue, which gets its time.
func TestStuckAfterReset(t *testing.T) {
	families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
		s := vip("web", 80)
		s.HalfCloseTimeout = 100 * time.Millisecond
		b := newBed(t, s)
		const size = 120 << 10 // more than a window, less than that and a send queue
		b.server(80, func(c *net.TCPConn) {
			if _, err := c.Write(make([]byte, size)); err != nil {
				t.Error(err)
			}
			for b.proxy.Services()[0].BytesOut < size && t.Context().Err() == nil {
				time.Sleep(time.Millisecond) //nolint:forbidigo // polls
			}
			_ = c.SetLinger(0)
		})
		c := b.dial(addrPort(ip, 80))
		b.ends("web", map[Reason]uint64{UpstreamReset: 1})
		if r := b.record(); r.BytesOut != size || r.Duration < s.HalfCloseTimeout {
			t.Errorf("record %+v, want %d bytes out and a longer life than %v", r, size, s.HalfCloseTimeout)
		}
		if n, err := io.Copy(io.Discard, c); err == nil {
			t.Errorf("client: end of stream after %d bytes, want a reset", n)
		}
	})
}

// TestConnectOutlivesDrain has a drain end before the time to connect does.
func TestConnectOutlivesDrain(t *testing.T) {
	for _, tt := range []struct {
		name  string
		drain func(b *bed)
	}{
		{"shutdown", func(b *bed) { b.proxy.Drain(context.Background()) }},
		{"removed", func(b *bed) {
			if err := b.proxy.Apply(Config{DrainTimeout: 50 * time.Millisecond, Records: true}); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			families(t, lab.VIP4, lab.VIP6, func(t *testing.T, ip string) {
				s := vip("web", 80)
				// The first is refused while the drain is on: the next try counts
				// as well.
				s.Backends, s.ConnectTimeout, s.Retries = pool(ip, 90, 91), time.Minute, 1
				b := newBedConfig(t, Config{Services: []Service{s}, DrainTimeout: 50 * time.Millisecond, Records: true})
				b.swallow("90-91")
				c := b.dial(addrPort(ip, 80))
				eventually(t, func() bool { return b.backendActive("web", "b90")+b.backendActive("web", "b91") == 1 }, "the upstream connects")
				tt.drain(b)
				wantRST(t, c)
				b.ends("web", map[Reason]uint64{Drained: 1})
			})
		})
	}
}

// TestQueueOutlivesDrain accepts what was in the queue when the drain began. Its
// upstream never answers, which the drain does not wait for.
func TestQueueOutlivesDrain(t *testing.T) {
	s := vip("web", 80)
	s.Backends, s.ConnectTimeout, s.MaxConnections = pool(lab.VIP4, 90), time.Minute, 1
	b := newBedConfig(t, Config{Services: []Service{s}, DrainTimeout: 50 * time.Millisecond, Records: true})
	b.swallow("90")
	first := b.dial(addrPort(lab.VIP4, 80))
	eventually(t, func() bool { return b.proxy.Active() == 1 }, "the first is accepted")
	second := b.dial(addrPort(lab.VIP4, 80))
	b.proxy.Drain(context.Background())
	wantRST(t, first)
	wantRST(t, second)
	b.ends("web", map[Reason]uint64{Drained: 2})
}
