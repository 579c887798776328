package sys

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// udpFamily is what differs between the tests for IPv4 and IPv6.
type udpFamily struct {
	family          int
	loopback        string
	client, foreign string
	server          string
	router          string // the proxy, as the client sees it
	largest         int    // payload
	ipHeader        int
	errOrigin       uint8 // of an ICMP error
	unreach, tooBig [2]uint8
	icmpMax         int
	wildcard        string
}

var udpFamilies = map[string]udpFamily{
	"v4": {
		family: unix.AF_INET, loopback: "127.0.0.1", client: lab.ClientIP4, foreign: lab.ForeignIP4, server: lab.ServerIP4, router: lab.ProxyClientIP4,
		largest: 65507, ipHeader: 20, errOrigin: unix.SO_EE_ORIGIN_ICMP, unreach: [2]uint8{3, 3}, tooBig: [2]uint8{3, 4}, icmpMax: 576, wildcard: "0.0.0.0",
	},
	"v6": {
		family: unix.AF_INET6, loopback: "::1", client: lab.ClientIP6, foreign: lab.ForeignIP6, server: lab.ServerIP6, router: lab.ProxyClientIP6,
		largest: 65527, ipHeader: 40, errOrigin: unix.SO_EE_ORIGIN_ICMP6, unreach: [2]uint8{1, 4}, tooBig: [2]uint8{2, 0}, icmpMax: 1280, wildcard: "::",
	},
}

func eachUDP(t *testing.T, test func(*testing.T, *lab.Lab, udpFamily)) {
	for name, f := range udpFamilies {
		t.Run(name, func(t *testing.T) { test(t, netnstest.New(t), f) })
	}
}

// nowhere is where an unconnected socket is connected to.
var nowhere netip.AddrPort

func at(ip string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), port)
}

func sockAddr(ap netip.AddrPort) *SockAddr {
	var a SockAddr
	a.Set(ap)
	return &a
}

// listenUDP is ListenUDP until the end of the test.
func listenUDP(t testing.TB, addr netip.AddrPort, shared, origDst bool) int {
	t.Helper()
	fd, err := ListenUDP(addr, shared, origDst)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Close(fd) })
	return fd
}

// udpIn opens a plain UDP socket in a host, bound to local; if remote is
// valid, it is connected.
func udpIn(t testing.TB, h *lab.Host, local, remote netip.AddrPort) int {
	t.Helper()
	fd := -1
	err := h.Do(func() error {
		var e Errno
		if fd, e = UDPSocket(Family(local.Addr())); e != 0 {
			return e
		}
		if e := Bind(fd, sockAddr(local)); e != 0 {
			return e
		}
		if remote.IsValid() {
			if e := Connect(fd, sockAddr(remote)); e != 0 {
				return e
			}
		}
		return nil
	})
	if fd >= 0 {
		t.Cleanup(func() { Close(fd) })
	}
	if err != nil {
		t.Fatalf("socket at %v to %v: %v", local, remote, err)
	}
	return fd
}

// pair returns two plain sockets over the loopback interface, connected to
// each other.
func pair(t testing.TB, f udpFamily) (from, to int) {
	t.Helper()
	a, b := at(f.loopback, 40001), at(f.loopback, 40002)
	from, to = boundUDP(t, a), boundUDP(t, b)
	for fd, peer := range map[int]netip.AddrPort{from: b, to: a} {
		if e := Connect(fd, sockAddr(peer)); e != 0 {
			t.Fatal(e)
		}
	}
	return from, to
}

// boundUDP opens a plain UDP socket in this namespace.
func boundUDP(t testing.TB, local netip.AddrPort) int {
	t.Helper()
	fd, e := UDPSocket(Family(local.Addr()))
	if e != 0 {
		t.Fatal(e)
	}
	t.Cleanup(func() { Close(fd) })
	if e := Bind(fd, sockAddr(local)); e != 0 {
		t.Fatalf("bind to %v: %v", local, e)
	}
	return fd
}

// arrival is one datagram that came, or one GRO run.
type arrival struct {
	data    []byte
	from    netip.AddrPort
	control Control
}

// datagrams splits it up.
func (a arrival) datagrams() [][]byte {
	if a.control.Segment == 0 {
		return [][]byte{a.data}
	}
	return slices.Collect(slices.Chunk(a.data, a.control.Segment))
}

// receive waits for n datagrams at fd, a GRO run being as many as it has, and
// returns what came.
func receive(t testing.TB, fd, n int) []arrival {
	t.Helper()
	r := NewReceiver(4)
	var all []arrival
	netnstest.Eventually(t, patience, func() bool {
		for n > 0 {
			got, e := r.Receive(fd, 0)
			if e == unix.EAGAIN {
				return false
			}
			if e != 0 {
				t.Fatal(e)
			}
			for i := range got {
				a := arrival{bytes.Clone(r.Data(i)), r.From(i).AddrPort(), r.Control(i)}
				all = append(all, a)
				n -= len(a.datagrams())
			}
		}
		return true
	}, "the datagrams come")
	if n < 0 {
		t.Fatalf("%d datagrams too many", -n)
	}
	return all
}

// split puts together the datagrams of all arrivals.
func split(all []arrival) [][]byte {
	var d [][]byte
	for _, a := range all {
		d = append(d, a.datagrams()...)
	}
	return d
}

// pattern is n bytes that differ from place to place, and with seed.
func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8)*31 ^ seed
	}
	return b
}

// wantEmpty fails unless nothing waits at fd.
func wantEmpty(t testing.TB, fd int) {
	t.Helper()
	b := make([]byte, 1<<16)
	if n, e := Recv(fd, b); e != unix.EAGAIN {
		t.Errorf("%d bytes, %v: want nothing", n, e)
	}
}

// wantSocketError waits for the error that fd's next call has.
func wantSocketError(t testing.TB, fd int, want Errno) {
	t.Helper()
	var e Errno
	netnstest.Eventually(t, patience, func() bool {
		e = SocketError(fd)
		return e != 0
	}, "the socket has an error")
	if e != want {
		t.Errorf("SO_ERROR is %v, want %v", e, want)
	}
}
