package ringcap_test

import (
	"encoding/binary"
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/tpacket"
	"github.com/tproxyd/tproxyd/ringcap"
)

// veth makes a pair in this namespace.
func veth(t *testing.T, name, peer string) {
	t.Helper()
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{name, peer} {
		if err := netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: n, Index: index(t, n)}}); err != nil {
			t.Fatal(err)
		}
	}
}

func index(t *testing.T, name string) int {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().Index
}

func remove(t *testing.T, name string) {
	t.Helper()
	if err := netlink.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: name, Index: index(t, name)}}); err != nil {
		t.Fatal(err)
	}
}

// inject puts a frame of an experimental type on an interface.
func inject(t *testing.T, name string, tag *tpacket.VLAN, text string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	frame := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}
	if tag != nil {
		frame = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(frame, tag.TPID), tag.TCI)
	}
	frame = append(append(frame, 0x88, 0xb5), text...)
	// A link that has just come up may not take packets yet.
	netnstest.Eventually(t, patience, func() bool {
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: index(t, name)}) == nil
	}, "send on "+name)
}

func carries(text string) func(packet) bool {
	return func(p packet) bool { return len(p.data) >= 14+len(text) && string(p.data[14:14+len(text)]) == text }
}

// TestLinkFlap takes the link down and up, then away and back.
func TestLinkFlap(t *testing.T) {
	netnstest.New(t)
	veth(t, "tap0", "tap1")
	c := start(t, ringcap.Config{Interface: "tap0"})
	see := func(text string) {
		t.Helper()
		netnstest.Eventually(t, patience, func() bool {
			inject(t, "tap1", nil, text)
			return c.count(carries(text)) > 0
		}, "packet with "+text)
	}
	downs := func(n uint64) {
		t.Helper()
		netnstest.Eventually(t, patience, func() bool { return exact0(t, c.ring).Downs == n }, "ring hears that the link is down")
	}
	see("before")
	link, err := netlink.LinkByName("tap0")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetDown(link); err != nil {
		t.Fatal(err)
	}
	downs(1)
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	see("after up")
	remove(t, "tap0")
	downs(2)
	veth(t, "tap0", "tap1")
	see("after return")
	remove(t, "tap0")
	downs(3)
	c.end() // while the link is gone
}

// TestVLAN checks that the tag which the kernel takes out is told.
func TestVLAN(t *testing.T) {
	netnstest.New(t)
	veth(t, "tap0", "tap1")
	defer remove(t, "tap0")
	c := start(t, ringcap.Config{Interface: "tap0"})
	tag := tpacket.VLAN{TPID: unix.ETH_P_8021Q, TCI: 0x6123}
	inject(t, "tap1", &tag, "tagged")
	for _, p := range c.end() {
		if carries("tagged")(p) {
			if p.vlan != tag {
				t.Errorf("tag %+v, want %+v", p.vlan, tag)
			}
			return
		}
	}
	t.Error("no tagged packet")
}

// TestNoOffload checks that a ring without virtio headers works as well.
func TestNoOffload(t *testing.T) {
	l := netnstest.New(t)
	conn := sender(t, l, net.JoinHostPort(lab.ProxyClientIP4, "4000"))
	c := start(t, ringcap.Config{NoOffload: true, Filter: port(4000)})
	send(t, conn, 20, 20)
	if packets := c.end(); len(packets) != 20 || !udpTo(4000)(packets[0]) {
		t.Errorf("%d packets, want 20", len(packets))
	}
}
