package sys

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// RaiseDescriptorLimit raises the soft RLIMIT_NOFILE to the hard one and
// returns it. The hard limit itself can be raised with CAP_SYS_RESOURCE only
// (getrlimit(2)), so what the service manager gave is what there is.
func RaiseDescriptorLimit() (uint64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, os.NewSyscallError("getrlimit(RLIMIT_NOFILE)", err)
	}
	if l.Cur < l.Max {
		l.Cur = l.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
			return 0, os.NewSyscallError("setrlimit(RLIMIT_NOFILE)", err)
		}
	}
	return l.Cur, nil
}

// OpenDescriptors counts the descriptors of this process.
func OpenDescriptors() (int, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, fmt.Errorf("count open descriptors: %w", err)
	}
	return len(entries) - 1, nil // less the one that lists
}
