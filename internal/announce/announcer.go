package announce

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
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
	Addresses  []netip.Addr
	Interfaces []string // empty: those that an address is on link of, see Interfaces

	Count    int           // announcements of each address; 3 by default
	Interval time.Duration // between two; 2 s by default
	Router   bool          // this host is a router for IPv6; see Frame

	// Wait lets time pass, by default the real one.
	Wait func(ctx context.Context, d time.Duration) error
}

// Announcer announces addresses. It has a socket, and is to be closed.
type Announcer struct {
	cfg    Config
	socket int
	out    []outgoing
}

// outgoing is one announcement: the frame is made once.
type outgoing struct {
	index int
	name  string
	frame []byte
}

// New finds the interfaces in the network namespace of the calling thread. It
// needs CAP_NET_RAW.
func New(cfg Config) (*Announcer, error) {
	if cfg.Count == 0 {
		cfg.Count = defaultCount
	}
	if cfg.Interval == 0 {
		cfg.Interval = defaultInterval
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
	var err error
	// Protocol 0 receives nothing (packet(7)).
	a.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("announce addresses: %w", os.NewSyscallError("socket(AF_PACKET)", err))
	}
	return a, nil
}

func (a *Announcer) add(ip netip.Addr) error {
	names := a.cfg.Interfaces
	if len(names) == 0 {
		var err error
		if names, err = Interfaces(ip); err != nil {
			return err
		}
	}
	if len(names) == 0 {
		return errors.New("no interface has a network with this address on its link: name the interfaces")
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
		a.out = append(a.out, outgoing{attrs.Index, name, Frame(attrs.HardwareAddr, ip, a.cfg.Router)})
	}
	return nil
}

// Run announces all addresses Count times and returns. When ctx ends, at the
// beginning of a drain, it returns without another announcement: after it has
// returned none is sent. An announcement that could not be sent does not keep
// back the others; the errors come at the end.
func (a *Announcer) Run(ctx context.Context) error {
	var errs []error
	for i := range a.cfg.Count {
		if i > 0 && a.cfg.Wait(ctx, a.cfg.Interval) != nil || ctx.Err() != nil {
			break
		}
		for _, o := range a.out {
			if err := unix.Sendto(a.socket, o.frame, 0, &unix.SockaddrLinklayer{Ifindex: o.index}); err != nil {
				errs = append(errs, fmt.Errorf("announce on %s: %w", o.name, os.NewSyscallError("sendto(AF_PACKET)", err)))
			}
		}
	}
	return errors.Join(errs...)
}

// Close gives the socket back.
func (a *Announcer) Close() error { return os.NewSyscallError("close", unix.Close(a.socket)) }

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
