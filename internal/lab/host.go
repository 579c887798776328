package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Host is one network namespace of a lab.
type Host struct {
	// Name is client, proxy or server.
	Name string

	ns *os.File
}

// thisHost is the namespace that the calling thread is in.
func thisHost(name string) (*Host, error) {
	// thread-self, because /proc/self means the main thread's namespace.
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	return &Host{Name: name, ns: ns}, nil
}

// newHost makes a namespace which lives as long as the Host is open, or a
// process or socket is in it.
func newHost(name string) (*Host, error) {
	var host *Host
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare(CLONE_NEWNET)", err)
		}
		var err error
		host, err = thisHost(name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make namespace of the %s: %w", name, err)
	}
	return host, nil
}

func (h *Host) close() error { return h.ns.Close() }

// NetNSPath names the namespace for other programs, as in
// nsenter --net=PATH, while this process lives and the lab is open.
func (h *Host) NetNSPath() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.ns.Fd())
}

// onThread runs fn on a locked thread that fn may move into another network
// namespace. The thread is brought back afterwards, or ended.
func onThread(fn func() error) error {
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = onLockedThread(fn)
	}()
	<-done
	return err
}

func onLockedThread(fn func() error) (err error) {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		back := setns(home)
		if back == nil {
			// Otherwise the goroutine ends locked and takes the thread with it.
			runtime.UnlockOSThread()
		}
		err = errors.Join(err, back, home.Close())
	}()
	return fn()
}

func setns(ns *os.File) error {
	return os.NewSyscallError("setns(CLONE_NEWNET)", unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET))
}

// Do runs fn in the host's namespace, on another goroutine. Sockets that fn
// makes belong to the namespace for good, also after fn has returned;
// goroutines that fn starts do not. fn must not end its goroutine, as
// t.Fatal does.
func (h *Host) Do(fn func() error) error {
	return onThread(func() error {
		if err := setns(h.ns); err != nil {
			return fmt.Errorf("enter namespace of the %s: %w", h.Name, err)
		}
		return fn()
	})
}

// Listen listens in the host, on plain TCP and never on MPTCP, which Go would
// choose by default.
func (h *Host) Listen(network, address string) (net.Listener, error) {
	return h.ListenConfig(context.Background(), net.ListenConfig{}, network, address)
}

// ListenConfig is [Host.Listen] with options.
func (h *Host) ListenConfig(ctx context.Context, lc net.ListenConfig, network, address string) (ln net.Listener, err error) {
	lc.SetMultipathTCP(false)
	err = h.Do(func() error {
		ln, err = lc.Listen(ctx, network, address)
		return err
	})
	return ln, err
}

// ListenPacket listens for datagrams in the host.
func (h *Host) ListenPacket(network, address string) (pc net.PacketConn, err error) {
	err = h.Do(func() error {
		var lc net.ListenConfig
		pc, err = lc.ListenPacket(context.Background(), network, address)
		return err
	})
	return pc, err
}

// Dial connects from the host to an IP address and port. Names are not
// resolved in the namespace.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return h.DialConfig(ctx, net.Dialer{}, network, address)
}

// DialFrom is [Host.Dial] with a local address and port; port 0 is any.
func (h *Host) DialFrom(ctx context.Context, network, local, remote string) (net.Conn, error) {
	var d net.Dialer
	var err error
	if strings.HasPrefix(network, "udp") {
		d.LocalAddr, err = net.ResolveUDPAddr(network, local)
	} else {
		d.LocalAddr, err = net.ResolveTCPAddr(network, local)
	}
	if err != nil {
		return nil, fmt.Errorf("dial from the %s: %w", h.Name, err)
	}
	return h.DialConfig(ctx, d, network, remote)
}

// DialConfig is [Host.Dial] with options.
func (h *Host) DialConfig(ctx context.Context, d net.Dialer, network, address string) (c net.Conn, err error) {
	d.SetMultipathTCP(false)
	err = h.Do(func() error {
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Sysctl writes a setting below net, such as "ipv4.ip_forward" or
// "ipv6/conf/eth0/disable_ipv6".
func (h *Host) Sysctl(key, value string) error {
	if !strings.Contains(key, "/") {
		key = strings.ReplaceAll(key, ".", "/")
	}
	// The kernel shows the settings of the thread's namespace here.
	path := filepath.Join("/proc/sys/net", key)
	err := h.Do(func() error { return os.WriteFile(path, []byte(value), 0) })
	if errors.Is(err, unix.EROFS) {
		err = fmt.Errorf("%w (run outside of a container, or in one that is started with --privileged)", err)
	}
	if err != nil {
		return fmt.Errorf("set sysctl of the %s: %w", h.Name, err)
	}
	return nil
}

// Netlink opens a route netlink handle in the host. The caller closes it.
func (h *Host) Netlink() (nl *netlink.Handle, err error) {
	err = h.Do(func() error {
		nl, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return os.NewSyscallError("socket(NETLINK_ROUTE)", err)
	})
	return nl, err
}

// LinkUp sets an interface of the host up.
func (h *Host) LinkUp(name string) error {
	return h.withLink(name, (*netlink.Handle).LinkSetUp)
}

// LinkDown sets an interface of the host down. The kernel drops its routes
// and its IPv6 addresses.
func (h *Host) LinkDown(name string) error {
	return h.withLink(name, (*netlink.Handle).LinkSetDown)
}

func (h *Host) withLink(name string, set func(*netlink.Handle, netlink.Link) error) error {
	nl, err := h.Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	link, err := nl.LinkByName(name)
	if err == nil {
		err = set(nl, link)
	}
	if err != nil {
		return fmt.Errorf("set link %s of the %s: %w", name, h.Name, err)
	}
	return nil
}
