package sys

import "golang.org/x/sys/unix"

// MaxDatagram is the size of a Receiver's slot: more than the largest UDP
// payload (65,507 over IPv4, 65,527 over IPv6) and than any run that UDP_GRO
// makes.
const MaxDatagram = 1 << 16

// slotStride keeps the beginnings of slots out of each other's cache sets: at
// a distance of exactly 64 KiB, all of them would share one.
const slotStride = MaxDatagram + 256

// Receiver is memory for recvmmsg: slots of 64 KiB, each with the sender's
// address and control messages. One thread uses it.
type Receiver struct {
	headers []Message
	iovecs  []unix.Iovec
	from    []SockAddr
	control []byte
	data    []byte
	dirty   int // headers below were written by the kernel
}

// NewReceiver makes room for slots datagrams, or GRO runs, at a time. Pages
// that no datagram has reached take no memory.
func NewReceiver(slots int) *Receiver {
	r := &Receiver{
		headers: make([]Message, slots),
		iovecs:  make([]unix.Iovec, slots),
		from:    make([]SockAddr, slots),
		control: make([]byte, slots*controlSpace),
		data:    make([]byte, slots*slotStride),
	}
	for i := range slots {
		r.iovecs[i] = Iovec(r.slot(i))
		h := &r.headers[i].Hdr
		h.Iov = &r.iovecs[i]
		h.SetIovlen(1)
		h.Name = r.from[i].name()
		h.Control = &r.controlSlot(i)[0]
		r.reset(i)
	}
	return r
}

func (r *Receiver) slot(i int) []byte { return r.data[i*slotStride:][:MaxDatagram:MaxDatagram] }

func (r *Receiver) controlSlot(i int) []byte {
	return r.control[i*controlSpace:][:controlSpace:controlSpace]
}

// reset gives the kernel back the full lengths, which it overwrites with what
// it used.
func (r *Receiver) reset(i int) {
	h := &r.headers[i].Hdr
	h.Namelen = unix.SizeofSockaddrInet6
	h.SetControllen(controlSpace)
}

// Slots is the number of slots.
func (r *Receiver) Slots() int { return len(r.headers) }

// Receive takes what fd has, into the slots from first on, without waiting.
// Fewer than there are slots left means that the queue was empty, or that an
// error came in between, which then is the answer to the next call: an ICMP
// error of a connected socket (ECONNREFUSED and others) is reported once, and
// datagrams behind it are still there.
func (r *Receiver) Receive(fd, first int) (int, Errno) {
	for i := first; i < r.dirty; i++ {
		r.reset(i)
	}
	r.dirty = min(r.dirty, first)
	n, e := recvmmsg(fd, r.headers[first:])
	if e != 0 {
		return 0, e
	}
	for i := first; i < first+n; i++ {
		r.from[i].len = r.headers[i].Hdr.Namelen
	}
	r.dirty = first + n
	return n, 0
}

// Data is the content of slot i, lent until the slot is used again.
func (r *Receiver) Data(i int) []byte { return r.slot(i)[:min(r.headers[i].N, MaxDatagram)] }

// From is the sender of slot i, lent until the slot is used again.
func (r *Receiver) From(i int) *SockAddr { return &r.from[i] }

// Control reads the control messages of slot i.
func (r *Receiver) Control(i int) Control {
	h := &r.headers[i].Hdr
	c := Control{Truncated: h.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0}
	c.parse(r.controlSlot(i)[:min(int(h.Controllen), controlSpace)])
	if c.Segment >= int(r.headers[i].N) {
		c.Segment = 0
	}
	return c
}
