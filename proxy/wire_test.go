package proxy

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The flags of a TCP segment.
const (
	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
)

// segment is one TCP segment that has SYN, FIN or RST.
type segment struct {
	src, dst netip.AddrPort
	flags    byte
	seq      uint32 // of its first byte
	length   int    // of its payload
}

// wire sees the segments with SYN, FIN or RST on one of the proxy's links.
type wire struct {
	mu   sync.Mutex
	seen []segment
}

// watchWire listens to a link of the proxy until the test is over.
func (b *bed) watchWire(t *testing.T, link string) *wire {
	t.Helper()
	f, err := packetSocket(b.Proxy, link)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 256)
		for {
			n, err := f.Read(buf)
			if err != nil {
				return
			}
			if s, ok := parseSegment(buf[:n]); ok {
				w.mu.Lock()
				w.seen = append(w.seen, s)
				w.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return w
}

// from returns the segments seen that src sent to dst.
func (w *wire) from(src, dst netip.AddrPort) []segment {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []segment
	for _, s := range w.seen {
		if s.src == src && s.dst == dst {
			all = append(all, s)
		}
	}
	return all
}

// count is the number of segments from src to dst with all of flags.
func (w *wire) count(src, dst netip.AddrPort, flags byte) int {
	n := 0
	for _, s := range w.from(src, dst) {
		if s.flags&flags == flags {
			n++
		}
	}
	return n
}

// packetSocket opens a socket that sees the network headers of TCP segments
// with SYN, FIN or RST, in both directions (packet(7)).
func packetSocket(h *lab.Host, link string) (*os.File, error) {
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtProto},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IPV6, SkipTrue: 6},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IP, SkipTrue: 10},
		bpf.LoadAbsolute{Off: 9, Size: 1}, // protocol
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_TCP, SkipTrue: 8},
		bpf.LoadMemShift{Off: 0}, // length of the IPv4 header
		bpf.LoadIndirect{Off: 13, Size: 1},
		bpf.Jump{Skip: 3},
		bpf.LoadAbsolute{Off: 6, Size: 1}, // next header
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_TCP, SkipTrue: 3},
		bpf.LoadAbsolute{Off: 40 + 13, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: flagFIN | flagSYN | flagRST, SkipTrue: 1},
		bpf.RetConstant{Val: 128},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return nil, err
	}
	program := make([]unix.SockFilter, len(filter))
	for i, r := range filter {
		program[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	var f *os.File
	err = h.Do(func() error {
		ifi, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		// Protocol 0 receives nothing until bind says what, behind the filter.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket(AF_PACKET)", err)
		}
		f = os.NewFile(uintptr(fd), "packet socket")
		fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &fprog); err != nil {
			return os.NewSyscallError("setsockopt(SO_ATTACH_FILTER)", err)
		}
		all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
		return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifi.Index}))
	})
	if err != nil && f != nil {
		_ = f.Close()
	}
	return f, err
}

// parseSegment reads a packet from its network header on.
func parseSegment(b []byte) (segment, bool) {
	var s segment
	var src, dst netip.Addr
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		header := int(b[0]&15) * 4
		src, dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		s.length = int(binary.BigEndian.Uint16(b[2:])) - header
		b = b[min(header, len(b)):]
	case len(b) >= 40 && b[0]>>4 == 6:
		src, dst = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		s.length = int(binary.BigEndian.Uint16(b[4:]))
		b = b[40:]
	}
	if len(b) < 20 {
		return s, false
	}
	s.src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(b))
	s.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:]))
	s.seq = binary.BigEndian.Uint32(b[4:])
	s.length -= int(b[12]>>4) * 4
	s.flags = b[13]
	return s, true
}
