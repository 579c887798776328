// Package announce tells the hosts of a link that an address is to be found
// here: by gratuitous ARP for IPv4 and by unsolicited neighbour advertisements
// for IPv6. That is how a virtual IP moves from one host to another without
// waiting for caches to expire.
//
//   - IPv4: an ARP announcement (RFC 5227, 1.1 and 3), a broadcast request for
//     the address by the address. Requests are what hosts take; of gratuitous
//     replies some want to have asked.
//   - IPv6: an unsolicited neighbour advertisement to all nodes with the
//     Override flag (RFC 4861, 7.2.6), which replaces entries, and of which
//     routers make new ones (RFC 9131).
//
// Both may be lost, and a host may ignore what comes within a second of another
// (Linux: neigh.locktime), so they are repeated. An announcement says that the
// address is here now: it has to end before the address may go, see
// [Announcer.Run].
package announce
