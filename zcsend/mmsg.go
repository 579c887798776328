package zcsend

import (
	"github.com/tproxyd/tproxyd/internal/sys"
)

// mmsg sends by sys.SendMessages(2) from the caller's memory. With a virtio header
// before each frame it takes super-frames.
type mmsg struct {
	packetSocket

	messages []sys.Message
	iovecs   []iovecPair
	vnet     []vnetHeader
	super    bool

	first, end int // queued: messages[first:end]

	// For Reserve: one piece for each message of a batch, as it has to stay
	// until it is sent.
	scratch []byte
	piece   int
}

func openMMsg(dev *device, cfg *Config) (engine, error) {
	socket, err := openPacketSocket(cfg)
	if err != nil {
		return nil, err
	}
	m := &mmsg{
		packetSocket: socket,
		messages:     make([]sys.Message, cfg.Batch),
		iovecs:       make([]iovecPair, cfg.Batch),
		vnet:         make([]vnetHeader, cfg.Batch),
		super:        cfg.Method == GSO,
		piece:        dev.longest(true),
	}
	if m.super {
		m.piece = maxSuper
	}
	for i := range m.messages {
		pair := m.iovecs[i][:]
		pair[0] = sys.Iovec(m.vnet[i][:])
		if !m.super {
			pair = pair[1:]
		}
		m.messages[i].Hdr.Iov = &pair[0]
		m.messages[i].Hdr.SetIovlen(len(pair))
	}
	if err := m.rebind(dev.index); err != nil {
		sys.Close(socket.fd)
		return nil, err
	}
	m.buffer(cfg.RingBytes)
	return m, nil
}

func (m *mmsg) reserve(n int) []byte {
	if m.first == m.end {
		m.first, m.end = 0, 0
	}
	if m.end == len(m.messages) || n > m.piece {
		return nil
	}
	if m.scratch == nil {
		if n == 0 {
			return []byte{} // only asked whether there is room
		}
		m.scratch = make([]byte, m.piece*len(m.messages))
	}
	at := m.end * m.piece
	return m.scratch[at : at+n : at+n]
}

func (m *mmsg) commit(data []byte, vnet vnetHeader) error {
	m.vnet[m.end] = vnet
	m.iovecs[m.end][1] = sys.Iovec(data)
	m.end++
	return nil
}

func (m *mmsg) flush() (taken, bytes int, e sys.Errno) {
	for m.first < m.end {
		n, e := sys.SendMessages(m.fd, m.messages[m.first:m.end])
		if e != 0 {
			return taken, bytes, e
		}
		for i := m.first; i < m.first+n; i++ {
			bytes += int(m.messages[i].N)
			if m.super {
				bytes -= vnetSize
			}
		}
		taken += n
		m.first += n
	}
	m.forget()
	return taken, bytes, 0
}

// forget lets go of the caller's memory.
func (m *mmsg) forget() {
	for i := range m.iovecs[:m.end] {
		m.iovecs[i][1].Base = nil
	}
	m.first, m.end = 0, 0
}

func (m *mmsg) drop(n int) {
	m.first += n
	if m.first == m.end {
		m.forget()
	}
}

func (m *mmsg) queued() int   { return m.end - m.first }
func (m *mmsg) inFlight() int { return 0 }
func (m *mmsg) borrows() bool { return true }
func (m *mmsg) call() string  { return "sendmmsg" }

func (m *mmsg) close() error {
	sys.Close(m.fd)
	return nil
}
