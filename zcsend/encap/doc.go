// Package encap puts Ethernet frames into IP packets for a collector far away:
// in VXLAN, GRE or ERSPAN, over IPv4 or IPv6. It is pure.
//
//	vxlan   IP, UDP to port 4789, VXLAN with a network identifier of 24 bits
//	gre     IP, GRE with a key, protocol 0x6558 (transparent Ethernet bridging)
//	erspan  IP, GRE with a sequence number, ERSPAN type II with a session
//
// Invariants:
//   - What is yielded has right lengths and checksums. UDP has no checksum over
//     IPv4, as RFC 7348 wants it, and a right one over IPv6, without which
//     receivers drop.
//   - A packet longer than the path takes is yielded as fragments, which the
//     receiver's IP puts together again. Nothing is cut off.
//   - The frame is not copied and not changed: its parts are yielded as they lie.
//
// References: RFC 7348 (VXLAN); RFC 2784 and RFC 2890 (GRE); RFC 1701, 0x6558;
// draft-foschiano-erspan-03 (ERSPAN); RFC 791 and RFC 8200, 4.5 (fragments).
package encap
