// Package demo shows the daemon at work: it makes a lab of network namespaces,
// runs the real program in it behind real nftables rules, sends real traffic
// through a virtual address and through an intercept, TCP and UDP, on IPv4 and
// IPv6, and checks at both ends what came of it.
//
// It needs no root and touches nothing of the host: see the lab package.
//
// The names of the checks are a contract, as is the JSON that they are printed
// in: {"checks":[{"name","ok","detail"}],...}.
package demo
