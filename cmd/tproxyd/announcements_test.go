package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The virtual addresses of these tests are of the network that the client is on,
// and on no interface.
var moving = []netip.Addr{netip.MustParseAddr("198.18.1.99"), netip.MustParseAddr("2001:db8:1::99")}

// elsewhere is where they have been until now.
var elsewhere = net.HardwareAddr{2, 0, 0, 0, 0, 0x77}

// movingService has a backend that is checked.
func movingService(settings ...string) string {
	return fmt.Sprintf(`
[[service]]
name = "moving"
listen = ["%s:%s", "[%s]:%s"]
source = "client-ip"
`, moving[0], port, moving[1], port) + strings.Join(settings, "\n") + "\n" +
		healthBy("tcp", quick, `initial = "down"`, "fall = 1", "rise = 1", "port = 7000") +
		backendAt("four", lab.ServerIP4+":"+port) + backendAt("six", "["+lab.ServerIP6+"]:"+port)
}

// neighbour is the client's view of the link.
type neighbour struct {
	b      *bed
	nl     *netlink.Handle
	link   int
	own    net.HardwareAddr // the daemon's
	socket int              // gets what is sent to all hosts
	heard  map[netip.Addr]int
}

func (b *bed) neighbour() *neighbour {
	b.t.Helper()
	// Linux ignores what comes within a second of the entry; this is not about that.
	err := b.Client.Sysctl("ipv4.neigh."+lab.EndLink+".locktime", "0")
	n := &neighbour{b: b, heard: map[netip.Addr]int{}}
	if err == nil {
		n.nl, err = b.Client.Netlink()
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(n.nl.Close)
	here, err := netlink.LinkByName(lab.ClientLink)
	if err != nil {
		b.t.Fatal(err)
	}
	there, err := n.nl.LinkByName(lab.EndLink)
	if err != nil {
		b.t.Fatal(err)
	}
	n.own, n.link = here.Attrs().HardwareAddr, there.Attrs().Index
	const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL<<8&0xff00
	err = b.Client.Do(func() (err error) {
		n.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all)
		return os.NewSyscallError("socket(AF_PACKET)", err)
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = unix.Close(n.socket) })
	return n
}

// move has the client believe that the addresses are elsewhere.
func (n *neighbour) move() {
	n.b.t.Helper()
	for _, ip := range moving {
		err := n.nl.NeighSet(&netlink.Neigh{LinkIndex: n.link, State: netlink.NUD_REACHABLE, IP: ip.AsSlice(), HardwareAddr: elsewhere})
		if err != nil {
			n.b.t.Fatal(err)
		}
	}
}

// at says whether the client believes all addresses at a place.
func (n *neighbour) at(place net.HardwareAddr) bool {
	n.b.t.Helper()
	list, err := n.nl.NeighList(n.link, unix.AF_UNSPEC)
	if err != nil {
		n.b.t.Fatal(err)
	}
	for _, ip := range moving {
		if !slices.ContainsFunc(list, func(e netlink.Neigh) bool { return e.IP.Equal(ip.AsSlice()) && bytes.Equal(e.HardwareAddr, place) }) {
			return false
		}
	}
	return true
}

// moves waits until the client believes the addresses here, and wants them to be
// served.
func (n *neighbour) moves(d *process) {
	n.b.t.Helper()
	defer func() {
		if n.b.t.Failed() {
			n.b.t.Logf("the daemon:\n%s", &d.stderr)
		}
	}()
	netnstest.Eventually(n.b.t, 2*patience, func() bool { return n.at(n.own) }, "the client finds the addresses here")
	for _, ip := range moving {
		if err := n.b.talk(netip.AddrPortFrom(ip, 80).String()); err != nil {
			n.b.t.Error(err)
		}
	}
}

// listen counts the announcements that have come.
func (n *neighbour) listen() (count int) {
	n.b.t.Helper()
	buf := make([]byte, 2048)
	for {
		size, _, err := unix.Recvfrom(n.socket, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			n.b.t.Fatal(err)
		}
		if ip, ok := announcedBy(buf[:size]); ok && slices.Contains(moving, ip) {
			n.heard[ip]++
		}
	}
	for _, k := range n.heard {
		count += k
	}
	return count
}

// announcedBy is the address that a frame announces, as another implementation
// reads it.
func announcedBy(frame []byte) (ip netip.Addr, ok bool) {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if a, is := p.Layer(layers.LayerTypeARP).(*layers.ARP); is && bytes.Equal(a.SourceProtAddress, a.DstProtAddress) {
		return netip.AddrFromSlice(a.SourceProtAddress)
	}
	if a, is := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement); is && !a.Solicited() {
		return netip.AddrFromSlice(a.TargetAddress)
	}
	return ip, false
}

// settled waits until all that the daemon has sent has come, and returns how many
// these are.
func (n *neighbour) settled(d *process) (count int) {
	n.b.t.Helper()
	sent := int(d.metrics().announced("announcements"))
	netnstest.Eventually(n.b.t, patience, func() bool { count = n.listen(); return count >= sent }, "all announcements have come")
	return count
}

func (m metrics) announced(result string) float64 {
	return m.sum("tproxyd_"+result+"_total", "service=moving")
}

// TestAnnounce has a neighbour believe the virtual addresses elsewhere, again and
// again, and find them here when the service has a backend in use.
func TestAnnounce(t *testing.T) {
	b := newBed(t)
	n := b.neighbour()
	four, six := b.gate(lab.ServerIP4+":7000"), b.gate("["+lab.ServerIP6+"]:7000")
	four.close()
	six.close()
	n.move()
	d := b.start(head("")+movingService("announce = true"), options{})
	d.checked("moving", "refused", 6)
	if k := n.listen(); k > 0 || !n.at(elsewhere) {
		t.Errorf("%d announcements without a backend in use", k)
	}
	four.open()
	six.open()
	n.moves(d)
	// Of each address three, and no more for checks that change nothing.
	d.waitMetrics(func(m metrics) bool { return m.announced("announcements") == 6 }, "three announcements of each address")
	if n.settled(d); n.heard[moving[0]] != 3 || n.heard[moving[1]] != 3 {
		t.Errorf("heard %v, want each address three times", n.heard)
	}

	four.close()
	six.close()
	d.until("moving", "four", "down")
	d.until("moving", "six", "down")
	n.move()
	four.open()
	six.open()
	n.moves(d)

	// A service that is gone, and one that nothing is said of.
	d.wantReload(head("")+webService, true)
	heard := n.settled(d)
	n.move()
	d.wantReload(head("")+movingService(), true)
	d.until("moving", "four", "up")
	d.wantReload(head("")+movingService("announce = true", `announce_interface = "nowhere0"`), true)
	d.logged("find interface nowhere0")
	d.waitMetrics(func(m metrics) bool { return m.announced("announcement_failures") >= 2 }, "the failure is counted, of each family")
	if k := n.listen(); k != heard || !n.at(elsewhere) {
		t.Errorf("%d announcements with none to be sent", k-heard)
	}
	if _, err := d.get("/readyz"); err != nil {
		t.Errorf("/readyz after an announcement failed: %v", err)
	}
	d.wantReload(head("")+movingService("announce = true", `announce_interface = "`+lab.ClientLink+`"`), true)
	n.moves(d)
}

// TestAnnounceDrain begins to drain between two announcements.
func TestAnnounceDrain(t *testing.T) {
	b := newBed(t)
	n := b.neighbour()
	b.gate(lab.ServerIP4 + ":7000")
	b.gate("[" + lab.ServerIP6 + "]:7000")
	n.move()
	d := b.start(strings.Replace(head(""), "[daemon]", "[daemon]\ndrain_timeout = \"1h\"", 1)+movingService("announce = true")+webService, options{})
	n.moves(d)
	held := b.open(targets["vip4"]) // its way is not by what is announced
	d.signal(unix.SIGTERM)
	d.logged("draining")
	heard := n.settled(d)
	n.move()
	// Longer than from one announcement to the next: time for what must not come.
	time.Sleep(2500 * time.Millisecond) //nolint:forbidigo // nothing happens, which is what is tested
	if k := n.listen(); k != heard || !n.at(elsewhere) {
		t.Errorf("%d announcements while draining", k-heard)
	}
	closeAll(t, held)
	if code := d.exit(); code != exitOK {
		t.Errorf("exit code %d\n%s", code, &d.stderr)
	}
	if k := n.listen(); k != heard {
		t.Errorf("%d announcements at the end", k-heard)
	}
}

// TestAnnounceRefused runs without packet sockets.
func TestAnnounceRefused(t *testing.T) {
	b := newBed(t)
	b.gate(lab.ServerIP4 + ":7000")
	b.gate("[" + lab.ServerIP6 + "]:7000")
	d := b.start(head("")+movingService("announce = true")+webService, options{confinement: confinement{NoPacket: true}})
	d.logged("RestrictAddressFamilies= in the unit needs AF_PACKET")
	d.waitMetrics(func(m metrics) bool { return m.announced("announcement_failures") == 2 }, "the failure is counted, of each family")
	if err := b.talk(targets["vip4"]); err != nil {
		t.Error(err)
	}
	if m := d.metrics(); m.announced("announcements") != 0 {
		t.Error("announcements are counted that were not sent")
	}
}
