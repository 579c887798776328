package main

import (
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// confinement is what a process of the daemon has to do without.
type confinement struct {
	// Without is a set of capabilities, bits by their number in
	// capabilities(7).
	Without uint64
	// Descriptors is RLIMIT_NOFILE, unless it is 0.
	Descriptors uint64
	// NoIPv6 makes the kernel one that has no IPv6, as ipv6.disable=1 does.
	NoIPv6 bool
	// NoPacket refuses packet sockets, as RestrictAddressFamilies= of a unit does.
	NoPacket bool
}

// enter executes this program once more, in the confinement.
func (c confinement) enter() error {
	// Capabilities and filters are the thread's, and go with it over execve(2).
	runtime.LockOSThread()
	for bit := range uintptr(unix.CAP_LAST_CAP + 1) {
		if c.Without&(1<<bit) == 0 {
			continue
		}
		// What the bounding set lacks, execve(2) does not give to root.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, bit, 0, 0, 0); err != nil {
			return os.NewSyscallError("prctl(PR_CAPBSET_DROP)", err)
		}
	}
	if c.Descriptors > 0 {
		// What whoever runs the tests has left open does not count.
		if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
			return os.NewSyscallError("close_range", err)
		}
		limit := unix.Rlimit{Cur: c.Descriptors, Max: c.Descriptors}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			return os.NewSyscallError("setrlimit(RLIMIT_NOFILE)", err)
		}
	}
	for family, refused := range map[uint32]bool{unix.AF_INET6: c.NoIPv6, unix.AF_PACKET: c.NoPacket} {
		if !refused {
			continue
		}
		if err := refuseFamily(family); err != nil {
			return err
		}
	}
	if err := os.Setenv(daemonEnv, "{}"); err != nil {
		return err
	}
	return os.NewSyscallError("execve", syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
}
