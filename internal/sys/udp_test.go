package sys

import (
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
)

func TestListenUDPOptions(t *testing.T) {
	newLab(t)
	for _, tt := range []struct {
		address                string
		level                  int
		transparent, discover  int
		fragSize, origDst, own int
	}{
		{lab.VIP4, unix.SOL_IP, unix.IP_TRANSPARENT, unix.IP_MTU_DISCOVER, unix.IP_RECVFRAGSIZE, unix.IP_RECVORIGDSTADDR, 0},
		{lab.VIP6, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, unix.IPV6_MTU_DISCOVER, unix.IPV6_RECVFRAGSIZE, unix.IPV6_RECVORIGDSTADDR, 1},
	} {
		for _, on := range []int{0, 1} {
			fd := listenUDP(t, at(tt.address, 40000), true, on == 1)
			for _, o := range []struct {
				name                string
				level, option, want int
			}{
				{"IP_TRANSPARENT", tt.level, tt.transparent, 1},
				{"IP_MTU_DISCOVER", tt.level, tt.discover, unix.IP_PMTUDISC_DO},
				{"IP_RECVFRAGSIZE", tt.level, tt.fragSize, 1},
				{"IP_RECVORIGDSTADDR", tt.level, tt.origDst, on},
				{"SO_RXQ_OVFL", unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1},
				{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
				{"SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1},
				{"UDP_GRO", unix.SOL_UDP, unix.UDP_GRO, 1},
			} {
				if got := get(t, fd, o.level, o.option); got != o.want {
					t.Errorf("%s: %s = %d, want %d", tt.address, o.name, got, o.want)
				}
			}
			if tt.own == 1 && get(t, fd, unix.SOL_IPV6, unix.IPV6_V6ONLY) != 1 {
				t.Error("not IPV6_V6ONLY")
			}
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			if err != nil || flags&unix.O_NONBLOCK == 0 {
				t.Errorf("flags %#x, %v: want O_NONBLOCK", flags, err)
			}
			flags, err = unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			if err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("descriptor flags %#x, %v: want FD_CLOEXEC", flags, err)
			}
		}
	}
	if !GROSupported() || !GSOSupported() {
		t.Error("no UDP_GRO or UDP_SEGMENT, which Linux has since 5.0")
	}
	if tryUDP(12345, 1) {
		t.Error("an option that does not exist is supported")
	}
}

// TestListenUDPOwner finds out whether somebody has the address.
func TestListenUDPOwner(t *testing.T) {
	newLab(t)
	for _, f := range udpFamilies {
		a, all := at(f.loopback, 40000), at(f.wildcard, 40000)
		for _, tt := range []struct {
			name          string
			first, second netip.AddrPort
			shared        [2]bool
			ok            bool
		}{
			{"two workers", a, a, [2]bool{true, true}, true},
			{"a worker and a stranger", a, a, [2]bool{true, false}, false},
			{"a stranger first", a, a, [2]bool{false, true}, false},
			{"a stranger on all addresses", all, a, [2]bool{false, true}, false},
			{"strangers", a, a, [2]bool{false, false}, false},
		} {
			one, err := ListenUDP(tt.first, tt.shared[0], false)
			if err != nil {
				t.Fatal(err)
			}
			two, err := ListenUDP(tt.second, tt.shared[1], false)
			if err == nil {
				Close(two)
			}
			Close(one)
			if tt.ok && err != nil || !tt.ok && !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("%v, %s: %v", a, tt.name, err)
			}
		}
	}
}

// TestListenUDPFamilies has one port on all addresses of both families.
func TestListenUDPFamilies(t *testing.T) {
	for _, f := range udpFamilies {
		listenUDP(t, at(f.wildcard, 40000), false, true)
	}
}

func TestSetReceiveBuffer(t *testing.T) {
	fd := listenUDP(t, at("127.0.0.1", 40000), false, false)
	text, err := os.ReadFile("/proc/sys/net/core/rmem_max")
	if err != nil {
		t.Fatal(err)
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	// Twice what was asked for, or what the host allows (socket(7)).
	if got := get(t, fd, unix.SOL_SOCKET, unix.SO_RCVBUF); got != 2*listenBuffer && got != 2*most {
		t.Errorf("SO_RCVBUF %d, want %d or %d", got, 2*listenBuffer, 2*most)
	}
	if e := SetReceiveBuffer(fd, 50000); e != 0 {
		t.Fatal(e)
	}
	if got := get(t, fd, unix.SOL_SOCKET, unix.SO_RCVBUF); got != 100000 {
		t.Errorf("SO_RCVBUF %d, want 100000", got)
	}
}
