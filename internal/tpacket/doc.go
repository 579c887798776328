// Package tpacket knows the memory of the rings of packet(7): sizes, offsets,
// status words. It makes no system call.
//
// A receive ring of version 3 is an array of blocks. The kernel fills one after
// the other with frames of various lengths and gives each away as a whole:
//
//	block                                          written by
//	  0  version                                   kernel, once
//	  4  offset_to_priv                            kernel, once
//	  8  block_status   KERNEL (0) or USER (bit 0) both: the ownership word
//	 12  num_pkts                                  kernel while it owns
//	 16  offset_to_first_pkt                       kernel while it owns
//	 20  blk_len, 24 seq_num, 32 times             kernel while it owns
//	frame, 8-byte aligned, at offset_to_first_pkt and then tp_next_offset on
//	  0  tpacket3_hdr (48 bytes)
//	 48  sockaddr_ll (20 bytes)
//	     PACKET_RESERVE bytes, padding
//	     virtio_net_hdr (10 bytes), with PACKET_VNET_HDR
//	tp_mac  the packet, tp_snaplen bytes
//
// Invariants:
//   - The status word is loaded and stored atomically, and nothing else of a
//     block is read before it says USER: [Load] is the only way in. After
//     [Block.Release] nothing of it is read.
//   - Every offset and length is checked in 64-bit arithmetic before it is
//     used. Bytes that make no sense end the walk with an error in [Block.Err],
//     never with a panic or a read outside of the block.
//   - A frame whose tp_status lacks TP_STATUS_USER is skipped. With
//     PACKET_VNET_HDR the kernel counts a slot before it finds out that it
//     cannot describe the packet, and leaves stale bytes in it.
//   - Data is lent: a [Frame] is good until its block is released.
//   - unsafe is in files named *_unsafe.go, which hold casts and no decisions.
//
// References: packet(7); Documentation/networking/packet_mmap.rst;
// include/uapi/linux/if_packet.h; net/packet/af_packet.c (tpacket_rcv,
// prb_fill_curr_block, prb_close_block).
package tpacket
