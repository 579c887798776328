// Package sockowner says which sockets of this host have an address and port,
// and which processes have those sockets: what a person wants to know who is
// told that an address is in use.
//
// It reads the tables of /proc/net/{tcp,udp}{,6} and the descriptors below /proc/PID/fd (both
// proc(5)). Descriptors of other users' processes cannot be seen without
// CAP_SYS_PTRACE, nor with ProtectProc=invisible in a unit, and those of another
// PID namespace not at all; what is left then is the user and the inode.
//
// It reads a lot and is for the way to an error message, not for the data path.
package sockowner
