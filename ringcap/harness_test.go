package ringcap_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/tpacket"
	"github.com/tproxyd/tproxyd/ringcap"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// packet is a copy of a captured one.
type packet struct {
	data []byte
	len  int
	out  bool
	vlan tpacket.VLAN
	vnet tpacket.VNet
	time time.Time
}

// capture reads a ring until it is stopped.
type capture struct {
	t    *testing.T
	ring *ringcap.Ring
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	packets []packet
	err     error
}

func open(t *testing.T, cfg ringcap.Config) *ringcap.Ring {
	t.Helper()
	if cfg.Interface == "" {
		cfg.Interface = lab.ClientLink
	}
	if cfg.BlockSize == 0 {
		cfg.BlockSize, cfg.Blocks = 256<<10, 16
	}
	r, err := ringcap.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func start(t *testing.T, cfg ringcap.Config) *capture {
	t.Helper()
	c := &capture{t: t, ring: open(t, cfg)}
	ctx, cancel := context.WithCancel(t.Context())
	c.stop = cancel
	c.wg.Go(func() { c.read(ctx) })
	t.Cleanup(func() { cancel(); c.wg.Wait() })
	return c
}

func (c *capture) read(ctx context.Context) {
	for b, err := range c.ring.Blocks(ctx) {
		c.mu.Lock()
		c.err = errors.Join(c.err, err)
		if b != nil {
			for p := range b.Packets() {
				c.packets = append(c.packets, clone(p))
			}
		}
		c.mu.Unlock()
	}
}

func clone(p ringcap.Packet) packet {
	out := packet{data: append([]byte(nil), p.Data()...), len: p.Len(), out: p.Outgoing(), time: p.Time()}
	out.vlan, _ = p.VLAN()
	out.vnet, _ = p.VNet()
	return out
}

// count is how many packets match so far.
func (c *capture) count(match func(packet) bool) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, p := range c.packets {
		if match(p) {
			n++
		}
	}
	return n
}

// end stops the capture and returns everything in it.
func (c *capture) end() []packet {
	c.t.Helper()
	c.stop()
	c.wg.Wait()
	if c.err != nil {
		c.t.Errorf("capture: %v", c.err)
	}
	exact(c.t, c.ring)
	return c.packets
}

// exact checks that every packet is accounted for.
func exact(t *testing.T, r *ringcap.Ring) ringcap.Stats {
	t.Helper()
	s, err := r.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if s.Packets-s.Drops != s.Taken {
		t.Errorf("%d packets less %d drops are not %d taken", s.Packets, s.Drops, s.Taken)
	}
	return s
}

// udpTo says whether a packet is a datagram to a port, of either family.
func udpTo(port uint16) func(packet) bool {
	return func(p packet) bool {
		at := 14 + 20
		switch {
		case len(p.data) < 14+40+8:
			if len(p.data) < at+8 {
				return false
			}
			fallthrough
		case p.data[12] == 0x08 && p.data[13] == 0:
			if p.data[12] != 0x08 || p.data[13] != 0 || p.data[23] != unix.IPPROTO_UDP {
				return false
			}
		case p.data[12] == 0x86 && p.data[13] == 0xdd:
			if at = 14 + 40; p.data[20] != unix.IPPROTO_UDP {
				return false
			}
		default:
			return false
		}
		return binary.BigEndian.Uint16(p.data[at+2:]) == port
	}
}

// sender is a connected UDP socket of the client towards the proxy.
func sender(t *testing.T, l *lab.Lab, address string) net.Conn {
	t.Helper()
	// Somebody listens, or the answers would be errors to the sender.
	pc, err := l.Proxy.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Client.Dial(t.Context(), "udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.Close(), pc.Close() })
	return c
}

func send(t *testing.T, c net.Conn, n, size int) {
	t.Helper()
	b := make([]byte, size)
	for i := range n {
		binary.BigEndian.PutUint32(b, uint32(i))
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
	}
}
