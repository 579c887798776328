package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/sys"
)

// dial connects to the target, from its spoofed address if there is one. The
// connection ends with ctx.
func dial(ctx context.Context, t *Target, udp bool) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if ctl := c.Control(func(fd uintptr) { err = t.prepare(int(fd), udp) }); ctl != nil {
			return ctl
		}
		return err
	}}
	if err := t.sameFamily(); err != nil {
		return nil, err
	}
	var from netip.AddrPort
	if t.Spoof.IsValid() {
		from = netip.AddrPortFrom(t.Spoof, 0)
	}
	if udp {
		c, err := d.DialUDP(ctx, "udp", from, t.Addr)
		if err != nil {
			return nil, withoutAddresses(err)
		}
		return c, nil
	}
	d.SetMultipathTCP(false)
	c, err := d.DialTCP(ctx, "tcp", from, t.Addr)
	if err != nil {
		return nil, withoutAddresses(err)
	}
	// RST instead of FIN, see doc.go.
	if err := c.SetLinger(0); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// withoutAddresses is an error of dialling as people see it beside the name of
// the backend; the source would be :0.
func withoutAddresses(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

func (t *Target) sameFamily() error {
	if t.Spoof.IsValid() && t.Spoof.Is4() != t.Addr.Addr().Is4() {
		return fmt.Errorf("check %v from %v: they are of different families", t.Addr, t.Spoof)
	}
	return nil
}

// prepare sets what has to be set before bind.
func (t *Target) prepare(fd int, udp bool) error {
	if t.Mark != 0 {
		if e := sys.SetInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(t.Mark)); e != 0 {
			return os.NewSyscallError("setsockopt(SO_MARK)", e)
		}
	}
	if !t.Spoof.IsValid() {
		return nil
	}
	if e := sys.SetTransparent(fd, sys.Family(t.Addr.Addr())); e != 0 {
		return os.NewSyscallError("setsockopt(IP_TRANSPARENT)", e)
	}
	if udp {
		return nil
	}
	if e := sys.SetInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); e != 0 {
		return os.NewSyscallError("setsockopt(IP_BIND_ADDRESS_NO_PORT)", e)
	}
	return nil
}
