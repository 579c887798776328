// Package clienthello reads as much of a TLS ClientHello as it takes to choose
// a backend without ending TLS: the server name, the protocols of ALPN, and
// whether there is an Encrypted Client Hello. It is pure: no sockets, no clock,
// no goroutines. Its input is the first bytes of a stream, from anybody.
//
// A flow has a [Scanner], which is called with all bytes so far whenever there
// are more. A [Table] turns the [Hello] into the number of a route.
//
// Invariants:
//   - The verdict depends on the bytes, not on the segments that they came in,
//     and for a legal hello not on the records either. All prefixes of a legal
//     hello are ErrShort.
//   - What is not TLS is told by the first byte that shows it, the third at the
//     latest.
//   - All calls of one Scanner together take time linear in the bytes. Need
//     says when the next one makes sense.
//   - A hello in one record is read without allocating. One in several records
//     is put together in one buffer of its length, when it is complete.
//   - A name is never more than 253 bytes, lower-case, and has only letters,
//     digits, hyphens, underscores and dots. It is still the client's choice:
//     it must not become the label of a metric.
//
// What is legal follows RFC 8446: records of 1 to 16384 bytes of type handshake
// and version 0x0301 to 0x0303, of which the last ends with the message (5.1);
// legacy_version above 0x0300 (D.5); a session id of at most 32 bytes, at least
// one cipher suite, compression methods with null among them (4.1.2, and RFC
// 5246, 7.4.1.2); no extension twice, pre_shared_key last (4.2, 4.2.11). The
// list of server_name has at most one name of each type (RFC 6066, 3), that of
// ALPN has no empty ones (RFC 7301, 3.1).
//
// A host name is an ASCII string of labels of 1 to 63 bytes without a dot at
// the end. RFC 6066 permits no addresses as names, yet some clients send them,
// and it does not ask servers to break off: such a hello has no name. Names that
// have other bytes are refused, as no route could be meant.
//
// What other extensions contain is left to the backend, which sees every byte.
// With an Encrypted Client Hello (RFC 9849) the name is the outer one, that of
// the client-facing server.
package clienthello
