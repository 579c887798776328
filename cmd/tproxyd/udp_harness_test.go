package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// udpService returns a UDP service on the virtual addresses with a backend of
// each family, further settings first.
func udpService(name string, port int, settings ...string) string {
	return fmt.Sprintf(`
[[service]]
name = %q
protocol = "udp"
listen = ["%s:%d", "[%s]:%d"]
%s
  [[service.backend]]
  address = "%s:%d"
  name = "%s4"
  [[service.backend]]
  address = "[%s]:%d"
  name = "%s6"
`, name, lab.VIP4, port, lab.VIP6, port, strings.Join(settings, "\n"), lab.ServerIP4, port, name, lab.ServerIP6, port, name)
}

// echoDatagrams has an address of the server send each datagram back, behind
// the address of its sender.
func (b *bed) echoDatagrams(address string) {
	b.t.Helper()
	pc, err := b.Server.ListenPacket("udp", address)
	if err != nil {
		b.t.Fatal(err)
	}
	conn := pc.(*net.UDPConn)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for buf := make([]byte, 1<<16); ; {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil { // others are ICMP errors of earlier replies
				_, _ = conn.WriteToUDPAddrPort(fmt.Appendf(nil, "%v %s", from, buf[:n]), from)
			}
		}
	}()
	b.t.Cleanup(func() {
		conn.Close()
		<-ended
	})
}

// conversation is a UDP socket of the client.
type conversation struct {
	*net.UDPConn
	t *testing.T
}

// converse connects a UDP socket of the client to a target.
func (b *bed) converse(target string) *conversation {
	b.t.Helper()
	c, err := b.Client.Dial(b.t.Context(), "udp", target)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	return &conversation{c.(*net.UDPConn), b.t}
}

// ask sends something, and wants it back as one datagram from a backend that
// has seen the client's own address and port. Nothing is lost on these links.
func (c *conversation) ask(text string) {
	c.t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		c.t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 1<<16)
	n, err := c.Read(buf)
	if err != nil {
		c.t.Fatalf("%s: %v", c.RemoteAddr(), err)
	}
	if got, want := string(buf[:n]), c.LocalAddr().String()+" "+text; got != want {
		c.t.Errorf("%s: got back %q, want %q", c.RemoteAddr(), got, want)
	}
}

// record is the JSON of an access record.
type record map[string]any

// udpRecords returns the records of UDP flows, once there are n.
func (d *process) udpRecords(n int) []record {
	d.t.Helper()
	var all []record
	netnstest.Eventually(d.t, patience, func() bool {
		all = nil
		for _, line := range d.stdout.lines() {
			var r record
			if err := json.Unmarshal([]byte(line), &r); err == nil && r["protocol"] == "udp" {
				all = append(all, r)
			}
		}
		return len(all) >= n
	}, fmt.Sprintf("the access log has records of %d UDP flows", n))
	if len(all) != n {
		d.t.Fatalf("%d records of UDP flows, want %d:\n%s", len(all), n, &d.stdout)
	}
	return all
}

// want compares fields of a record.
func (r record) want(t *testing.T, fields record) {
	t.Helper()
	for name, want := range fields {
		if r[name] != want {
			t.Errorf("%s is %v, want %v: %v", name, r[name], want, r)
		}
	}
}
