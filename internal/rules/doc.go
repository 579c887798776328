// Package rules brings packets to a transparent proxy: an nftables table that
// marks them, and the policy route that delivers what is marked to this host.
//
// The table, of family inet:
//
//	chain prerouting {
//		type filter hook prerouting priority mangle
//		meta mark EXEMPT accept
//		socket transparent 1 jump divert
//		fib daddr type { local, broadcast, multicast } accept
//		ip daddr PREFIX jump NAME
//	}
//	chain divert {
//		socket wildcard 1 return
//		meta mark set MARK accept
//	}
//	chain NAME {
//		udp dport PORTS tproxy to :PORT meta mark set MARK accept
//		udp dport PORTS drop            # only to block on failure
//	}
//	chain defrag {
//		meta l4proto udp tproxy to :1   # never reached: see below
//	}
//
// The divert chain serves what belongs to a transparent socket already:
// answers to connections and datagrams that were sent with the client's
// address, and all traffic to a virtual address that a transparent listener is
// bound to. ICMP errors belong to the socket of the packet that they quote,
// and are addressed to the client as well: only by this chain does the proxy
// hear that a backend's port is unreachable or a packet too big. A listener on
// all addresses is no reason to take a packet, so that its port alone hijacks
// nothing.
//
// Of a datagram in fragments only the first has ports to find a socket by. The
// defrag chain makes the kernel reassemble what comes in, which it does as
// long as a tproxy statement exists, used or not. What is forwarded leaves in
// fragments again, none larger than those that came in.
//
// A socket that is bound to the client's address and not yet connected takes
// all that anybody sends to that address and port. It should be connected at
// once.
//
// The policy routes, for both families:
//
//	ip rule fwmark MARK lookup TABLE
//	ip route add local default dev lo table TABLE
//
// nft's tproxy lets a packet pass when nobody listens, unlike iptables'
// TPROXY. Hence [Intercept.OnFailure].
//
// Everything works on the network namespace of the calling thread. See nft(8),
// ip-rule(8) and Documentation/networking/tproxy.rst in the kernel.
package rules
