package sys

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// MaxSegments is how many datagrams Extend puts into one message:
// UDP_MAX_SEGMENTS of the kernels before 6.9, which raised it to 128.
const MaxSegments = 64

// MaxRun is how many bytes they may have together: what fits an IPv4 packet.
const MaxRun = 65507

// Sender collects messages for one sendmmsg on one socket. It lends the data:
// that must stay as it is until the message was sent or given up. One thread
// uses it.
type Sender struct {
	headers []Message
	iovecs  []unix.Iovec
	to      []SockAddr
	control []byte // a UDP_SEGMENT control message each, prepared
	runs    []run
	used    int // iovecs
}

// run is one message: one datagram, or several of one size.
type run struct {
	first, pieces int // iovecs
	bytes         int
	segment       int // size of each datagram but the last; 0: one datagram
	datagrams     int
}

// segmentSpace is the room of a control message of an u16, on 64 bits.
const segmentSpace = 24

// NewSender makes room for that many messages, and for MaxSegments pieces of
// data beyond one for each.
func NewSender(messages int) *Sender {
	s := &Sender{
		headers: make([]Message, messages),
		iovecs:  make([]unix.Iovec, messages+MaxSegments),
		to:      make([]SockAddr, messages),
		control: make([]byte, messages*segmentSpace),
		runs:    make([]run, 0, messages),
	}
	for i := range messages {
		putCmsg(s.controlSlot(i), unix.SOL_UDP, unix.UDP_SEGMENT, 2)
	}
	return s
}

func (s *Sender) controlSlot(i int) []byte {
	return s.control[i*segmentSpace:][:segmentSpace:segmentSpace]
}

// Len is the number of messages collected.
func (s *Sender) Len() int { return len(s.runs) }

// Full says that no message can be added.
func (s *Sender) Full() bool { return len(s.runs) == cap(s.runs) || s.used == len(s.iovecs) }

// Reset forgets all messages.
func (s *Sender) Reset() {
	s.runs = s.runs[:0]
	s.used = 0
}

// Add adds a message to the address to, which is copied; nil on a connected
// socket. With a segment, data is a run of datagrams of that size, the last of
// which may be shorter; a run that came from the kernel is not too long for it.
// The Sender must not be Full.
func (s *Sender) Add(to *SockAddr, segment int, data []byte) {
	i := len(s.runs)
	if segment >= len(data) {
		segment = 0
	}
	r := run{first: s.used, pieces: 1, bytes: len(data), segment: segment, datagrams: 1}
	if segment > 0 {
		r.datagrams = (len(data) + segment - 1) / segment
	}
	s.runs = append(s.runs, r)
	s.piece(data)
	h := &s.headers[i].Hdr
	*h = unix.Msghdr{Iov: &s.iovecs[r.first]}
	h.SetIovlen(1)
	if to != nil {
		s.to[i] = *to
		h.Name = s.to[i].name()
		h.Namelen = to.len
	}
	s.setSegment(i)
}

// Extend appends data, as in Add a datagram or a run, to the last message, to
// be sent by UDP_SEGMENT. It returns false and does nothing if the datagrams
// would not come out as they went in, or the message would get too large: the
// sizes differ, the last one was shorter already, one is empty. The
// destination is the same; there must be a message.
func (s *Sender) Extend(segment int, data []byte) bool {
	i := len(s.runs) - 1
	r := s.runs[i]
	unit := segment // size of the datagrams in data
	count := 1
	if segment <= 0 || segment >= len(data) {
		unit = len(data)
	} else {
		count = (len(data) + segment - 1) / segment
	}
	size := r.segment
	if size == 0 {
		size = r.bytes
	}
	switch {
	case unit == 0 || size == 0, r.bytes%size != 0, // empty, or the end of the run was there
		unit > size, unit < size && count > 1,
		r.datagrams+count > MaxSegments, r.bytes+len(data) > MaxRun,
		s.used == len(s.iovecs):
		return false
	}
	s.piece(data)
	r.pieces++
	r.bytes += len(data)
	r.datagrams += count
	r.segment = size
	s.runs[i] = r
	s.headers[i].Hdr.SetIovlen(r.pieces)
	s.setSegment(i)
	return true
}

func (s *Sender) piece(data []byte) {
	s.iovecs[s.used] = Iovec(data)
	s.used++
}

// setSegment hands the kernel the run's segment size, if it has one.
func (s *Sender) setSegment(i int) {
	h := &s.headers[i].Hdr
	segment := s.runs[i].segment
	if segment == 0 {
		return
	}
	b := s.controlSlot(i)
	binary.NativeEndian.PutUint16(b[unix.SizeofCmsghdr:], uint16(segment))
	h.Control = &b[0]
	h.SetControllen(unix.CmsgSpace(2))
}

// Send sends the messages from first on without waiting, in as few calls as
// the kernel takes. sent is how many went; if not all, e is the answer to the
// next one, behind which the caller may go on. On a connected socket e may be
// the report of an earlier datagram (ECONNREFUSED and other ICMP errors): the
// same message can be tried again.
//
// EMSGSIZE: larger than the path allows; for a run, its datagrams are, and one
// by one they may be fragmented. EIO, EINVAL: this device or kernel cannot send
// this run; send its datagrams one by one (see [Sender.Datagrams]).
func (s *Sender) Send(fd, first int) (sent int, e Errno) {
	if first+1 == len(s.runs) && s.runs[first].pieces == 1 && s.runs[first].segment == 0 {
		if e := s.sendLast(fd); e != 0 {
			return 0, e
		}
		return 1, 0
	}
	for first+sent < len(s.runs) {
		n, e := SendMessages(fd, s.headers[first+sent:len(s.runs)])
		if e != 0 {
			return sent, e
		}
		sent += n
	}
	return sent, 0
}

// sendLast sends the last message, which is one datagram in one piece: short
// conversations consist of such, and there is a cheaper call for them.
func (s *Sender) sendLast(fd int) Errno {
	i := len(s.runs) - 1
	var to *SockAddr
	if s.headers[i].Hdr.Name != nil {
		to = &s.to[i]
	}
	return SendTo(fd, to, iovecData(&s.iovecs[s.runs[i].first]))
}

// To is the destination of message i; only if it was given one.
func (s *Sender) To(i int) *SockAddr { return &s.to[i] }

// Count is the number of datagrams in message i.
func (s *Sender) Count(i int) int { return s.runs[i].datagrams }

// Segment is the size of the datagrams of message i if they are sent by
// UDP_SEGMENT, else 0.
func (s *Sender) Segment(i int) int { return s.runs[i].segment }

// Datagrams goes through the datagrams of message i one by one.
func (s *Sender) Datagrams(i int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		r := s.runs[i]
		for j := range r.pieces {
			// A piece always begins with a new datagram.
			data := iovecData(&s.iovecs[r.first+j])
			for r.segment > 0 && len(data) > r.segment {
				if !yield(data[:r.segment:r.segment]) {
					return
				}
				data = data[r.segment:]
			}
			if !yield(data) {
				return
			}
		}
	}
}
