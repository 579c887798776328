package flowbpf_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/tpacket"
	"github.com/tproxyd/tproxyd/internal/tpacket/tpackettest"
	"github.com/tproxyd/tproxyd/ringcap"
	"github.com/tproxyd/tproxyd/ringcap/flowbpf"
	"github.com/tproxyd/tproxyd/ringcap/pcapng"
)

// Not in a sandbox: in a user namespace nobody has CAP_BPF.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var be = binary.BigEndian

func pick[T any](r *rand.Rand, all ...T) T { return all[r.IntN(len(all))] }

func addr(r *rand.Rand, v6 bool) netip.Addr {
	if v6 {
		return netip.MustParseAddr(pick(r, "2001:db8::1", "2001:db8::2", "::ffff:198.18.1.1"))
	}
	return netip.MustParseAddr(pick(r, "198.18.1.1", "198.18.1.2", "198.18.1.3"))
}

func flow(r *rand.Rand) ringcap.FlowKey {
	v6 := r.IntN(2) == 0
	return ringcap.FlowKey{
		Protocol: pick[uint8](r, unix.IPPROTO_TCP, unix.IPPROTO_UDP),
		A:        netip.AddrPortFrom(addr(r, v6), pick[uint16](r, 80, 443)), B: netip.AddrPortFrom(addr(r, v6), pick[uint16](r, 80, 443)),
	}
}

// packet makes packets with tags, fragments, header options, and cut ones.
func packet(r *rand.Rand) []byte {
	p := make([]byte, 12)
	for range pick(r, 0, 0, 0, 1, 2, 3) {
		p = be.AppendUint16(be.AppendUint16(p, pick[uint16](r, unix.ETH_P_8021Q, unix.ETH_P_8021AD, 0x9100)), 5)
	}
	k := flow(r)
	if k.A.Addr().Is4() {
		words := pick(r, 5, 5, 5, 6, 15, 4)
		ip := make([]byte, max(4*words, 20))
		ip[0], ip[9] = 0x40|byte(words), k.Protocol
		be.PutUint16(ip[6:], pick[uint16](r, 0, 0, 0x4000, 0x2000, 0x2001))
		copy(ip[12:], k.A.Addr().AsSlice())
		copy(ip[16:], k.B.Addr().AsSlice())
		p = append(be.AppendUint16(p, unix.ETH_P_IP), ip...)
	} else {
		ip := make([]byte, 40)
		ip[0], ip[6] = 0x60, k.Protocol
		copy(ip[8:], k.A.Addr().AsSlice())
		copy(ip[24:], k.B.Addr().AsSlice())
		p = append(be.AppendUint16(p, unix.ETH_P_IPV6), ip...)
	}
	p = be.AppendUint16(be.AppendUint16(p, k.A.Port()), k.B.Port())
	switch r.IntN(10) {
	case 0:
		be.PutUint16(p[12:], unix.ETH_P_ARP)
	case 1:
		p = p[:14+r.IntN(len(p)-14)]
	}
	return p
}

// TestAgainstUserSpace enters and deletes flows in both sets, and asks both
// about the same packets.
func TestAgainstUserSpace(t *testing.T) {
	netnstest.NeedRoot(t)
	kernel, err := flowbpf.New(100)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := kernel.Close(); err != nil {
			t.Error(err)
		}
	}()
	var user ringcap.FlowSet
	r := rand.New(rand.NewPCG(1, 2))
	matched := 0
	for i := range 6000 {
		k := flow(r)
		switch r.IntN(20) {
		case 0:
			snap := pick(r, 0, 64, 128)
			user.Set(k, pcapng.Tag{Snap: snap})
			if err := kernel.Set(k, uint32(snap)); err != nil {
				t.Fatal(err)
			}
		case 1:
			user.Delete(k)
			if err := kernel.Delete(k); err != nil {
				t.Fatal(err)
			}
		}
		p := packet(r)
		got, err := kernel.Run(p)
		if err != nil {
			t.Fatal(err)
		}
		want := verdict(t, &user, p)
		if got != want {
			t.Fatalf("packet %d: kernel %d, user space %d: %x", i, got, want, p)
		}
		if want != 0 {
			matched++
		}
	}
	if matched < 500 {
		t.Errorf("%d packets matched: the test tells nothing", matched)
	}
}

// verdict is what user space captures of a packet.
func verdict(t *testing.T, s *ringcap.FlowSet, p []byte) uint32 {
	t.Helper()
	var b tpacket.Block
	if ok, err := b.Load(tpackettest.Ring{}.Block(4096, tpackettest.Packet{Data: p}), false); !ok || err != nil {
		t.Fatal(ok, err)
	}
	for f := range b.Frames() {
		if tag, ok := s.Pick(f); ok {
			if tag.Snap == 0 {
				return 262144
			}
			return uint32(tag.Snap)
		}
	}
	return 0
}

// TestAttach captures on the loopback interface with the set as filter.
func TestAttach(t *testing.T) {
	netnstest.NeedRoot(t)
	set, err := flowbpf.New(10)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := ringcap.Open(ringcap.Config{
		Interface: "lo", BlockSize: 64 << 10, Blocks: 4, Direction: ringcap.In,
		Filter: []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ring.Close() }()
	if err := set.Attach(ring); err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	for range 2 {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("udp", pc.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _, _ = pc.Close(), c.Close() }()
		conns = append(conns, c)
	}
	key := ringcap.FlowKey{
		Protocol: unix.IPPROTO_UDP,
		A:        netip.MustParseAddrPort(conns[0].RemoteAddr().String()), B: netip.MustParseAddrPort(conns[0].LocalAddr().String()),
	}
	if err := set.Set(key, 64); err != nil {
		t.Fatal(err)
	}
	send := func() {
		for range 20 {
			for _, c := range conns {
				if _, err := c.Write(make([]byte, 500)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	send()
	if err := set.Delete(key); err != nil {
		t.Fatal(err)
	}
	send()
	// The ring keeps the program.
	if err := set.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n := 0
	for b, err := range ring.Blocks(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		for p := range b.Packets() {
			n++
			if len(p.Data()) != 64 || p.Len() != 542 {
				t.Errorf("%d bytes of %d captured, want 64 of 542", len(p.Data()), p.Len())
			}
		}
	}
	if n != 20 {
		t.Errorf("%d packets captured, want the 20 of the flow", n)
	}
}

func Example() {
	set, err := flowbpf.New(1000)
	if err != nil {
		return // no CAP_BPF: ringcap.FlowSet does the same
	}
	defer func() { _ = set.Close() }()
	err = set.Set(ringcap.FlowKey{
		Protocol: unix.IPPROTO_TCP,
		A:        netip.MustParseAddrPort("198.18.1.2:40000"), B: netip.MustParseAddrPort("203.0.113.10:443"),
	}, 128)
	if err != nil {
		fmt.Println(err)
	}
	// Output:
}
