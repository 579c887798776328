package mirror_test

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/zcsend/mirror"
)

// BenchmarkPort streams 64 MiB over TCP past a mirror to a port, at whose end
// everything is dropped. "none" is without a mirror. Gbit/s/core is by the CPU time
// that the mirror took, what the other end of the port did included.
func BenchmarkPort(b *testing.B) {
	b.Run("none", func(b *testing.B) { bulk(b, netnstest.New(b)) })
	b.Run("user", func(b *testing.B) {
		l := netnstest.New(b)
		addPort(b, 1500)
		m := startMirror(b, mirror.Config{Interface: portLink}, traffic, lab.ClientLink)
		bulk(b, l)
		s := m.end()
		b.ReportMetric(float64(s.Bytes)*8/float64(m.cpu.Load()), "Gbit/s/core")
		b.ReportMetric(float64(s.Bytes)/float64(b.N)/(64<<20), "mirrored/op")
		b.ReportMetric(float64(s.Drops())/float64(b.N), "drops/op")
	})
	b.Run("kernel", func(b *testing.B) {
		l := netnstest.New(b)
		addPort(b, 1500)
		k := install(b, traffic)
		bulk(b, l)
		s := k.Stats()
		b.ReportMetric(float64(s.Bytes)/float64(b.N)/(64<<20), "mirrored/op")
		b.ReportMetric(float64(s.Drops())/float64(b.N), "drops/op")
	})
}

// bulk sends 64 MiB for each iteration.
func bulk(b *testing.B, l *lab.Lab) {
	b.Helper()
	ln, err := l.Proxy.Listen("tcp", net.JoinHostPort(lab.ProxyClientIP4, "5001"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(struct{ io.Writer }{io.Discard}, c)
		_ = c.Close()
	})
	c, err := l.Client.Dial(b.Context(), "tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	block := make([]byte, 1<<20)
	b.SetBytes(64 << 20)
	b.ResetTimer()
	for range b.N {
		for range 64 {
			if _, err := c.Write(block); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		b.Fatal(err)
	}
	_, _ = c.Read(block) // the end, when all has been read
	b.StopTimer()
	_ = c.Close()
}
