package mirror_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/ringcap"
	"github.com/tproxyd/tproxyd/zcsend/encap"
	"github.com/tproxyd/tproxyd/zcsend/mirror"
)

// device is the kernel's end of a tunnel, in the server.
const device = "collector"

const session = 0x2a7

// addCollector makes the kernel of the server decapsulate. It returns false where
// the kernel has no such device: then the outer packets are taken apart here.
func addCollector(t *testing.T, l *lab.Lab, kind encap.Kind, v6 bool) (to netip.Addr, decapsulates bool) {
	t.Helper()
	ip := netnstest.Need(t, "ip", "iproute2")
	local, remote, six := lab.ServerIP4, lab.ProxyServerIP4, ""
	if v6 {
		local, remote, six = lab.ServerIP6, lab.ProxyServerIP6, "ip6"
	}
	args := map[encap.Kind]string{
		encap.VXLAN:  "vxlan id %d local %s remote %s dstport 4789 nolearning",
		encap.GRE:    six + "gretap key %d local %s remote %s",
		encap.ERSPAN: six + "erspan seq key %d local %s remote %s erspan_ver 1 erspan 5",
	}[kind]
	to = netip.MustParseAddr(local)
	line := fmt.Sprintf("link add %s mtu 9000 type "+args, device, session, local, remote)
	for _, words := range []string{line, "link set " + device + " up"} {
		out, err := l.Server.Command(t.Context(), ip, strings.Fields(words)...).CombinedOutput()
		if strings.Contains(string(out), "Unknown device type") && kind != encap.VXLAN {
			t.Logf("this kernel has no device of type %s: read from the wire", kind)
			return to, false
		}
		if err != nil {
			t.Fatalf("ip %s: %v: %s", words, err, out)
		}
	}
	return to, true
}

// widen gives the way to the collector room for what is around a frame.
func widen(t *testing.T, l *lab.Lab) {
	t.Helper()
	const mtu = 2000
	for host, link := range map[*lab.Host]string{l.Proxy: lab.ServerLink, l.Server: lab.EndLink} {
		nl, err := host.Netlink()
		if err != nil {
			t.Fatal(err)
		}
		found, err := nl.LinkByName(link)
		if err == nil {
			err = nl.LinkSetMTU(found, mtu)
		}
		nl.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// inner takes a frame out of an outer packet, by RFC 2890 and the draft of
// ERSPAN, and checks what it finds.
func inner(t *testing.T, outer string) string {
	t.Helper()
	b := []byte(outer)[14+20:]
	if outer[12] == 0x86 {
		b = []byte(outer)[14+40:]
	}
	switch head := be.Uint32(b); {
	case head == 0x20006558 && be.Uint32(b[4:]) == session:
		return string(b[8:])
	case head == 0x100088be && be.Uint32(b[8:])&0xf00003ff == 0x10000000|session && be.Uint32(b[12:]) == 5:
		return string(b[16:])
	}
	t.Fatalf("no frame of ours in %x", short(outer))
	return ""
}

func tunnels(t *testing.T, test func(t *testing.T, kind encap.Kind, v6 bool)) {
	for _, kind := range []encap.Kind{encap.VXLAN, encap.GRE, encap.ERSPAN} {
		for family, v6 := range map[string]bool{"ipv4": false, "ipv6": true} {
			t.Run(string(kind)+"/"+family, func(t *testing.T) { test(t, kind, v6) })
		}
	}
}

// TestCollector: the kernel's own decapsulation gives the frames that a tap on
// the source saw, also those that had to be sent in fragments.
func TestCollector(t *testing.T) {
	tunnels(t, func(t *testing.T, kind encap.Kind, v6 bool) {
		l := netnstest.New(t)
		to, decapsulates := addCollector(t, l, kind, v6)
		link, arriving := device, traffic
		if !decapsulates {
			widen(t, l)
			link, arriving = lab.EndLink, "ip proto 47 or ip6 proto 47"
		}
		near, far := newTap(t, l.Proxy, lab.ClientLink, ringcap.Both), newTapOf(t, l.Server, link, arriving, ringcap.In)
		m := startMirror(t, mirror.Config{Collector: to, Kind: kind, ID: session, Index: 5}, traffic, lab.ClientLink)
		exchange(t, l, 50, 128<<10)
		want := near.end()
		s := m.end()
		exact(t, s)
		if s.Drops() != 0 || s.Frames != uint64(len(want)) {
			t.Errorf("%+v, want %d frames", s, len(want))
		}
		got := await(t, far, len(want))
		for i := range got {
			if !decapsulates {
				got[i] = inner(t, got[i])
			}
		}
		same(t, got, want)
		rightSums(t, got)
	})
}

// TestNotItself: a mirror of the interface by which it sends does not see what
// it sends, nor what is said to that.
func TestNotItself(t *testing.T) {
	tunnels(t, func(t *testing.T, kind encap.Kind, v6 bool) {
		l := netnstest.New(t)
		to := netip.MustParseAddr(lab.ServerIP4) // refuses: there is no device
		if v6 {
			to = netip.MustParseAddr(lab.ServerIP6)
		}
		cfg := mirror.Config{Collector: to, Kind: kind, ID: session}
		own, err := cfg.Exclusion()
		if err != nil {
			t.Fatal(err)
		}
		m := startMirror(t, cfg, "(udp or icmp or icmp6 or ip proto 47 or ip6 proto 47 or ip6 proto 44) and not "+own, lab.ServerLink)
		const n = 20
		sendTo(t, l, net.JoinHostPort(lab.Server2IP4, "5001"), n)
		netnstest.Eventually(t, patience, func() bool { return m.Stats().Frames >= n }, "nothing is mirrored")
		s := m.end()
		exact(t, s)
		// What the server says to a datagram that nobody wants is a frame, too.
		if s.Seen < n || s.Seen > 3*n {
			t.Errorf("%d frames seen, %d datagrams were sent", s.Seen, n)
		}
	})
}

// sendTo sends n datagrams that need fragments when they are mirrored.
func sendTo(t *testing.T, l *lab.Lab, address string, n int) {
	t.Helper()
	pc, err := l.Server.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pc.Close() }()
	c, err := l.Proxy.Dial(t.Context(), "udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for range n {
		if _, err := c.Write(make([]byte, 1400)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTshark: Wireshark's dissector reads what we write.
func TestTshark(t *testing.T) {
	tshark := netnstest.Need(t, "tshark", "tshark")
	l := netnstest.New(t)
	widen(t, l)
	far := newTapOf(t, l.Server, lab.EndLink, "ip proto 47 or ip6 proto 47", ringcap.In)
	m := startMirror(t, mirror.Config{Collector: netip.MustParseAddr(lab.ServerIP4), Kind: encap.ERSPAN, ID: session, Index: 5},
		"udp port 5001", lab.ClientLink)
	exchange(t, l, 5, 0)
	frames := await(t, far, 10)
	m.end()
	var file bytes.Buffer
	w := pcapgo.NewWriter(&file)
	err := w.WriteFileHeader(65536, layers.LinkTypeEthernet)
	for _, f := range frames {
		err = errors.Join(err, w.WritePacket(gopacket.CaptureInfo{CaptureLength: len(f), Length: len(f)}, []byte(f)))
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), tshark, "-r", "-", "-T", "fields", "-e", "erspan.version", "-e", "erspan.spanid", "-e", "erspan.index", "-e", "udp.dstport")
	cmd.Stdin = &file
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Repeat("1\t679\t5\t5001\n", len(frames)); string(out) != want {
		t.Errorf("tshark reads\n%swant\n%s", out, want)
	}
}

// TestMetrics compares what Prometheus gets with Stats.
func TestMetrics(t *testing.T) {
	l := netnstest.New(t)
	addPort(t, 1500)
	m := startMirror(t, mirror.Config{Interface: portLink}, "udp port 5001", lab.ClientLink)
	exchange(t, l, 5, 0)
	netnstest.Eventually(t, patience, func() bool { return m.Stats().Frames >= 10 }, "want 10 frames")
	s := m.end()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(mirror.NewCollector(func() []mirror.Counted { return []mirror.Counted{m} }))
	want := fmt.Sprintf(`# HELP tproxyd_mirror_bytes_total Bytes of frames sent by a mirror, without encapsulation.
# TYPE tproxyd_mirror_bytes_total counter
tproxyd_mirror_bytes_total{mirror="test"} %d
# HELP tproxyd_mirror_dropped_total Frames that a mirror should have sent and dropped.
# TYPE tproxyd_mirror_dropped_total counter
`, s.Bytes)
	for _, reason := range []string{"error", "format", "link_down", "overload", "rate", "ring", "too_long"} {
		want += fmt.Sprintf("tproxyd_mirror_dropped_total{mirror=\"test\",reason=%q} 0\n", reason)
	}
	want += `# HELP tproxyd_mirror_frames_total Frames sent by a mirror.
# TYPE tproxyd_mirror_frames_total counter
tproxyd_mirror_frames_total{mirror="test"} 10
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}
