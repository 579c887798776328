package tap_test

import (
	"encoding/binary"
	"encoding/hex"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/ringcap/tap"
)

// stream is a UDP flow of one leg, which sends numbered datagrams.
type stream struct {
	t    *testing.T
	conn net.Conn
	flow tap.Flow
	sent int
}

// newStream opens a flow from the client to the proxy. Nobody answers.
func newStream(t *testing.T, m *tap.Manager, l *lab.Lab, id uint64, service, to string) *stream {
	t.Helper()
	pc, err := l.Proxy.ListenPacket("udp", net.JoinHostPort(to, "0"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Client.Dial(t.Context(), "udp", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.Close(), pc.Close() })
	s := &stream{t: t, conn: c, flow: tap.Flow{
		ID: id, Service: service, Backend: "b1", Protocol: unix.IPPROTO_UDP,
		Client: addrPort(c.LocalAddr()), Destination: addrPort(c.RemoteAddr()),
	}}
	m.Open(&s.flow)
	return s
}

func (s *stream) send(n, size int) {
	s.t.Helper()
	b := make([]byte, size)
	for range n {
		binary.BigEndian.PutUint32(b, uint32(s.sent))
		if _, err := s.conn.Write(b); err != nil {
			s.t.Fatal(err)
		}
		s.sent++
	}
}

// numbers are those of the datagrams of a flow.
func numbers(t *testing.T, all []seen, id string) (got []int) {
	t.Helper()
	for _, p := range all {
		if p.id != id || p.payload == "" {
			continue
		}
		b, err := hex.DecodeString(strings.ReplaceAll(p.payload, ":", "")[:8])
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, int(binary.BigEndian.Uint32(b)))
	}
	return got
}

// inOrder checks that numbers go from a first to a last.
func inOrder(t *testing.T, got []int, first, last int) {
	t.Helper()
	if len(got) != last-first {
		t.Errorf("%d datagrams, want %d", len(got), last-first)
		return
	}
	for i, n := range got {
		if n != first+i {
			t.Errorf("datagram %d is number %d", first+i, n)
			return
		}
	}
}

// TestRotation captures every datagram once over the boundaries of files, a
// reload that changes the rings, and one that changes nothing, on both
// families.
func TestRotation(t *testing.T) {
	l := netnstest.New(t)
	m := manage(t, tap.Options{})
	dir := t.TempDir()
	cfg := tap.Config{Interfaces: []string{"lab-*"}, Captures: []tap.Capture{{Name: "udp", Directory: dir, MaxPackets: 300}}}
	apply(t, m, cfg)
	s4 := newStream(t, m, l, 4, "dns", lab.ProxyClientIP4)
	s6 := newStream(t, m, l, 6, "dns", lab.ProxyClientIP6)
	// Each block has room for what is sent while a ring is changed.
	for i := range 10 {
		s4.send(50, 100)
		s6.send(50, 100)
		switch i {
		case 3, 8:
			apply(t, m, cfg)
		case 5:
			cfg.Ring = tap.Ring{BlockSize: 128 << 10, Blocks: 24, Fanout: 2}
			apply(t, m, cfg)
		}
	}
	if err := m.Stop("udp"); err != nil {
		t.Fatal(err)
	}
	paths := complete(t, dir)
	if len(paths) != 4 {
		t.Errorf("%d files of 1000 packets, 300 each", len(paths))
	}
	var all []seen
	for _, p := range paths {
		all = append(all, tshark(t, p)...)
	}
	if n := count(all, func(p seen) bool { return p.comment != "" }); n < 2 {
		t.Errorf("%d comments, want one for each flow", n)
	}
	inOrder(t, numbers(t, all, "4"), 0, 500)
	inOrder(t, numbers(t, all, "6"), 0, 500)
	st := m.Stats()
	if c := st.Captures[0]; c.Packets != 1000 || c.RingDrops+c.SinkDrops != 0 {
		t.Errorf("stats %+v", c)
	}
	for _, i := range st.Interfaces {
		if i.Name == lab.ClientLink && i.Taken < 1000 || i.Packets-i.Drops != i.Taken {
			t.Errorf("counts of %s: %+v", i.Name, i.Stats)
		}
	}
}

// TestSample takes some of the flows, and all of each.
func TestSample(t *testing.T) {
	l := netnstest.New(t)
	m := manage(t, tap.Options{})
	dir := t.TempDir()
	apply(t, m, tap.Config{Captures: []tap.Capture{
		{Name: "some", Directory: dir + "/some", Selection: tap.Selection{Sample: 50, Snap: tap.SnapHeaders}},
		{Name: "one", Directory: dir + "/one", Selection: tap.Selection{Services: []string{"s7"}, Filter: "udp and greater 200"}},
		{Name: "none", Directory: dir + "/none", Selection: tap.Selection{Flow: 99}},
		{Name: "later", Directory: dir + "/later", Manual: true},
	}})
	const flows = 20
	var all []*stream
	for id := range uint64(flows) {
		all = append(all, newStream(t, m, l, id+1, "s"+string('0'+rune(id%10)), lab.ProxyClientIP4))
	}
	for _, s := range all {
		s.send(3, 100)
		s.send(2, 300)
	}
	for _, name := range []string{"some", "one", "none", "later"} {
		if err := m.Stop(name); err != nil {
			t.Fatal(err)
		}
	}
	byFlow := map[string]int{}
	for _, p := range tshark(t, complete(t, dir+"/some")[0]) {
		byFlow[p.id]++
	}
	if len(byFlow) < 3 || len(byFlow) > flows-3 {
		t.Errorf("%d of %d flows sampled at half", len(byFlow), flows)
	}
	for id, n := range byFlow {
		if n != 5 {
			t.Errorf("%d packets of flow %s, want 5", n, id)
		}
	}
	if got := tshark(t, complete(t, dir+"/one")[0]); len(got) != 4 {
		t.Errorf("%d packets of two flows of the service, want the two large ones of each", len(got))
	}
	for _, name := range []string{"none", "later"} {
		if paths := complete(t, dir+"/"+name); len(paths) != 0 {
			t.Errorf("files %v of %s", paths, name)
		}
	}
}
