package wire

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/packet"
)

// The addresses of all frames.
const (
	Source      = "203.0.113.77"
	Destination = "198.18.1.99"

	headers = packet.EthernetHeader + packet.IPv4Header + packet.UDPHeader
	port    = 9 // discard
)

// DestinationMAC and SourceMAC are locally administered.
var (
	DestinationMAC = [6]byte{2, 0, 0, 0, 0, 0x99}
	SourceMAC      = [6]byte{2, 't', 'p', 'r', 'o', 'x'}
)

// Payload is how many bytes of UDP a frame of the given size carries.
func Payload(size int) int { return size - headers }

// Frame makes one that is cut into so many of the given size, checksums included.
func Frame(size, segments int) []byte {
	f := make([]byte, headers+segments*Payload(size))
	copy(f, DestinationMAC[:])
	copy(f[6:], SourceMAC[:])
	binary.BigEndian.PutUint16(f[12:], unix.ETH_P_IP)
	ip := f[packet.EthernetHeader:]
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	src, dst := netip.MustParseAddr(Source).As4(), netip.MustParseAddr(Destination).As4()
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	udp := ip[packet.IPv4Header:]
	binary.BigEndian.PutUint16(udp, port)
	binary.BigEndian.PutUint16(udp[2:], port)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	for i := range udp[packet.UDPHeader:] {
		udp[packet.UDPHeader+i] = byte(i)
	}
	l, _ := packet.Parse(f)
	l.SetChecksums(f)
	return f
}
