package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExplain(t *testing.T) {
	tests := []struct {
		name   string
		err    error
		sysctl map[string]string
		want   string
	}{
		{
			"debian", unix.EPERM,
			map[string]string{"/proc/sys/kernel/unprivileged_userns_clone": "0"},
			"sysctl -w kernel.unprivileged_userns_clone=1",
		},
		{
			"ubuntu", unix.EACCES,
			map[string]string{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"},
			"sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
		},
		{
			"switched off", unix.ENOSPC,
			map[string]string{"/proc/sys/user/max_user_namespaces": "0"},
			"sysctl -w user.max_user_namespaces=15000",
		},
		{
			"used up", unix.ENOSPC,
			map[string]string{"/proc/sys/user/max_user_namespaces": "100"},
			"a limit on namespaces is reached",
		},
		{"container", unix.EPERM, nil, "seccomp"},
		{"kernel", unix.EINVAL, nil, "CONFIG_USER_NS"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cause := fmt.Errorf("fork/exec /proc/self/exe: %w", tt.err)
			err := explain(cause, func(path string) string { return tt.sysctl[path] })
			if !errors.Is(err, ErrForbidden) || !errors.Is(err, tt.err) {
				t.Errorf("%v does not wrap ErrForbidden and %v", err, tt.err)
			}
			if !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "run as root") &&
				!strings.Contains(err.Error(), "raise") {
				t.Errorf("%v does not contain %q and a way on", err, tt.want)
			}
		})
	}
	if err := explain(fs.ErrNotExist, nil); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrForbidden) {
		t.Errorf("explain(%v) = %v, want it untouched", fs.ErrNotExist, err)
	}
}
