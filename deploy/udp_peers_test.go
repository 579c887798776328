package deploy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// udpServer serves each datagram of some sockets on a goroutine of its own,
// until the end of the test or close.
type udpServer struct {
	conns    []*net.UDPConn
	received atomic.Int64
	wg       sync.WaitGroup
	once     sync.Once
}

// datagram is what a udpServer serves.
type datagram struct {
	conn     *net.UDPConn
	data     []byte
	from, to netip.AddrPort // to is the original destination
}

func startUDPServer(t *testing.T, serve func(datagram), conns ...*net.UDPConn) *udpServer {
	t.Helper()
	s := &udpServer{conns: conns}
	for _, c := range conns {
		s.wg.Go(func() { s.receive(c, serve) })
	}
	t.Cleanup(s.close)
	return s
}

func (s *udpServer) receive(c *net.UDPConn, serve func(datagram)) {
	data, control := make([]byte, 65535), make([]byte, 256)
	for {
		n, nc, _, from, err := c.ReadMsgUDPAddrPort(data, control)
		if err != nil {
			return
		}
		s.received.Add(1)
		d := datagram{conn: c, data: bytes.Clone(data[:n]), from: from, to: originalDestination(c, control[:nc])}
		s.wg.Go(func() { serve(d) })
	}
}

func (s *udpServer) close() {
	s.once.Do(func() {
		for _, c := range s.conns {
			c.Close()
		}
		s.wg.Wait()
	})
}

// originalDestination is where a datagram was sent to: ip(7), IP_RECVORIGDSTADDR.
func originalDestination(c *net.UDPConn, control []byte) netip.AddrPort {
	list, _ := unix.ParseSocketControlMessage(control) // none of a plain socket
	for i := range list {
		switch sa, _ := unix.ParseOrigDstAddr(&list[i]); sa := sa.(type) {
		case *unix.SockaddrInet4:
			return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
		case *unix.SockaddrInet6:
			return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
		}
	}
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func listenUDP(t *testing.T, host *lab.Host, lc net.ListenConfig, addresses ...string) []*net.UDPConn {
	t.Helper()
	var conns []*net.UDPConn
	for _, address := range addresses {
		var pc net.PacketConn
		err := host.Do(func() (err error) {
			pc, err = lc.ListenPacket(t.Context(), udpNetwork(address), address)
			return err
		})
		if err != nil {
			t.Fatalf("listen on %s in the %s: %v", address, host.Name, err)
		}
		t.Cleanup(func() { _ = pc.Close() })
		conns = append(conns, pc.(*net.UDPConn))
	}
	return conns
}

// udpNetwork is the family of an address: "udp" would take [::] for both.
func udpNetwork(address string) string {
	if strings.HasPrefix(address, "[") {
		return "udp6"
	}
	return "udp4"
}

// startUDPBackend tells every client its address in the first line of the
// answer, and sends the rest back.
func startUDPBackend(t *testing.T, host *lab.Host, addresses ...string) *udpServer {
	t.Helper()
	return startUDPServer(t, func(d datagram) {
		answer := fmt.Appendf(nil, "%v\n%s", d.from, d.data)
		// A lost answer is seen at the client's end.
		_, _ = d.conn.WriteToUDPAddrPort(answer, d.from)
	}, listenUDP(t, host, net.ListenConfig{}, addresses...)...)
}

// startUDPProxy is startProxy for datagrams. Each is a flow of its own, with
// the client's address and port at the backend.
func startUDPProxy(t *testing.T, l *lab.Lab, cfg proxyConfig) *udpServer {
	t.Helper()
	conns := listenUDP(t, l.Proxy, net.ListenConfig{Control: transparentUDP}, cfg.listen...)
	return startUDPServer(t, func(d datagram) {
		if err := cfg.relayUDP(l.Proxy, d); err != nil {
			t.Errorf("test proxy: %v", err)
		}
	}, conns...)
}

func (cfg proxyConfig) relayUDP(host *lab.Host, d datagram) error {
	target := d.to.String()
	if cfg.backend != nil {
		target = cfg.backend(net.TCPAddrFromAddrPort(d.to))
	}
	var source *net.UDPAddr
	if !cfg.sourceHost {
		source = net.UDPAddrFromAddrPort(d.from)
	}
	up, err := dialUDP(host, source, target)
	if err != nil {
		return err
	}
	defer up.Close()
	back, err := dialUDP(host, net.UDPAddrFromAddrPort(d.to), d.from.String())
	if err != nil {
		return err
	}
	defer back.Close()
	if _, err := up.Write(d.data); err != nil {
		return err
	}
	answer := make([]byte, 65535)
	n, err := up.Read(answer)
	if err != nil {
		return err
	}
	_, err = back.Write(answer[:n])
	return err
}

// dialUDP makes a transparent, connected socket with an address that may be
// another's; nil is the host's own.
func dialUDP(host *lab.Host, local *net.UDPAddr, remote string) (net.Conn, error) {
	d := net.Dialer{Control: transparentUDP, Timeout: patience}
	if local != nil {
		d.LocalAddr = local
	}
	c, err := host.DialConfig(context.Background(), d, udpNetwork(remote), remote)
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(patience))
}

// transparentUDP is transparent for datagrams: the sockets of flows share the
// addresses of listeners, and listeners ask for the original destination.
func transparentUDP(network, address string, c syscall.RawConn) error {
	level, option, name := unix.SOL_IP, unix.IP_RECVORIGDSTADDR, "IP_RECVORIGDSTADDR"
	family := "tcp4"
	if network == "udp6" {
		level, option, name = unix.SOL_IPV6, unix.IPV6_RECVORIGDSTADDR, "IPV6_RECVORIGDSTADDR"
		family = "tcp6"
	}
	var err error
	ctrl := c.Control(func(fd uintptr) {
		err = errors.Join(
			os.NewSyscallError("setsockopt(SO_REUSEADDR)", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)),
			os.NewSyscallError("setsockopt("+name+")", unix.SetsockoptInt(int(fd), level, option, 1)))
	})
	return errors.Join(ctrl, err, transparent(family, address, c))
}

// exchangeUDP sends a datagram of a size to a target that runs a UDP backend,
// maybe behind a proxy, and returns the source that it told and the true one.
// The socket is connected: it takes no answer from another address.
func exchangeUDP(ctx context.Context, from *lab.Host, target string, size int, wait time.Duration) (told, own netip.AddrPort, err error) {
	c, err := from.Dial(ctx, udpNetwork(target), target)
	if err != nil {
		return told, own, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
		return told, own, err
	}
	question := bytes.Repeat([]byte{'.'}, size)
	if _, err := c.Write(question); err != nil {
		return told, own, err
	}
	answer := make([]byte, 65535)
	n, err := c.Read(answer)
	if err != nil {
		return told, own, err
	}
	line, rest, _ := bytes.Cut(answer[:n], []byte("\n"))
	if !bytes.Equal(rest, question) {
		return told, own, fmt.Errorf("%d bytes came back, want the %d that were sent", len(rest), size)
	}
	told, err = netip.ParseAddrPort(string(line))
	return told, c.LocalAddr().(*net.UDPAddr).AddrPort(), err
}

// reachesByUDP fails the test unless target answers and saw the very address
// and port of the client.
func reachesByUDP(t *testing.T, from *lab.Host, target string, size int) {
	t.Helper()
	told, own, err := exchangeUDP(t.Context(), from, target, size, patience)
	if err != nil {
		t.Fatalf("send from the %s to %s: %v", from.Name, target, err)
	}
	if told != own {
		t.Errorf("%s saw a datagram from %v, want it from %v", target, told, own)
	}
}

// silentByUDP fails the test unless target gives no answer at all, not even a
// refusal.
func silentByUDP(t *testing.T, from *lab.Host, target string) {
	t.Helper()
	_, _, err := exchangeUDP(t.Context(), from, target, 1, impatience)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("send from the %s to %s: got %v, want no answer", from.Name, target, err)
	}
}
