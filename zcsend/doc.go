// Package zcsend sends Ethernet frames by one interface, by the way that suits
// the interface and the frames.
//
//	method      system calls        copies of the payload by the CPU
//	ring        1 for a batch       none up to the driver of a real device;
//	                                one, in the kernel, on veth, lo and tun
//	mmsg        1 for a batch       one, into the kernel
//	gso         1 for a batch       one, for a super-frame of up to 64 KiB
//	splice-udp  2 for a packet      none, whatever the device
//	splice-raw  2 for a packet      one, into the kernel
//
// That is, besides the copy into the memory of the ring or arena, which
// [Sender.Send] makes and [Sender.Reserve] saves. What of this is true on the
// kernel and interface at hand, [Probe] finds out by trying.
//
// # What is true of zero-copy
//
// PACKET_TX_RING attaches the pages of the ring to the packet; only the
// Ethernet header is copied (tpacket_fill_skb()). A device whose packets
// outlive the call on this host (veth, lo, tun, a bridge's own stack) copies
// them out of the ring again (skb_orphan_frags(), skb_copy_ubufs()), which makes
// the ring slower there than sendmmsg. A tap, such as tcpdump, makes the kernel
// copy them too.
//
// vmsplice to a pipe and splice to a socket hands UDP and TCP sockets the very
// pages (MSG_SPLICE_PAGES, Linux 6.5; sendpage before). A raw socket copies
// them like any other data: raw_send_hdrinc() by memcpy, and before 6.5 by
// having no sendpage. So splice-raw is not zero-copy, on any kernel, and with
// two calls for each packet is the slowest method; it is here because it sends
// what no other routed way can, any packet from any source.
//
// What saves most is not a copy but a packet: one super-frame costs the path
// through the kernel once for up to 64 KiB. Devices that cannot cut it have the
// kernel do so at the last moment.
//
// # Invariants
//
//   - Every frame is counted once: sent, in flight, queued or refused (Stats).
//   - Memory that the kernel was given by reference is not written again before
//     the kernel says so (ring), or never (splice: see arena.go).
//   - The splice methods are routed: the kernel finds the next hop and makes the
//     Ethernet header, so that the frame's own is not used; splice-udp also makes
//     the IP and UDP headers. They need a route over the interface.
//   - Sending a frame allocates nothing, once a destination of the splice methods
//     has its socket. Refusing one may.
//
// When the link goes down everything is refused with [ErrLinkDown] until it is
// up again; nothing old is sent then. An interface that was removed is looked
// for again by its name.
//
// References: packet(7), Documentation/networking/packet_mmap.rst, sendmmsg(2),
// vmsplice(2), splice(2), raw(7), linux/virtio_net.h.
package zcsend
