package load

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// outbox collects datagrams for one sendmmsg(2). Each may have a source address
// of its own (IP_PKTINFO, ip(7)), so that one socket sends as thousands of
// hosts, and may be a run of datagrams that the kernel cuts (UDP_SEGMENT,
// udp(7)).
type outbox struct {
	headers  []mmsghdr
	iovecs   []unix.Iovec
	names    []unix.RawSockaddrInet4
	controls [][]byte
	n        int
}

var (
	infoSpace    = unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	segmentSpace = unix.CmsgSpace(2)
)

func newOutbox(size int) *outbox {
	o := &outbox{
		headers: make([]mmsghdr, size), iovecs: make([]unix.Iovec, size),
		names: make([]unix.RawSockaddrInet4, size), controls: make([][]byte, size),
	}
	for i := range o.headers {
		o.controls[i] = make([]byte, infoSpace+segmentSpace)
		o.link(i)
	}
	return o
}

func (o *outbox) full() bool { return o.n == len(o.headers) }

// add puts one message into an outbox that is not full. The data is not copied.
// A zero from leaves the source address to the kernel; a segment of 0 is one
// datagram.
func (o *outbox) add(from netip.Addr, to netip.AddrPort, segment int, data []byte) {
	o.names[o.n] = rawAddr(to)
	o.iovecs[o.n].Base = &data[0]
	o.iovecs[o.n].SetLen(len(data))
	control := o.controls[o.n][:0]
	if from.IsValid() {
		control = control[:infoSpace]
		clear(control)
		putCmsg(control, unix.SOL_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		source := from.As4()
		copy(control[unix.CmsgLen(4):], source[:]) // ipi_spec_dst, behind ipi_ifindex
	}
	if segment > 0 {
		at := len(control)
		control = control[:at+segmentSpace]
		putCmsg(control[at:], unix.SOL_UDP, unix.UDP_SEGMENT, 2)
		binary.NativeEndian.PutUint16(control[at+unix.CmsgLen(0):], uint16(segment))
	}
	o.setControl(o.n, len(control))
	o.n++
}

// flush sends everything, and waits where the socket's buffer is full.
func (o *outbox) flush(fd int) error {
	for done := 0; done < o.n; {
		n, e := o.send(fd, done)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			first := o.n - done
			o.n = 0
			return fmt.Errorf("%d datagrams were not sent: %w", first, os.NewSyscallError("sendmmsg", e))
		}
		done += n
	}
	o.n = 0
	return nil
}
