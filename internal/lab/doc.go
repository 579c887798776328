// Package lab builds a small network out of network namespaces: one client,
// the proxy's host and one server, joined by veth pairs.
//
//	client                      proxy                        server
//	198.18.1.2        veth      198.18.1.1
//	2001:db8:1::2  ---------->  2001:db8:1::1
//	                            198.18.2.1       veth        198.18.2.2, .3
//	                            2001:db8:2::1  ---------->   2001:db8:2::2, ::3
//	                                                         198.18.3.1 (lo)
//	                                                         2001:db8:3::1 (lo)
//
// Client and server have their default route over the proxy, which forwards.
// 198.18.3.1 and 2001:db8:3::1 play a host somewhere in the internet, and the
// virtual addresses [VIP4] and [VIP6] belong to nobody. The client also owns
// every address of [ClientRange4] and [ClientRange6].
//
// Nothing of the host is touched: a process first goes into a sandbox, a user,
// network and mount namespace of its own, with [Reexec]. That namespace is the
// proxy's host; [New] refuses to work anywhere else. All traffic stays within
// 198.18.0.0/15 (RFC 2544), 203.0.113.0/24 (RFC 5737) and 2001:db8::/32
// (RFC 3849).
//
// What needs more than one proxy builds a [Network] of hosts and segments instead.
//
// See network_namespaces(7), user_namespaces(7) and veth(4).
package lab
