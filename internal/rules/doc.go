// Package rules brings packets to a transparent proxy: an nftables table that
// marks them, and the policy route that delivers what is marked to this host.
//
// The table, of family inet:
//
//	chain prerouting {
//		type filter hook prerouting priority mangle
//		meta mark EXEMPT accept
//		meta l4proto tcp socket transparent 1 jump divert
//		fib daddr type local accept
//		meta l4proto tcp ip daddr PREFIX jump NAME
//	}
//	chain divert {
//		socket wildcard 1 return
//		meta mark set MARK accept
//	}
//	chain NAME {
//		tcp dport PORTS tproxy to :PORT meta mark set MARK accept
//		tcp dport PORTS drop            # only to block on failure
//	}
//
// The divert chain serves what belongs to a transparent socket already:
// answers to connections that were made with the client's address, and all
// traffic to a virtual address that a transparent listener is bound to. A
// listener on all addresses is no reason to take a packet, so that its port
// alone hijacks nothing.
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
