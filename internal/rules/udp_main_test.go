package rules_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/rules"
)

// udp is the family's network for datagrams.
func (f family) udp() string { return "udp" + strings.TrimPrefix(f.network, "tcp") }

// dns is web for datagrams.
func dns(in rules.Intercept) rules.Plan {
	in.Protocol = rules.UDP
	return web(in)
}

// setUDP makes a socket of the proxy transparent, willing to share its address
// and to tell the original destination and the size of fragments, before its
// bind.
func setUDP(network, address string, c syscall.RawConn) error {
	level, destination, fragment := unix.SOL_IP, unix.IP_RECVORIGDSTADDR, unix.IP_RECVFRAGSIZE
	if strings.HasSuffix(network, "6") {
		level, destination, fragment = unix.SOL_IPV6, unix.IPV6_RECVORIGDSTADDR, unix.IPV6_RECVFRAGSIZE
	}
	var err error
	ctrl := c.Control(func(fd uintptr) {
		err = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptInt(int(fd), level, destination, 1),
			unix.SetsockoptInt(int(fd), level, fragment, 1))
	})
	return errors.Join(ctrl, err, setTransparent(network, address, c))
}

func listenUDP(t *testing.T, h *lab.Host, network, address string, transparent bool) *net.UDPConn {
	t.Helper()
	var lc net.ListenConfig
	if transparent {
		lc.Control = setUDP
	}
	var pc net.PacketConn
	err := h.Do(func() (err error) {
		pc, err = lc.ListenPacket(t.Context(), network, address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	return pc.(*net.UDPConn)
}

// spoof makes a connected socket of the proxy with an address that may be
// another's.
func spoof(t *testing.T, h *lab.Host, network, local, remote string) *net.UDPConn {
	t.Helper()
	c, err := dialFrom(h, network, local, remote)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func dialFrom(h *lab.Host, network, local, remote string) (*net.UDPConn, error) {
	addr, err := net.ResolveUDPAddr(network, local)
	if err != nil {
		return nil, err
	}
	c, err := h.DialConfig(context.Background(), net.Dialer{LocalAddr: addr, Control: setUDP}, network, remote)
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

// serveUDP answers every datagram with name, both its addresses as the
// listening side sees them, and its length. From any address it answers as the
// one that was spoken to.
func serveUDP(t *testing.T, h *lab.Host, name, network, address string, transparent bool) {
	t.Helper()
	c := listenUDP(t, h, network, address, transparent)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			m, err := receive(c)
			if err != nil {
				return
			}
			if err := m.reply(h, c, name, network); err != nil {
				t.Errorf("%s: reply to %v as %v: %v", name, m.from, m.to, err)
			}
		}
	}()
	t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
}

// message is a datagram and what the socket has told of it.
type message struct {
	text     string
	from, to netip.AddrPort
	fragment uint32 // the size of the largest; 0 if it came whole
}

func receive(c *net.UDPConn) (m message, err error) {
	data, control := make([]byte, 65535), make([]byte, 256)
	n, nc, _, from, err := c.ReadMsgUDPAddrPort(data, control)
	if err != nil {
		return m, err
	}
	m.text, m.from = string(data[:n]), from
	m.to = c.LocalAddr().(*net.UDPAddr).AddrPort()
	list, err := unix.ParseSocketControlMessage(control[:nc])
	for i := range list {
		if to, ok := originalDestination(&list[i]); ok {
			m.to = to
		}
		switch h := list[i].Header; {
		case h.Level == unix.SOL_IP && h.Type == unix.IP_RECVFRAGSIZE,
			h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_RECVFRAGSIZE:
			m.fragment = binary.NativeEndian.Uint32(list[i].Data)
		}
	}
	return m, err
}

func originalDestination(m *unix.SocketControlMessage) (to netip.AddrPort, ok bool) {
	sa, err := unix.ParseOrigDstAddr(m)
	if err != nil {
		return to, false // a control message of another kind
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), true
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)), true
	}
	return to, false
}

func (m message) reply(h *lab.Host, c *net.UDPConn, name, network string) error {
	text := fmt.Appendf(nil, "%s %v %v %d", name, m.from, m.to, len(m.text))
	if !c.LocalAddr().(*net.UDPAddr).IP.IsUnspecified() {
		_, err := c.WriteToUDPAddrPort(text, m.from)
		return err
	}
	up, err := dialFrom(h, network, m.to.String(), m.from.String())
	if err != nil {
		return err
	}
	defer up.Close()
	_, err = up.Write(text)
	return err
}

// askUDP sends a datagram of a size and waits for the answer.
func askUDP(c net.Conn, size int, patience time.Duration) (answer string, err error) {
	if _, err := c.Write(make([]byte, size)); err != nil {
		return "", err
	}
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	b := make([]byte, 65535)
	n, err := c.Read(b)
	return string(b[:n]), err
}

// wantReply expects the answer of name, which has to see the true address of
// the client. The client's socket is connected: it takes nothing from another
// address than it asked.
func wantReply(t *testing.T, from *lab.Host, network, address, name string) {
	t.Helper()
	c, err := from.Dial(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wantReplyOn(t, c, name, 100)
}

func wantReplyOn(t *testing.T, c net.Conn, name string, size int) {
	t.Helper()
	got, err := askUDP(c, size, limit)
	if want := fmt.Sprintf("%s %v %v %d", name, c.LocalAddr(), c.RemoteAddr(), size); got != want || err != nil {
		t.Errorf("%v asked %v with %d bytes: answer %q, %v, want %q", c.LocalAddr(), c.RemoteAddr(), size, got, err, want)
	}
}

func wantNoReply(t *testing.T, from *lab.Host, network, address string) {
	t.Helper()
	c, err := from.Dial(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := askUDP(c, 100, silence)
	if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
		t.Errorf("%s asked by the %s: answer %q, %v, want silence", address, from.Name, got, err)
	}
}
