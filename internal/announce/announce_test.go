package announce

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

var (
	mac  = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	vip4 = netip.MustParseAddr("198.18.1.99") // on the client's link
	vip6 = netip.MustParseAddr("2001:db8:1::99")
)

func TestFrame(t *testing.T) {
	for name, tt := range map[string]struct {
		got  []byte
		want string
	}{
		"ARP": {Frame(mac, vip4, true), "ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 c6120163 000000000000 c6120163" + strings.Repeat("00", 18)},
		"NA": {Frame(mac, vip6, false), "333300000001 020000000001 86dd 60000000 0020 3a ff 20010db8000100000000000000000099 ff020000000000000000000000000001" +
			"88 00 CSUM 20000000 20010db8000100000000000000000099 0201 020000000001"},
	} {
		// The checksum is tshark's to judge.
		want, err := hex.DecodeString(strings.NewReplacer(" ", "", "CSUM", hex.EncodeToString(tt.got[min(56, len(tt.got)):min(58, len(tt.got))])).Replace(tt.want))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, tt.got); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
	if f := Frame(mac, vip6, true); f[58] != 0xa0 {
		t.Errorf("flags of a router: %#x", f[58])
	}
	if !bytes.Equal(Frame(mac, netip.MustParseAddr("::ffff:198.18.1.99"), false), Frame(mac, vip4, false)) {
		t.Error("a mapped address is not announced as IPv4")
	}
}

// TestTShark has tshark read the frames and judge their checksums.
func TestTShark(t *testing.T) {
	tshark := netnstest.Need(t, "tshark", "tshark")
	var file bytes.Buffer
	w := pcapgo.NewWriter(&file)
	if err := w.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for _, f := range [][]byte{Frame(mac, vip4, false), Frame(mac, vip6, true)} {
		if err := w.WritePacket(gopacket.CaptureInfo{CaptureLength: len(f), Length: len(f)}, f); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), tshark, "-r", path, "-T", "fields", "-E", "separator=;",
		"-e", "arp.isgratuitous", "-e", "arp.src.proto_ipv4", "-e", "icmpv6.nd.na.target_address", "-e", "icmpv6.nd.na.flag.o",
		"-e", "icmpv6.opt.linkaddr", "-e", "icmpv6.checksum.status", "-e", "_ws.malformed").Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], ";198.18.1.99;") || lines[0][0] != '1' && !strings.HasPrefix(lines[0], "True") ||
		!strings.Contains(lines[1], "2001:db8:1::99;") || !strings.HasSuffix(lines[1], ";02:00:00:00:00:01;1;") {
		t.Errorf("tshark reads\n%s", out)
	}
}

// TestCaches wants a neighbour that has the addresses elsewhere to find them
// here.
func TestCaches(t *testing.T) {
	l := netnstest.New(t)
	// Linux ignores what comes within a second of the entry; this is not about that.
	if err := l.Client.Sysctl("ipv4.neigh."+lab.EndLink+".locktime", "0"); err != nil {
		t.Fatal(err)
	}
	nl, err := l.Client.Netlink()
	if err != nil {
		t.Fatal(err)
	}
	defer nl.Close()
	eth0, err := nl.LinkByName(lab.EndLink)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := net.HardwareAddr{2, 0, 0, 0, 0, 0x77}
	for _, ip := range []netip.Addr{vip4, vip6} {
		if err := nl.NeighSet(&netlink.Neigh{LinkIndex: eth0.Attrs().Index, State: netlink.NUD_STALE, IP: ip.AsSlice(), HardwareAddr: elsewhere}); err != nil {
			t.Fatal(err)
		}
	}
	a, err := New(Config{Addresses: []netip.Addr{vip4, vip6}, Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	own, err := netlink.LinkByName(lab.ClientLink)
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range []netip.Addr{vip4, vip6} {
		netnstest.Eventually(t, 20*time.Second, func() bool {
			neighbours, err := nl.NeighList(eth0.Attrs().Index, unix.AF_UNSPEC)
			if err != nil {
				t.Fatal(err)
			}
			return slices.ContainsFunc(neighbours, func(n netlink.Neigh) bool {
				return n.IP.Equal(ip.AsSlice()) && bytes.Equal(n.HardwareAddr, own.Attrs().HardwareAddr)
			})
		}, ip.String()+" has not moved")
	}
}

func TestInterfaces(t *testing.T) {
	netnstest.New(t)
	for ip, want := range map[string][]string{
		"198.18.1.99": {lab.ClientLink}, "198.18.2.99": {lab.ServerLink}, "::ffff:198.18.2.99": {lab.ServerLink},
		"2001:db8:1::99": {lab.ClientLink}, "2001:db8:2::99": {lab.ServerLink},
		"203.0.113.10": nil, "127.0.0.1": nil, "198.18.3.1": nil, // behind a gateway
	} {
		got, err := Interfaces(netip.MustParseAddr(ip))
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v; -want +got\n%s", ip, err, diff)
		}
	}
}

// TestOfInterface holds what an interface adds: where an address with a zone is
// announced, and whether this is a router.
func TestOfInterface(t *testing.T) {
	l := netnstest.New(t)
	for _, forwarding := range []string{"1", "0"} {
		if err := l.Proxy.Sysctl("ipv6/conf/"+lab.ServerLink+"/forwarding", forwarding); err != nil {
			t.Fatal(err)
		}
		ip := netip.MustParseAddr("fe80::99%" + lab.ServerLink)
		a, err := New(Config{Addresses: []netip.Addr{ip}})
		if err != nil {
			t.Fatal(err)
		}
		if len(a.out) != 1 || a.out[0].name != lab.ServerLink {
			t.Fatalf("announced on %v", a.out)
		}
		if diff := cmp.Diff(Frame(hardware(t, lab.ServerLink), ip, forwarding == "1"), a.out[0].frame); diff != "" {
			t.Errorf("forwarding = %s: -want +got\n%s", forwarding, diff)
		}
	}
}

// TestRepeat counts what arrives, and has a drain begin between two.
func TestRepeat(t *testing.T) {
	l := netnstest.New(t)
	var fd int
	err := l.Client.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(arpProtocol))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	want := Frame(hardware(t, lab.ClientLink), vip4, false)
	arrived := func() (n int) {
		buf := make([]byte, 2048)
		for {
			k, _, err := unix.Recvfrom(fd, buf, 0)
			if errors.Is(err, unix.EAGAIN) {
				return n
			}
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(buf[:k], want) {
				n++
			}
		}
	}
	for _, drainAfter := range []int{0, 1, 2, 9} {
		ctx, cancel := context.WithCancel(t.Context())
		var waited []time.Duration
		sent := 0
		a, err := New(Config{Addresses: []netip.Addr{vip4}, Count: 4, Interval: time.Minute, Sent: func() { sent++ }, Wait: func(ctx context.Context, d time.Duration) error {
			if waited = append(waited, d); len(waited) == drainAfter {
				cancel()
			}
			return ctx.Err()
		}})
		if err != nil {
			t.Fatal(err)
		}
		if drainAfter == 0 {
			cancel()
		}
		if err := a.Run(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		n := min(drainAfter, 4)
		if sent != n {
			t.Errorf("drain after %d: %d sent", drainAfter, sent)
		}
		// A veth delivers in the sender's call: what was sent is there.
		netnstest.Eventually(t, 20*time.Second, func() bool { n -= arrived(); return n <= 0 }, "an announcement is missing")
		if n < 0 || arrived() > 0 {
			t.Errorf("drain after %d: %d too many", drainAfter, -n)
		}
		for _, d := range waited {
			if d != time.Minute {
				t.Errorf("waited %v", waited)
			}
		}
	}
}

// arpProtocol is ETH_P_ARP in network byte order.
const arpProtocol = uint16(unix.ETH_P_ARP>>8 | unix.ETH_P_ARP<<8&0xff00)

func hardware(t *testing.T, name string) net.HardwareAddr {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().HardwareAddr
}

func TestErrors(t *testing.T) {
	l := netnstest.New(t)
	for want, cfg := range map[string]Config{
		"announce 203.0.113.10: no interface has": {Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.10")}},
		"find interface nowhere0":                 {Addresses: []netip.Addr{vip4}, Interfaces: []string{"nowhere0"}},
		"interface lo is not Ethernet":            {Addresses: []netip.Addr{vip4}, Interfaces: []string{"lo"}},
	} {
		if a, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, %v, want %q", a, err, want)
		}
	}
	up := false
	a, err := New(Config{
		Addresses: []netip.Addr{vip4}, Interfaces: []string{lab.ClientLink, lab.ServerLink}, Count: 2,
		Wait: func(context.Context, time.Duration) error {
			if up {
				return l.Proxy.LinkUp(lab.ClientLink)
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Proxy.LinkDown(lab.ClientLink); err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); !errors.Is(err, unix.ENETDOWN) || strings.Contains(err.Error(), lab.ServerLink) || strings.Count(err.Error(), "\n") > 0 {
		t.Errorf("with a link down: %v", err)
	}
	up = true
	if err := a.Run(t.Context()); err != nil {
		t.Errorf("with a link that comes up: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := wait(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
