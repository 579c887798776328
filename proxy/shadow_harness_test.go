package proxy

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
)

const shadowPort = 99

// shadowed gives s a shadow at ip.
func shadowed(s Service, ip string, adjust ...func(*Shadow)) Service {
	s.Shadow = &Shadow{Address: addrPort(ip, shadowPort), Percent: 100, Linger: time.Minute}
	for _, a := range adjust {
		a(s.Shadow)
	}
	return s
}

func comparing(s *Shadow) { s.Compare = true }

// shadowCounts is what is counted of a shadow.
type shadowCounts struct {
	results               map[string]uint64
	active                int64
	sent, received, wrong uint64
}

func (b *bed) shadowCounts(service string) shadowCounts {
	b.t.Helper()
	s := serviceStatsOf(b.t, b.proxy, service)
	c := shadowCounts{results: map[string]uint64{}, active: s.shadows()}
	for _, sh := range s.shards {
		for r := range sh.shadow.results {
			if n := sh.shadow.results[r].Load(); n > 0 {
				c.results[shadowResultNames[r]] += n
			}
		}
		c.sent += sh.shadow.bytes[0].Load()
		c.received += sh.shadow.bytes[1].Load()
		c.wrong += sh.shadow.mismatch.Load()
	}
	return c
}

// wantShadows waits until n copies have ended and none is left, and returns
// what is counted then.
func (b *bed) wantShadows(t *testing.T, service string, n uint64) shadowCounts {
	t.Helper()
	var c shadowCounts
	ok := func() bool {
		c = b.shadowCounts(service)
		var all uint64
		for _, r := range c.results {
			all += r
		}
		return all == n && c.active == 0
	}
	deadline := time.Now().Add(3 * patience)
	for !ok() && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond) //nolint:forbidigo // polls
	}
	if !ok() {
		t.Fatalf("%d copies were to end, now there is %+v", n, c)
	}
	if left := b.proxy.shadows.Load(); left != 0 {
		t.Errorf("%d copies left", left)
	}
	return c
}

// heard is what a shadow got on one connection.
type heard struct {
	n   int
	err error
}

// noiseShadow is a shadow that wants the stream called seed on each connection,
// and answers with something.
func (b *bed) noiseShadow(seed int) <-chan heard {
	got := make(chan heard, 1024)
	b.server(shadowPort, func(c *net.TCPConn) {
		_, _ = c.Write([]byte("nobody wants to know"))
		n, err := readNoise(c, seed)
		got <- heard{n, err}
	})
	return got
}

// crowd has so many clients at a time echo size bytes by the VIPs of both
// families and check them, and returns what went wrong.
func (b *bed) crowd(port, clients, size int) error {
	b.t.Helper()
	errs := make(chan error, clients)
	var all sync.WaitGroup
	for i := range clients {
		c := b.dial(addrPort([]string{lab.VIP4, lab.VIP6}[i%2], port))
		all.Go(func() { errs <- echoed(c, i, size) })
	}
	all.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// echoed sends a stream, wants it back, and ends it.
func echoed(c *net.TCPConn, seed, size int) error {
	defer c.Close()
	sent := make(chan error, 1)
	go func() {
		err := sendNoise(c, seed, size, 8<<10)
		if err == nil {
			err = c.CloseWrite()
		}
		sent <- err
	}()
	n, err := readNoise(c, seed)
	if e := <-sent; e != nil {
		return e
	}
	if err == nil && n != size {
		err = fmt.Errorf("%d of %d bytes came back", n, size)
	}
	return err
}

// swallow reads c to its end.
func swallow(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }
