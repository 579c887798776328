package announce

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Defaults of a Config. The first announcement is at once. RFC 5227 asks for
// two ARP announcements two seconds apart, RFC 4861 for up to three
// advertisements at least one second apart.
const (
	defaultCount    = 3
	defaultInterval = 2 * time.Second
)

// Config of an Announcer.
type Config struct {
	Addresses []netip.Addr
	// Interfaces to announce them on. Empty: the zone of an address that has
	// one, and otherwise those that it is on link of, see [Interfaces].
	Interfaces []string

	Count    int           // announcements of each address; 3 by default
	Interval time.Duration // between two; 2 s by default

	// Sent, if it is not nil, is told of each announcement.
	Sent func()
	// Sending, if it is not nil, is held while there is a socket, so that many
	// Announcers have one at a time.
	Sending sync.Locker
	// Wait lets time pass, by default the real one.
	Wait func(ctx context.Context, d time.Duration) error
}

// Announcer announces addresses. It has a socket only while it sends.
type Announcer struct {
	cfg Config
	out []outgoing
}

// outgoing is one announcement: the frame is made once.
type outgoing struct {
	index int
	name  string
	frame []byte
}

// New finds the interfaces in the network namespace of the calling thread.
func New(cfg Config) (*Announcer, error) {
	if cfg.Count == 0 {
		cfg.Count = defaultCount
	}
	if cfg.Interval == 0 {
		cfg.Interval = defaultInterval
	}
	if cfg.Sent == nil {
		cfg.Sent = func() {}
	}
	if cfg.Sending == nil {
		cfg.Sending = new(sync.Mutex)
	}
	if cfg.Wait == nil {
		cfg.Wait = wait
	}
	a := &Announcer{cfg: cfg}
	for _, ip := range cfg.Addresses {
		if err := a.add(ip); err != nil {
			return nil, fmt.Errorf("announce %s: %w", ip, err)
		}
	}
	return a, nil
}

func (a *Announcer) add(ip netip.Addr) error {
	names := a.cfg.Interfaces
	if len(names) == 0 && ip.Zone() != "" {
		names = []string{ip.Zone()}
	}
	if len(names) == 0 {
		var err error
		if names, err = Interfaces(ip); err != nil {
			return err
		}
	}
	if len(names) == 0 {
		return errors.New("no interface has a network with this address on its link: name the interface")
	}
	for _, name := range names {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find interface %s: %w", name, err)
		}
		attrs := link.Attrs()
		if len(attrs.HardwareAddr) != 6 || attrs.EncapType != "ether" {
			return fmt.Errorf("interface %s is not Ethernet: there are no neighbours to tell", name)
		}
		a.out = append(a.out, outgoing{attrs.Index, name, Frame(attrs.HardwareAddr, ip, forwards(name))})
	}
	return nil
}

// forwards says whether an interface is a router's, which is what the kernel's
// own advertisements say (ndisc_recv_ns()).
func forwards(name string) bool {
	value, err := os.ReadFile(filepath.Join("/proc/sys/net/ipv6/conf", name, "forwarding"))
	// An error: there is no IPv6.
	return err == nil && strings.TrimSpace(string(value)) != "0"
}

// Run announces all addresses Count times and returns. It needs CAP_NET_RAW.
// When ctx ends, at the beginning of a drain, it returns without another
// announcement: after it has returned none is sent. An announcement that could
// not be sent does not keep back the others, and may have more luck the next
// time; the error is about those of the last time.
func (a *Announcer) Run(ctx context.Context) (err error) {
	for i := range a.cfg.Count {
		if i > 0 && a.cfg.Wait(ctx, a.cfg.Interval) != nil {
			break
		}
		err = a.send(ctx)
	}
	return err
}

// send announces all addresses once, unless ctx has ended.
func (a *Announcer) send(ctx context.Context) error {
	a.cfg.Sending.Lock()
	defer a.cfg.Sending.Unlock()
	if ctx.Err() != nil {
		return nil
	}
	// Protocol 0 receives nothing (packet(7)).
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket(AF_PACKET)", err)
	}
	defer func() { _ = unix.Close(socket) }()
	var errs []error
	for _, o := range a.out {
		if err := unix.Sendto(socket, o.frame, 0, &unix.SockaddrLinklayer{Ifindex: o.index}); err != nil {
			errs = append(errs, fmt.Errorf("send by %s: %w", o.name, os.NewSyscallError("sendto(AF_PACKET)", err)))
			continue
		}
		a.cfg.Sent()
	}
	return errors.Join(errs...)
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Interfaces returns the names of the interfaces that are up and have a route
// to an address without a gateway: whose neighbours look for the address on
// their link.
func Interfaces(ip netip.Addr) ([]string, error) {
	family := netlink.FAMILY_V4
	if ip = ip.Unmap(); ip.Is6() {
		family = netlink.FAMILY_V6
	}
	routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var names []string
	for _, link := range links {
		a := link.Attrs()
		if a.Flags&net.FlagUp == 0 || a.EncapType != "ether" {
			continue
		}
		for i := range routes {
			r := &routes[i]
			if r.LinkIndex == a.Index && r.Gw == nil && r.Dst != nil && r.Type == unix.RTN_UNICAST && narrower(r.Dst) && r.Dst.Contains(ip.AsSlice()) {
				names = append(names, a.Name)
				break
			}
		}
	}
	return names, nil
}

// narrower says whether a route is about a link and not about everywhere, as
// that of a point-to-point interface may be.
func narrower(dst *net.IPNet) bool {
	ones, _ := dst.Mask.Size()
	return ones > 0
}
