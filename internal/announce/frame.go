package announce

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/packet"
)

// Frame is the announcement that ip is at mac, as an Ethernet frame. router
// sets the Router flag of IPv6, without which hosts stop using the address as
// their default router; it has to be what the host's other advertisements say.
func Frame(mac net.HardwareAddr, ip netip.Addr, router bool) []byte {
	if ip = ip.Unmap(); ip.Is4() {
		return arp(mac, ip)
	}
	return advertisement(mac, ip.WithZone(""), router)
}

// arp is an ARP announcement (RFC 5227, 3; the packet of RFC 826).
func arp(mac net.HardwareAddr, ip netip.Addr) []byte {
	f := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	f = append(f, mac...)
	f = binary.BigEndian.AppendUint16(f, unix.ETH_P_ARP)
	f = append(f, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, request
	f = append(append(f, mac...), ip.AsSlice()...)
	f = append(append(f, make([]byte, 6)...), ip.AsSlice()...)
	return append(f, make([]byte, minFrame-len(f))...)
}

// minFrame is the shortest Ethernet frame without its check sequence.
const minFrame = 60

// allNodes is ff02::1 and the Ethernet address that it is sent to (RFC 2464, 7).
var (
	allNodes    = netip.MustParseAddr("ff02::1")
	allNodesMAC = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
)

const (
	typeAdvertisement = 136
	flagRouter        = 0x80
	flagOverride      = 0x20
	optionTarget      = 2 // target link-layer address, of 8 bytes
	advertisementSize = 32
)

// advertisement is an unsolicited neighbour advertisement (RFC 4861, 4.4 and
// 7.2.6). It comes from the address itself, which this host has as its own.
func advertisement(mac net.HardwareAddr, ip netip.Addr, router bool) []byte {
	f := append(append([]byte(nil), allNodesMAC...), mac...)
	f = binary.BigEndian.AppendUint16(f, unix.ETH_P_IPV6)
	f = append(f, 0x60, 0, 0, 0)
	f = binary.BigEndian.AppendUint16(f, advertisementSize)
	f = append(f, unix.IPPROTO_ICMPV6, 255) // 255: from no other link (RFC 4861, 7.1.2)
	f = append(append(f, ip.AsSlice()...), allNodes.AsSlice()...)
	flags := byte(flagOverride)
	if router {
		flags |= flagRouter
	}
	f = append(f, typeAdvertisement, 0, 0, 0, flags, 0, 0, 0)
	f = append(f, ip.AsSlice()...)
	f = append(append(f, optionTarget, 1), mac...)
	l, _ := packet.Parse(f)
	l.SetChecksums(f)
	return f
}
