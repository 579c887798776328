// Package flowbpf is a set of flows in the kernel: a socket filter of eBPF that
// looks the 5-tuple of a packet up in a hash map and returns the flow's snap
// length, 0 if there is none. What is not captured costs one lookup, however
// many flows there are, and is never copied.
//
// It selects what ringcap.FlowSet selects, which does the same in user space
// where eBPF is not allowed. It needs CAP_BPF (and CAP_NET_ADMIN or a kernel that
// lets CAP_BPF load socket filters; Linux 5.8 or later), only in New.
//
// References: bpf(2), BPF_PROG_TYPE_SOCKET_FILTER; socket(7), SO_ATTACH_BPF.
package flowbpf
