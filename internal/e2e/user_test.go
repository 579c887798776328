package e2e

import (
	"fmt"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

const (
	userName = "peer"
	userID   = 1000
)

// asUser runs its arguments as an ordinary user: in a mount namespace where the
// first two are the files that know users, and a user namespace where the one
// user that a sandbox surely has is called that. To the file system it is
// still who runs the test, user_namespaces(7).
const asUser = `
mount --bind "$1" /etc/passwd && mount --bind "$2" /etc/shadow && shift 2 &&
exec unshare --user --map-user=%d --map-group=%[1]d -- "$@"
`

// userCommand prepares a program to run on the server as an ordinary user, for
// servers that do not run as root, or not without other users at hand.
func (s *site) userCommand(name string, args ...string) *lab.Cmd {
	s.t.Helper()
	unshare := netnstest.Need(s.t, "unshare", "util-linux")
	passwd := s.write("passwd", fmt.Sprintf("root:x:0:0::/:/bin/sh\n%s:x:%d:%[2]d::%s:/bin/sh\n", userName, userID, s.dir))
	shadow := s.write("shadow", fmt.Sprintf("%s:*:::::::\n", userName))
	return s.Server.Command(s.t.Context(), unshare, append([]string{
		"--mount", "--", "sh", "-c", fmt.Sprintf(asUser, userID), "sh", passwd, shadow, name,
	}, args...)...)
}
