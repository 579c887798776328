// Package discovery finds backends by name: it asks the DNS for the addresses
// of hosts and for SRV records, asks again when the TTL is over, and tells when
// what it knows has changed.
//
// Invariants:
//   - A good answer stays until there is another good one. A server that is
//     down, SERVFAIL, NXDOMAIN, an empty answer: all keep the last good answer,
//     are counted, logged when it begins and when it ends, and asked again soon
//     and then ever more seldom. NXDOMAIN is no exception, since it is what a
//     zone that was loaded half answers: who wants to be rid of a backend
//     removes it from the configuration, or points its name elsewhere.
//   - A name's two families fail separately: with an answer for A and none for
//     AAAA, the IPv4 addresses are new and the IPv6 addresses are those of the
//     last good answer. An answer that says there are no records of one family
//     is good if the other has some.
//   - A name never gives more than MaxEndpoints, whatever the answer; CNAME
//     chains, SRV targets, tries and sizes are bounded.
//   - An answer counts only if it comes from the server that was asked, has the
//     identifier and the question of the query, and that query has a source port
//     of its own.
//   - Addresses, names of the hosts file and localhost are never asked for.
//
// The records that come along in the additional section are not looked at: there
// may be only some of them, and a backend without its IPv6 address does not look
// wrong to anybody.
//
// The message format is that of golang.org/x/net/dns/dnsmessage. References: RFC
// 1035; RFC 2782 (SRV); RFC 5452 (forged answers); RFC 6761 (localhost); RFC 6891
// (EDNS); resolv.conf(5), hosts(5).
package discovery
