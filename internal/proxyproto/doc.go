// Package proxyproto reads and writes the headers of the PROXY protocol, by
// which a proxy tells the next one who its client is (HAProxy, "The PROXY
// protocol, Versions 1 & 2"). It is pure: no sockets, no clock, no goroutines.
// Its input is the first bytes of a stream or a datagram, from anybody.
//
// Invariants:
//   - All prefixes of a legal header are ErrShort, and nothing is decoded
//     before the header is complete.
//   - What cannot become a legal header is refused by the first byte that shows
//     it where that costs nothing: signature, version, command, family, length,
//     and in version 1 the protocol, the characters and the length of the line.
//   - Reading allocates nothing. Writing allocates nothing if there is room for
//     MaxHeader bytes, or for MaxV1.
//   - An address has one form: IPv4 in IPv6 is read as IPv4, and written as
//     IPv6 only if the other address is IPv6.
//   - What was written is read back as it was.
//
// Where the specification leaves a choice, or practice differs from it:
//
//   - Version 1: IPv6 addresses may end in dotted IPv4 (RFC 4291, 2.2), as
//     HAProxy writes them when families differ; the specification speaks of
//     hexadecimal digits only, and so are they written here. A CR without LF or
//     an LF without CR is refused in all lines. After UNKNOWN, which must be
//     followed by a space or the end of the line, anything else is ignored.
//   - Version 2: a LOCAL header is skipped whole, whatever family it names.
//     PROXY with UNSPEC (0x00) or AF_UNIX (0x31, 0x32) falls back to the
//     addresses of the connection, as with LOCAL. Bytes of half a meaning
//     (0x01, 0x02, 0x10, 0x20, 0x30) are refused, and all others have to be.
//   - TLVs have to fill the header exactly. Those that have no field in Header
//     are skipped; of several of one type the first counts. A CRC32c is
//     verified if there is one, and there may be only one.
//   - A header of version 2 with more than 4096 bytes after its first 16 is
//     refused. It is what a flow may have to keep before it knows its client;
//     addresses, names, an id and a client's certificate fit in it.
//
// github.com/pires/go-proxyproto judges the tests. Its parser is not used
// because it reads from a bufio.Reader and refuses what has not arrived at once,
// where an event loop has a slice and no more; because it allocates for each
// header; and because it does not verify CRC32c or the frame of TLVs.
package proxyproto
