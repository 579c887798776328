package load

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// peer drives a Client or a Backend over its streams.
type peer struct {
	t     *testing.T
	in    *os.File
	lines *bufio.Scanner
	done  chan error
}

func startPeer(t *testing.T, run func(Streams) error) *peer {
	t.Helper()
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, in: inW, lines: bufio.NewScanner(outR), done: make(chan error, 1)}
	go func() {
		p.done <- run(Streams{In: inR, Out: outW})
		_ = outW.Close()
		_ = inR.Close()
	}()
	if err := outR.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = inW.Close()
		if err := <-p.done; err != nil {
			t.Errorf("run: %v", err)
		}
		_ = outR.Close()
	})
	return p
}

// ask sends a command, if there is one, and decodes the next answer.
func (p *peer) ask(command string, into any) {
	p.t.Helper()
	if command != "" {
		if _, err := io.WriteString(p.in, command+"\n"); err != nil {
			p.t.Fatal(err)
		}
	}
	if !p.lines.Scan() {
		p.t.Fatalf("no answer to %q: %v", command, p.lines.Err())
	}
	if err := json.Unmarshal(p.lines.Bytes(), into); err != nil {
		p.t.Fatal(err)
	}
}

var loopback = netip.MustParseAddr("127.0.0.1")

// freePorts finds ports for the services.
func freePorts(t *testing.T) Services {
	t.Helper()
	var ports [3]uint16
	for i := range ports {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ln.Close() }()
		ports[i] = uint16(ln.Addr().(*net.TCPAddr).Port)
	}
	return Services{Exchange: ports[0], Sink: ports[1], Source: ports[2]}
}

func startBackend(t *testing.T, clients ...netip.Addr) (*peer, Services) {
	t.Helper()
	ports := freePorts(t)
	backend := startPeer(t, func(s Streams) error {
		b, err := NewBackend(BackendConfig{Address: loopback, Ports: ports, Clients: clients}, s)
		if err != nil {
			return err
		}
		return b.Run()
	})
	var r BackendReport
	backend.ask("", &r) // listens
	return backend, ports
}

func startClient(t *testing.T, mode Mode, port uint16, flows int) *peer {
	t.Helper()
	return startPeer(t, func(s Streams) error {
		c, err := NewClient(ClientConfig{
			Mode: mode, Target: netip.AddrPortFrom(loopback, port), Flows: flows, Sources: []netip.Addr{loopback},
		}, s)
		if err != nil {
			return err
		}
		return c.Run()
	})
}

func portOf(m Mode, s Services) uint16 {
	switch m {
	case Up:
		return s.Sink
	case Down:
		return s.Source
	case KeepAlive, Connect, Idle:
	}
	return s.Exchange
}

// every mode against the backend without anything between: no errors, and both
// ends count the same.
func TestModes(t *testing.T) {
	for _, mode := range []Mode{KeepAlive, Connect, Up, Down, Idle} {
		t.Run(string(mode), func(t *testing.T) {
			backend, ports := startBackend(t, loopback)
			client := startClient(t, mode, portOf(mode, ports), 70)
			var first, begin, last ClientReport
			client.ask("", &first)
			client.ask("begin", &begin)
			client.ask("stop", &last)
			if last.Errors != 0 || last.Flows < 70 {
				t.Errorf("client: %+v, want 70 flows and no errors", last)
			}
			if last.TimeNS <= first.TimeNS {
				t.Errorf("time went from %d to %d", first.TimeNS, last.TimeNS)
			}
			var served BackendReport
			backend.ask("stat", &served)
			if served.Errors != 0 || served.Foreign != 0 || served.Accepted < 70 {
				t.Errorf("backend: %+v, want at least 70 connections, all of clients, and no errors", served)
			}
			switch mode {
			case KeepAlive, Connect, Idle:
				if last.Operations < 70 || last.P50NS <= 0 || last.P99NS < last.P50NS {
					t.Errorf("client: %+v, want an exchange of every flow, and its duration", last)
				}
			case Up:
				if served.Bytes == 0 {
					t.Errorf("backend: %+v, want bytes", served)
				}
			case Down:
				if last.Bytes == 0 {
					t.Errorf("client: %+v, want bytes", last)
				}
			}
		})
	}
}

func TestForeignPeer(t *testing.T) {
	backend, ports := startBackend(t, netip.MustParseAddr("127.0.0.77"))
	client := startClient(t, KeepAlive, ports.Exchange, 1)
	var r ClientReport
	client.ask("", &r)
	client.ask("stop", &r)
	var served BackendReport
	backend.ask("stat", &served)
	if served.Foreign != 1 || served.ForeignPeer != "127.0.0.1" {
		t.Errorf("backend: %+v, want one foreign peer, 127.0.0.1", served)
	}
}

// relay is a proxy for one connection at a time that damages what it carries
// from the backend to the client.
func startRelay(t *testing.T, backend uint16, damage func(net.Conn, []byte) error) uint16 {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		_ = ln.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			relayOne(client, netip.AddrPortFrom(loopback, backend).String(), damage)
		}
	}()
	return uint16(ln.Addr().(*net.TCPAddr).Port)
}

func relayOne(client net.Conn, backend string, damage func(net.Conn, []byte) error) {
	defer func() { _ = client.Close() }()
	upstream, err := net.Dial("tcp4", backend)
	if err != nil {
		return
	}
	defer func() { _ = upstream.Close() }()
	go func() {
		_, _ = io.Copy(upstream, client)
		_ = upstream.(*net.TCPConn).CloseWrite()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := upstream.Read(buf)
		if err != nil {
			return
		}
		if damage(client, buf[:n]) != nil {
			return
		}
	}
}

// A proxy that damages the traffic is found out, in every mode.
func TestDamageIsFound(t *testing.T) {
	flip := func(c net.Conn, b []byte) error { b[len(b)-1] ^= 1; _, err := c.Write(b); return err }
	lose := func(c net.Conn, b []byte) error { _, err := c.Write(b[:len(b)-1]); return err }
	double := func(c net.Conn, b []byte) error { _, err := c.Write(slices.Concat(b, b)); return err }
	cut := func(c net.Conn, b []byte) error {
		if _, err := c.Write(b[:len(b)/2]); err != nil {
			return err
		}
		return io.ErrClosedPipe
	}
	for _, tt := range []struct {
		name   string
		mode   Mode
		damage func(net.Conn, []byte) error
		want   string
	}{
		{"flipped bit", KeepAlive, flip, "response differs"},
		{"doubled", KeepAlive, double, "response"},
		{"cut", KeepAlive, cut, "connection ended after 100 of 200"},
		{"cut", Connect, cut, "connection ended after 100 of 200"},
		{"flipped bit", Connect, flip, "response differs"},
		{"doubled", Connect, double, "longer than 200"},
		{"flipped bit", Down, flip, "stream content differs"},
		{"lost", Up, lose, "the backend answered 7 bytes"},
		{"flipped bit", Up, flip, "and the count"},
		{"cut", Down, cut, ""},   // by an end too early, or by the count
		{"lost", Down, lose, ""}, // by the content, or by the count
	} {
		t.Run(string(tt.mode)+" "+tt.name, func(t *testing.T) {
			_, ports := startBackend(t, loopback)
			port := startRelay(t, portOf(tt.mode, ports), tt.damage)
			client := startClient(t, tt.mode, port, 1)
			var r ClientReport
			client.ask("", &r)
			client.ask("stop", &r)
			if r.Errors == 0 || !strings.Contains(r.FirstError, tt.want) {
				t.Errorf("client: %+v, want an error with %q", r, tt.want)
			}
		})
	}
}

// A backend that nobody offers is an error at once, not a hang.
func TestRefused(t *testing.T) {
	ports := freePorts(t)
	client := startClient(t, KeepAlive, ports.Exchange, 3)
	var r ClientReport
	client.ask("", &r)
	if r.Errors == 0 || !strings.Contains(r.FirstError, "connection refused") {
		t.Errorf("client: %+v, want errors that say connection refused", r)
	}
	client.ask("stop", &r)
	if r.Errors != 3 {
		t.Errorf("client: %+v, want 3 errors", r)
	}
}
