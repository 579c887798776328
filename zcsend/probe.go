package zcsend

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/packet"
	"github.com/tproxyd/tproxyd/internal/sys"
)

// Result is what Probe found out about a method.
type Result string

// The results. A method is ByReference when writing to the memory after
// sending changed what arrived, and Copied when it did not.
const (
	Copied       Result = "copied"
	ByReference  Result = "by-reference"
	NotSupported Result = "not-supported"
	// Unknown is only said of Ring on an interface whose other end cannot be
	// looked at: the tap that is used instead makes the kernel copy.
	Unknown Result = "unknown"
)

// Report is what Probe says about one method.
type Report struct {
	Method Method `json:"method"`
	Result Result `json:"result"`
	Detail string `json:"detail,omitempty"`
}

const (
	probeSize = 1024 // of the payload
	before    = 0x11 // what is sent
	after     = 0xee // what is written over it
)

// probeWait is how long a probe's packet may take.
const probeWait = 5 * time.Second

// The addresses of a probe's packets: to all hosts of the link, which takes no
// neighbour to be asked for, from an address for benchmarks (RFC 2544), to the
// discard port.
var (
	probeFrom = netip.MustParseAddrPort("198.18.255.254:9")
	probeTo   = netip.MustParseAddrPort("255.255.255.255:9")
)

// Probe finds out for each method whether the kernel copies what is sent by an
// interface: it sends a broadcast datagram, writes over its memory at once, and
// looks at what arrives. On a veth whose peer is in the same network namespace
// it looks there, and otherwise at a tap of the interface itself. The error is
// about looking; what a method cannot do is in its Report.
func Probe(ctx context.Context, device string) ([]Report, error) {
	w, err := openWitness(device)
	if err != nil {
		return nil, fmt.Errorf("probe %s: %w", device, err)
	}
	defer w.close()
	var reports []Report
	for _, m := range Methods() {
		r := probe(ctx, device, m, w, func() {})
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("probe %s: %w", device, err)
		}
		reports = append(reports, r)
	}
	return reports, nil
}

// probe tries one method. overwritten is called after the memory was written
// to again.
func probe(ctx context.Context, device string, m Method, w *witness, overwritten func()) Report {
	s, err := Open(Config{Interface: device, Method: m, RingBytes: 256 << 10})
	if err != nil {
		return Report{m, NotSupported, err.Error()}
	}
	defer func() { _ = s.Close() }()
	w.number++
	frame := probeFrame(w.number)
	room, err := s.Reserve(ctx, len(frame))
	if err == nil {
		copy(room, frame)
		err = s.Commit(Frame{Data: room, Checksum: true})
	}
	if err == nil {
		err = s.Flush(ctx)
	}
	if err != nil {
		return Report{m, NotSupported, err.Error()}
	}
	fill(room[len(frame)-probeSize+probeMark:], after)
	overwritten()
	payload, err := w.wait(ctx)
	if err != nil {
		return Report{m, NotSupported, err.Error()}
	}
	return judge(m, payload, w)
}

// judge compares what arrived with what was sent and what was written later.
func judge(m Method, payload []byte, w *witness) Report {
	changed := bytes.Count(payload, []byte{after})
	switch {
	case len(payload) == changed:
		return Report{m, ByReference, "a write after sending changed what " + w.where}
	case changed > 0:
		return Report{m, ByReference, fmt.Sprintf("a write after sending changed %d of %d bytes that %s", changed, len(payload), w.where)}
	case m == Ring && w.own:
		return Report{m, Unknown, "the tap that looks makes the kernel copy what is in a ring"}
	}
	return Report{m, Copied, "a write after sending did not change what " + w.where}
}

func fill(b []byte, c byte) {
	for i := range b {
		b[i] = c
	}
}

// probeMark is the size of what a probe's payload begins with, to know it by,
// and which is not written over.
const probeMark = 16

func probeFrame(number uint64) []byte {
	f := bytes.Repeat([]byte{0xff}, 6)
	f = append(f, 2, 0, 0, 0, 0, 1) // locally administered
	f = binary.BigEndian.AppendUint16(f, unix.ETH_P_IP)
	f = append(f, 0x45, 0)
	f = binary.BigEndian.AppendUint16(f, packet.IPv4Header+packet.UDPHeader+probeSize)
	f = append(f, 0, 1, 0x40, 0, 1, unix.IPPROTO_UDP, 0, 0)
	f = append(append(f, probeFrom.Addr().AsSlice()...), probeTo.Addr().AsSlice()...)
	f = binary.BigEndian.AppendUint16(f, probeFrom.Port())
	f = binary.BigEndian.AppendUint16(f, probeTo.Port())
	f = binary.BigEndian.AppendUint16(f, packet.UDPHeader+probeSize)
	f = append(f, 0, 0)
	f = append(f, mark(number)...)
	return append(f, bytes.Repeat([]byte{before}, probeSize-probeMark)...)
}

func mark(number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte("tproxyd "), number)
}

// witness sees what arrives.
type witness struct {
	fd     int
	own    bool   // it is a tap of the sending interface
	where  string // for details
	number uint64 // of the probe that is waited for
	buf    []byte
}

func openWitness(device string) (*witness, error) {
	index, own, err := farEnd(device)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket(AF_PACKET)", err)
	}
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index, Protocol: all}); err != nil {
		sys.Close(fd)
		return nil, os.NewSyscallError("bind(AF_PACKET)", err)
	}
	w := &witness{fd: fd, own: own, where: "arrived at the other end", buf: make([]byte, 2048)}
	if own {
		w.where = "a tap of the interface saw"
	}
	return w, nil
}

// farEnd is the index of a veth's peer, or the interface's own.
func farEnd(device string) (index int, own bool, err error) {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return 0, false, fmt.Errorf("find interface: %w", err)
	}
	a := link.Attrs()
	if a.Flags&net.FlagUp == 0 {
		return 0, false, ErrLinkDown
	}
	if link.Type() == "veth" && a.NetNsID < 0 {
		if peer, err := netlink.LinkByIndex(a.ParentIndex); err == nil && peer.Type() == "veth" &&
			peer.Attrs().ParentIndex == a.Index && peer.Attrs().Flags&net.FlagUp != 0 {
			return peer.Attrs().Index, false, nil
		}
	}
	return a.Index, true, nil
}

func (w *witness) close() { sys.Close(w.fd) }

// wait returns the payload of the probe's packet behind its mark.
func (w *witness) wait(ctx context.Context) ([]byte, error) {
	deadline := time.Now().Add(probeWait)
	for {
		n, _, err := unix.Recvfrom(w.fd, w.buf, 0)
		switch {
		case err == nil:
			if b := w.buf[:n]; bytes.Contains(b, mark(w.number)) {
				return w.payload(b)
			}
			continue
		case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR):
			return nil, os.NewSyscallError("recvfrom(AF_PACKET)", err)
		case time.Now().After(deadline):
			return nil, fmt.Errorf("nothing arrived within %v", probeWait)
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
		fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, 50); err != nil && !errors.Is(err, unix.EINTR) {
			return nil, os.NewSyscallError("poll", err)
		}
	}
}

func (w *witness) payload(frame []byte) ([]byte, error) {
	l, _ := packet.Parse(frame)
	if l.Payload == 0 || l.End-l.Payload != probeSize {
		return nil, fmt.Errorf("what arrived is not what was sent: %d bytes", len(frame))
	}
	return frame[l.Payload+probeMark : l.End], nil
}
