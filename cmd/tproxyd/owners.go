package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/tproxyd/tproxyd/internal/sockowner"
	"github.com/tproxyd/tproxyd/internal/sys"
	"github.com/tproxyd/tproxyd/proxy"
	"golang.org/x/sys/unix"
)

// maxOwners is how many owners of addresses a line of the log has room for.
const maxOwners = 3

// claim is an address that is to be listened on.
type claim struct {
	protocol proxy.Protocol
	addr     netip.AddrPort
}

// withOwners adds to an error about an address in use who has it. The claims
// of services that are not among those of running are tried once more, each by
// itself, so that all that are taken show at once; for an admin address the
// error has the address.
func withOwners(err error, services []proxy.Service, running []proxy.ServiceStatus) error {
	if !errors.Is(err, unix.EADDRINUSE) {
		return err
	}
	var taken []claim
	if a, ok := refusedAddress(err); ok {
		taken = []claim{{proxy.TCP, a}}
	} else {
		taken = takenOf(services, running)
	}
	notes := ownersOf(taken)
	if len(notes) == 0 {
		return err // free again, or its owner is not to be found
	}
	if more := len(notes) - maxOwners; more > 0 {
		notes = append(notes[:maxOwners], fmt.Sprintf("and %d more", more))
	}
	return fmt.Errorf("%w: %s", err, strings.Join(notes, ", "))
}

// refusedAddress is the address that package net could not listen on.
func refusedAddress(err error) (netip.AddrPort, bool) {
	var op *net.OpError
	if !errors.As(err, &op) {
		return netip.AddrPort{}, false
	}
	a, ok := op.Addr.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	return a.AddrPort(), true
}

// takenOf returns the claims of services that others have, leaving out those
// of running: there we are ourselves.
func takenOf(services []proxy.Service, running []proxy.ServiceStatus) []claim {
	ours := map[claim]bool{}
	for _, s := range running {
		for _, a := range s.Listen {
			ours[claim{s.Protocol, a}] = true
		}
	}
	var taken []claim
	for _, s := range services {
		for _, a := range s.Listen {
			if c := (claim{s.Protocol, a}); !ours[c] && c.taken() {
				taken = append(taken, c)
			}
		}
	}
	return taken
}

// taken asks the kernel in the way the data plane does: by a socket that shares
// with nobody.
func (c claim) taken() bool {
	var fd int
	var err error
	if c.protocol == proxy.UDP {
		fd, err = sys.ListenUDP(c.addr, false, false)
	} else {
		fd, err = sys.ListenTCP(c.addr, 1, false)
	}
	if err == nil {
		sys.Close(fd)
	}
	return errors.Is(err, unix.EADDRINUSE)
}

// ownersOf tells who has the addresses, one note for each. Sockets of this
// process are worth a note only if nobody else is in the way: a listener that
// an address overlaps is shared with.
func ownersOf(taken []claim) []string {
	var others, own []string
	for _, c := range taken {
		owners, err := sockowner.Find(c.protocol.String(), c.addr)
		if err != nil {
			others = append(others, err.Error())
		}
		for _, o := range owners {
			switch note := o.String(); {
			case o.Own():
				own = append(own, note+", this process itself")
			case !slices.Contains(others, note):
				others = append(others, note)
			}
		}
	}
	if len(others) > 0 {
		return others
	}
	return own
}
