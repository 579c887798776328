package lab

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrForbidden is in every error of [Reexec] that comes from a system which
// does not allow the sandbox.
var ErrForbidden = errors.New("namespaces are forbidden here")

// forbidders are the settings that keep a user from a namespace, with the
// value that forbids and the way out.
var forbidders = []struct{ path, value, remedy string }{
	{
		"/proc/sys/user/max_user_namespaces", "0",
		"sysctl -w user.max_user_namespaces=15000",
	},
	{
		"/proc/sys/user/max_net_namespaces", "0",
		"sysctl -w user.max_net_namespaces=15000",
	},
	{
		"/proc/sys/user/max_mnt_namespaces", "0",
		"sysctl -w user.max_mnt_namespaces=15000",
	},
	{
		"/proc/sys/kernel/unprivileged_userns_clone", "0",
		"sysctl -w kernel.unprivileged_userns_clone=1",
	},
	{
		"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
		"sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
	},
}

// explain adds to an error of clone or unshare which setting is behind it and
// how to go on. Errors of another kind pass as they are.
func explain(err error, read func(path string) string) error {
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOSPC) &&
		!errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	for _, f := range forbidders {
		if read(f.path) == f.value {
			return fmt.Errorf("%w: %s is %s: run as root, or allow it with: %s: %w",
				ErrForbidden, f.path, f.value, f.remedy, err)
		}
	}
	switch {
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%w: a limit on namespaces is reached: "+
			"raise user.max_user_namespaces and user.max_net_namespaces, "+
			"or start from fewer nested user namespaces (32 at most): %w", ErrForbidden, err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: the kernel has no user or network namespaces "+
			"(CONFIG_USER_NS, CONFIG_NET_NS): run as root, or on another kernel: %w", ErrForbidden, err)
	}
	return fmt.Errorf("%w: a container's seccomp profile or a security module refuses it: "+
		"run as root on the host, or start the container with --privileged "+
		"or --security-opt seccomp=unconfined: %w", ErrForbidden, err)
}

// readSysctl returns the value of a setting, or "" where there is none.
func readSysctl(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
