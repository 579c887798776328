package demo

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"

	"github.com/tproxyd/tproxyd/internal/lab"
)

const (
	shadowedPort = "8083" // of the virtual address
	receiverPort = "8091" // of its backend, and of the shadow
	// shadowBytes fit in what a copy may lag behind, so that a busy machine does
	// not make the daemon give it up.
	shadowBytes = 512 << 10
)

// shadowService is the configuration of the service that is copied.
func shadowService() string {
	return fmt.Sprintf(`
[[service]]
name = "shadowed"
listen = ["%s:%s"]
source = "client"
%s
  [service.shadow]
  address = %q
  compare = true
`, lab.VIP4, shadowedPort, backends(receiverPort, lab.ServerIP4), net.JoinHostPort(lab.Server2IP4, receiverPort))
}

// serveReceiver tells the checksum of what the client sent, as text.
func serveReceiver(c *net.TCPConn) error {
	h := newHash()
	n, err := io.Copy(h, struct{ io.Reader }{c})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c, "%d %s", n, hex.EncodeToString(h.Sum(nil)))
	return err
}

// shadow sends something to a service whose traffic is copied. The shadow
// answers with the checksum of what it got, and the daemon compares that with
// the backend's answer.
func (d *demo) shadow(ctx context.Context) error {
	c, err := d.dial(ctx, net.JoinHostPort(lab.VIP4, shadowedPort))
	if err != nil {
		return err
	}
	defer c.Close()
	s := newSource(shadowBytes)
	if _, err := io.Copy(c, struct{ io.Reader }{s}); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if want := fmt.Sprintf("%d %s", s.sent, s.sum()); err != nil || string(answer) != want {
		return fmt.Errorf("the backend got %s, want %s%s", answer, want, because(err))
	}
	if err := d.waitMetric(ctx, 1, "tproxyd_shadow_flows_total", "service", "shadowed", "result", "ok"); err != nil {
		return err
	}
	m, err := scrape(ctx)
	if err != nil {
		return err
	}
	sent, received := m.sum("tproxyd_shadow_bytes_total", "direction", "sent"), m.sum("tproxyd_shadow_bytes_total", "direction", "received")
	wrong := m.sum("tproxyd_shadow_mismatch_total")
	d.out.say("the shadow got %.0f bytes, its answer of %.0f bytes was thrown away; answers that differ: %.0f", sent, received, wrong)
	if sent != float64(s.sent) || received != float64(len(answer)) || wrong != 0 {
		return fmt.Errorf("the shadow got %.0f bytes and answered %.0f, want %d and %d; %.0f answers differ", sent, received, s.sent, len(answer), wrong)
	}
	return nil
}
