package mirror_test

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/ringcap"
	"github.com/tproxyd/tproxyd/ringcap/pcapng"
	"github.com/tproxyd/tproxyd/zcsend/encap"
	"github.com/tproxyd/tproxyd/zcsend/mirror"
)

// TestPort: what a port got is what a tap on the source saw.
func TestPort(t *testing.T) {
	l := netnstest.New(t)
	addPort(t, 1500)
	near, far := newTap(t, l.Proxy, lab.ClientLink, ringcap.Both), newTap(t, l.Proxy, farLink, ringcap.In)
	m := startMirror(t, mirror.Config{Interface: portLink}, traffic, lab.ClientLink)
	exchange(t, l, 100, 1<<20)
	want := near.end()
	s := m.end()
	exact(t, s)
	if s.Drops() != 0 || s.Frames != s.Seen || s.Cut != 0 {
		t.Errorf("%+v, want none dropped or cut", s)
	}
	got := await(t, far, len(want))
	same(t, got, want)
	rightSums(t, got)
	if near.supers == 0 || far.supers == 0 {
		t.Errorf("%d super-frames seen, %d arrived", near.supers, far.supers)
	}
}

// TestVLAN: a tag that the kernel took out is put back.
func TestVLAN(t *testing.T) {
	l := netnstest.New(t)
	addPort(t, 1500)
	near, far := newTap(t, l.Proxy, lab.ClientLink, ringcap.Both), newTap(t, l.Proxy, farLink, ringcap.In)
	m := startMirror(t, mirror.Config{Interface: portLink}, traffic, lab.ClientLink)
	sendTagged(t, l, 10)
	netnstest.Eventually(t, patience, func() bool { return near.count() >= 10 }, "want 10 frames")
	want := near.end()
	exact(t, m.end())
	got := await(t, far, len(want))
	same(t, got, want)
	if be.Uint16([]byte(got[0][12:])) != unix.ETH_P_8021Q || got[0][15] != vlan {
		t.Errorf("no tag in %x", short(got[0]))
	}
}

// TestSnap: super-frames are cut before they are cut short.
func TestSnap(t *testing.T) {
	const snap = 100
	l := netnstest.New(t)
	addPort(t, 1500)
	near, far := newTap(t, l.Proxy, lab.ClientLink, ringcap.Both), newTap(t, l.Proxy, farLink, ringcap.In)
	m := startMirror(t, mirror.Config{Interface: portLink, Snap: snap}, traffic, lab.ClientLink)
	exchange(t, l, 20, 256<<10)
	want := near.end()
	for i, f := range want {
		want[i] = f[:min(len(f), snap)]
	}
	s := m.end()
	exact(t, s)
	if s.Cut == 0 || s.Frames != uint64(len(want)) {
		t.Errorf("%+v, want %d frames", s, len(want))
	}
	same(t, await(t, far, len(want)), want)
}

// TestPick: only what is picked is mirrored, as much as its tag says.
func TestPick(t *testing.T) {
	l := netnstest.New(t)
	addPort(t, 1500)
	far := newTap(t, l.Proxy, farLink, ringcap.In)
	m := startMirror(t, mirror.Config{Interface: portLink, Pick: func(p ringcap.Packet) (pcapng.Tag, bool) {
		return pcapng.Tag{Snap: 60}, p.Data()[12] == 0x86 // IPv6
	}}, "udp port 5001", lab.ClientLink)
	exchange(t, l, 10, 0)
	netnstest.Eventually(t, patience, func() bool { return m.Stats().Frames >= 10 }, "want 10 frames")
	exact(t, m.end())
	got := await(t, far, 10)
	if len(got) != 10 {
		t.Errorf("%d frames, want 10", len(got))
	}
	for _, f := range got {
		if f[12] != 0x86 || len(f) > 60 {
			t.Errorf("%d bytes: %x", len(f), f)
		}
	}
}

// TestDrops: what cannot be sent is dropped for a reason, and all is counted.
func TestDrops(t *testing.T) {
	cases := map[string]struct {
		cfg    mirror.Config
		mtu    int
		damage func(t *testing.T, l *lab.Lab)
		reason mirror.Reason
	}{
		"rate":      {cfg: mirror.Config{Interface: portLink, Rate: 8000}, mtu: 1500, reason: mirror.Rate},
		"too_long":  {cfg: mirror.Config{Interface: portLink}, mtu: 900, reason: mirror.TooLong},
		"link_down": {cfg: mirror.Config{Interface: portLink}, mtu: 1500, reason: mirror.LinkDown, damage: portDown},
		"overload": {
			cfg: mirror.Config{Interface: portLink}, mtu: 1500, reason: mirror.Overload,
			damage: func(t *testing.T, _ *lab.Lab) { t.Helper(); choke(t, portLink) },
		},
		"overload of the collector": {
			cfg: mirror.Config{Collector: netip.MustParseAddr(lab.ServerIP4), Kind: encap.GRE}, mtu: 1500, reason: mirror.Overload,
			damage: func(t *testing.T, _ *lab.Lab) { t.Helper(); choke(t, lab.ServerLink) },
		},
		"overload of the collector by IPv6": {
			cfg: mirror.Config{Collector: netip.MustParseAddr(lab.ServerIP6), Kind: encap.GRE}, mtu: 1500, reason: mirror.Overload,
			damage: func(t *testing.T, _ *lab.Lab) { t.Helper(); choke(t, lab.ServerLink) },
		},
		"unreachable": {
			cfg: mirror.Config{Collector: netip.MustParseAddr(lab.ServerIP4), Kind: encap.GRE}, mtu: 1500, reason: mirror.LinkDown,
			damage: func(t *testing.T, l *lab.Lab) {
				t.Helper()
				if err := l.Proxy.LinkDown(lab.ServerLink); err != nil {
					t.Fatal(err)
				}
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			l := netnstest.New(t)
			addPort(t, c.mtu)
			near := newTap(t, l.Proxy, lab.ClientLink, ringcap.Both)
			m := startMirror(t, c.cfg, traffic, lab.ClientLink)
			if c.damage != nil {
				c.damage(t, l)
			}
			exchange(t, l, 200, 1<<20)
			near.end()
			s := m.end()
			exact(t, s)
			if s.Dropped[c.reason] == 0 || s.Drops() != s.Dropped[c.reason] {
				t.Errorf("%+v, want drops for %s only", s, c.reason)
			}
			if c.reason.String() == "" || s.Seen == 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// choke gives a link a queue that lets next to nothing out.
func choke(t *testing.T, link string) {
	t.Helper()
	tc(t, "qdisc replace dev "+link+" root tbf rate 1kbit burst 2000 limit 65536")
}

func portDown(t *testing.T, l *lab.Lab) {
	t.Helper()
	if err := l.Proxy.LinkDown(portLink); err != nil {
		t.Fatal(err)
	}
}

// TestFlap: the port comes back and the mirror goes on.
func TestFlap(t *testing.T) {
	l := netnstest.New(t)
	addPort(t, 1500)
	far := newTap(t, l.Proxy, farLink, ringcap.In)
	m := startMirror(t, mirror.Config{Interface: portLink}, traffic, lab.ClientLink)
	portDown(t, l)
	exchange(t, l, 10, 0)
	netnstest.Eventually(t, patience, func() bool { return m.Stats().Dropped[mirror.LinkDown] >= 20 }, "want drops")
	if err := l.Proxy.LinkUp(portLink); err != nil {
		t.Fatal(err)
	}
	netnstest.Eventually(t, patience, func() bool {
		exchange(t, l, 10, 0)
		return far.count() > 0
	}, "nothing arrives after the port came back")
	exact(t, m.end())
}
