package load

import (
	"errors"
	"net/netip"
	"testing"
)

func TestDatagram(t *testing.T) {
	p := newPattern()
	want := datagram{epoch: 7, flow: 999, port: 40000, kind: kindQuery, seq: maxNumber - 1}
	b := make([]byte, 200)
	want.put(b, p)
	got, err := parseDatagram(b, len(b), p)
	if err != nil || got != want {
		t.Errorf("parsed %+v, %v, want %+v", got, err, want)
	}
	for _, tt := range []struct {
		name string
		d    datagram
	}{
		{"flow", datagram{flow: maxFlows}},
		{"number", datagram{seq: maxNumber}},
		{"kind", datagram{kind: kindReply + 1}},
	} {
		tt.d.put(b, p)
		if _, err := parseDatagram(b, len(b), p); !errors.Is(err, errForeignDatagram) {
			t.Errorf("%s out of bounds: error = %v, want %v", tt.name, err, errForeignDatagram)
		}
	}
}

// Whatever is done to a datagram shows.
func TestDatagramDamage(t *testing.T) {
	p := newPattern()
	b := make([]byte, 100)
	datagram{epoch: 1, seq: 5}.put(b, p)
	for i := range b {
		if i >= 4 && i < 16 {
			continue // epoch, flow, port and kind are compared with what is expected
		}
		b[i] ^= 0x80
		if _, err := parseDatagram(b, len(b), p); err == nil {
			t.Errorf("a flipped bit in byte %d goes unnoticed", i)
		}
		b[i] ^= 0x80
	}
	for _, n := range []int{0, 1, datagramHeader - 1, datagramHeader, 99} {
		if _, err := parseDatagram(b[:n], len(b), p); err == nil {
			t.Errorf("a datagram cut to %d bytes goes unnoticed", n)
		}
	}
	if _, err := parseDatagram(append(b, 0), len(b), p); err == nil {
		t.Error("a datagram with a byte more goes unnoticed")
	}
}

func FuzzParseDatagram(f *testing.F) {
	p := newPattern()
	b := make([]byte, MinDatagram+8)
	datagram{epoch: 1, flow: 2, port: 3, kind: kindReply, seq: 4}.put(b, p)
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseDatagram(b, len(b), p)
		if err != nil {
			return
		}
		again := make([]byte, len(b))
		d.put(again, p)
		if string(again) != string(b) {
			t.Errorf("%x parsed as %+v, which is %x", b, d, again)
		}
	})
}

// No two sources are the same, all are in the range, and those in a row share
// a socket.
func TestPlaces(t *testing.T) {
	for _, hosts := range []int{1, 30, 254, 4000} {
		c := &DatagramClient{
			cfg:   DatagramConfig{Sources: netip.MustParsePrefix("198.18.16.0/20")},
			hosts: hosts, sockets: make([]*datagramSocket, manyPorts),
		}
		type place struct {
			addr   netip.Addr
			socket int
		}
		seen := map[place]bool{}
		last, changes := -1, 0
		for id := range hosts * manyPorts {
			addr, socket := c.place(id)
			if !c.cfg.Sources.Contains(addr) || addr == c.cfg.Sources.Addr() || seen[place{addr, socket}] {
				t.Fatalf("%d hosts: source %d is %s of socket %d: outside, or there already", hosts, id, addr, socket)
			}
			seen[place{addr, socket}] = true
			if socket != last {
				last, changes = socket, changes+1
			}
		}
		if most := manyPorts * (hosts/portRun + 2); changes > most {
			t.Errorf("%d hosts: %d changes of the socket, want at most %d", hosts, changes, most)
		}
	}
}
