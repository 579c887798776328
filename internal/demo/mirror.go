package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/packet"
)

// What leaves the daemon's mirror by the port arrives at the probe.
const (
	mirrorPort  = "demo-mirror"
	mirrorProbe = "demo-probe"
)

// mirrored are the addresses of the client whose traffic is mirrored.
var mirrored = []netip.Addr{netip.MustParseAddr("198.18.17.17"), netip.MustParseAddr("2001:db8:16::17")}

// mirrorTable is the part of the configuration.
func mirrorTable() string {
	return fmt.Sprintf(`
[[mirror]]
name = "span"
interfaces = [%q, %q]
to_interface = %q
filter = "tcp and (host %s or host %s)"
`, lab.ClientLink, lab.ServerLink, mirrorPort, mirrored[0], mirrored[1])
}

// addMirrorPort makes the port, with a probe at the other end.
func addMirrorPort() error {
	a := netlink.NewLinkAttrs()
	a.Name = mirrorPort
	port := &netlink.Veth{LinkAttrs: a, PeerName: mirrorProbe}
	if err := netlink.LinkAdd(port); err != nil {
		return fmt.Errorf("add mirror port: %w", err)
	}
	probe, err := netlink.LinkByName(mirrorProbe)
	if err == nil {
		err = errors.Join(netlink.LinkSetUp(port), netlink.LinkSetUp(probe))
	}
	if err != nil {
		return fmt.Errorf("set mirror port up: %w", errors.Join(err, netlink.LinkDel(port)))
	}
	return nil
}

func removeMirrorPort() error {
	link, err := netlink.LinkByName(mirrorPort)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	return err
}

// tap collects the mirrored client's frames of some interfaces.
type tap struct {
	fds     []int
	running sync.WaitGroup
	stop    chan struct{}

	mu     sync.Mutex
	frames []string
}

func openTap(links ...string) (*tap, error) {
	t := &tap{stop: make(chan struct{})}
	for _, name := range links {
		fd, err := tapSocket(name)
		if err != nil {
			t.close()
			return nil, fmt.Errorf("tap %s: %w", name, err)
		}
		t.fds = append(t.fds, fd)
		t.running.Add(1)
		go t.read(fd)
	}
	return t, nil
}

func tapSocket(name string) (int, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket(AF_PACKET)", err)
	}
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // the same in either byte order
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index, Protocol: all}),
	)
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func (t *tap) read(fd int) {
	defer t.running.Done()
	buf := make([]byte, 1<<17)
	for {
		select {
		case <-t.stop:
			return
		default:
		}
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			continue // none for a moment
		}
		if frame, ok := ofMirrored(buf[:n]); ok {
			t.mu.Lock()
			t.frames = append(t.frames, frame)
			t.mu.Unlock()
		}
	}
}

// ofMirrored is a frame as the wire has it, if it is to be mirrored: a card, or
// whoever sends it on, computes its checksums.
func ofMirrored(b []byte) (string, bool) {
	l, ok := packet.Parse(b)
	src, dst := l.Addresses(b)
	from, _ := netip.AddrFromSlice(src)
	to, _ := netip.AddrFromSlice(dst)
	if !ok || l.Protocol != unix.IPPROTO_TCP || !slices.Contains(mirrored, from) && !slices.Contains(mirrored, to) {
		return "", false
	}
	l.SetChecksums(b)
	return string(b), true
}

// sorted is what there is by now: frames of several interfaces have no order.
func (t *tap) sorted() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(slices.Values(t.frames))
}

func (t *tap) close() {
	close(t.stop)
	t.running.Wait()
	for _, fd := range t.fds {
		_ = unix.Close(fd)
	}
}

// mirror compares what the mirror port got with what was on the wires.
func (d *demo) mirror(ctx context.Context) {
	d.out.step("A mirror port, for an analyser to look at")
	seen, sent, err := d.compareMirror(ctx)
	d.out.check("mirror_frames_equal", err == nil,
		"%d frames of the client on both sides of the proxy, %d at the mirror port%s", seen, sent, because(err))
}

func (d *demo) compareMirror(ctx context.Context) (seen, sent int, err error) {
	wires, err := openTap(lab.ClientLink, lab.ServerLink)
	if err != nil {
		return 0, 0, err
	}
	defer wires.close()
	probe, err := openTap(mirrorProbe)
	if err != nil {
		return 0, 0, err
	}
	defer probe.close()
	for i, f := range families {
		if err := d.visitFrom(ctx, mirrored[i], f.vip); err != nil {
			return 0, 0, err
		}
	}
	err = d.eventually(ctx, func() error {
		want, got := wires.sorted(), probe.sorted()
		seen, sent = len(want), len(got)
		if seen == 0 || !slices.Equal(want, got) {
			return errors.New("they are not the same")
		}
		return nil
	})
	return seen, sent, err
}

// visitFrom makes a request from an address of the client.
func (d *demo) visitFrom(ctx context.Context, source netip.Addr, address string) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.step)
	defer cancel()
	c, err := d.lab.Client.DialFrom(ctx, "tcp", net.JoinHostPort(source.String(), "0"), address)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	d.dials.Add(1)
	_ = c.SetDeadline(time.Now().Add(d.cfg.step))
	if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	answer, err := io.ReadAll(c)
	if err == nil && len(answer) == 0 {
		err = errors.New("no answer")
	}
	return err
}
