package sockowner

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
)

// Owner is who has a socket on an address.
type Owner struct {
	Network string         // tcp or udp
	Local   netip.AddrPort // of the socket
	UID     uint32         // of the socket: who made it
	// Inode is the socket's, of which ss -e and lsof tell too. It is 0 for what
	// is left of a connection that no process has open any more.
	Inode     uint64
	Processes []Process // that have it open, as far as they can be seen
}

// Find returns the owners of the sockets that keep others from the address
// addr: those with the same port that are bound to the same address or, on
// either side, to all of them. A socket on all IPv6 addresses counts for IPv4
// too, since it mostly is; those that only have IPv6 cannot be told from it.
// The likeliest is the first. A process has one entry for each address, however
// many sockets it has there.
//
// Network is tcp or udp.
func Find(network string, addr netip.AddrPort) ([]Owner, error) {
	if network != "tcp" && network != "udp" {
		return nil, fmt.Errorf("find owner of %v: unknown network %q", addr, network)
	}
	var entries []entry
	for _, family := range []string{"", "6"} {
		// Not /proc/net, which is of the main thread's namespace.
		some, err := readTable("/proc/thread-self/net/"+network+family, func(e entry) bool { return likeness(e.local, addr) > 0 })
		if err != nil {
			return nil, fmt.Errorf("find owner of %v: %w", addr, err)
		}
		entries = append(entries, some...)
	}
	inodes := map[uint64]bool{}
	for _, e := range entries {
		if e.inode != 0 {
			inodes[e.inode] = true
		}
	}
	// Who listens is in the way of all, a connection seldom.
	slices.SortStableFunc(entries, func(a, b entry) int {
		return cmp.Or(compareTrue(a.state == listening, b.state == listening), cmp.Compare(likeness(b.local, addr), likeness(a.local, addr)))
	})
	open := processes(inodes)
	var owners []Owner
	for _, e := range entries {
		o := Owner{Network: network, Local: e.local, UID: e.uid, Inode: e.inode, Processes: open[e.inode]}
		if !slices.ContainsFunc(owners, o.same) {
			owners = append(owners, o)
		}
	}
	return owners, nil
}

// compareTrue orders true before false.
func compareTrue(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// likeness is how likely a socket on local is in the way of one on addr; 0 is
// not at all.
func likeness(local, addr netip.AddrPort) int {
	have, want := local.Addr().Unmap(), addr.Addr().Unmap().WithZone("")
	switch {
	case local.Port() != addr.Port():
		return 0
	case have == want:
		return 3
	case have.Is4() == want.Is4() && (have.IsUnspecified() || want.IsUnspecified()):
		return 2
	case want.Is4() && have == netip.IPv6Unspecified():
		return 1 // unless it is IPV6_V6ONLY
	}
	return 0
}

// same reports whether a message would say the same of b.
func (o Owner) same(b Owner) bool {
	if o.Local != b.Local || len(o.Processes) == 0 && o.UID != b.UID {
		return false
	}
	return slices.Equal(o.Processes, b.Processes)
}

// Own reports whether this process has the socket.
func (o Owner) Own() bool {
	return slices.ContainsFunc(o.Processes, func(p Process) bool { return p.PID == os.Getpid() })
}

// String tells who has which address: "0.0.0.0:53 (udp) is held by unbound (pid
// 123)".
func (o Owner) String() string {
	return fmt.Sprintf("%v (%s) is held by %s", o.Local, o.Network, o.who())
}

func (o Owner) who() string {
	if o.Inode == 0 {
		return "a connection that is ending"
	}
	if len(o.Processes) == 0 {
		return fmt.Sprintf("a process of %s, socket inode %d", userName(o.UID), o.Inode)
	}
	// A server and its workers have one name. The first one is the eldest.
	first := o.Processes[0]
	text := first.Name + " (pid " + strconv.Itoa(first.PID)
	if first.Name == "" {
		text = "a process that has just ended (pid " + strconv.Itoa(first.PID)
	}
	if more := len(o.Processes) - 1; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text + ")"
}

// userName names a user as far as it is known: those of containers and of
// DynamicUser mostly are not.
func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	u, err := user.LookupId(id)
	if err != nil || strings.ContainsFunc(u.Username, func(r rune) bool { return r < ' ' }) {
		return "uid " + id
	}
	return "user " + u.Username + " (uid " + id + ")"
}
