package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

func TestSSH(t *testing.T) {
	const port = 2222
	ssh := netnstest.Need(t, "ssh", "openssh-client")
	keygen := netnstest.Need(t, "ssh-keygen", "openssh-client")
	sftp := netnstest.Need(t, "sftp", "openssh-client")
	sshd := netnstest.Need(t, "sshd", "openssh-server")
	s := newSite(t, port)
	for _, key := range []string{"host", "client"} {
		s.run(keygen, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", s.path(key))
	}
	config := s.write("sshd_config", fmt.Sprintf(`
Port %d
HostKey %[2]s/host
AuthorizedKeysFile %[2]s/client.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
MaxStartups 100
Subsystem sftp internal-sftp
`, port, s.dir))
	s.server(port, s.userCommand(sshd, "-D", "-e", "-f", config))

	path, sum := s.file("sent", 20<<20)
	host := strings.Fields(s.run("cat", s.path("host.pub")))
	for _, w := range ways {
		known := s.write("known_hosts", fmt.Sprintf("[%s]:%d %s %s\n", w.ip, port, host[0], host[1]))
		options := []string{
			"-F", "none", "-i", s.path("client"), "-o", fmt.Sprintf("Port=%d", port), "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes",
			"-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=" + known, "-o", "User=" + userName,
		}
		// The server tells whom it talks to.
		out := s.run(ssh, append(options, w.ip, "echo $SSH_CONNECTION; cat "+path+" | sha256sum")...)
		fields := strings.Fields(out)
		if len(fields) < 5 || fields[0] != w.client || fields[4] != sum {
			t.Errorf("%s: ssh printed %q, want a connection from %s and the checksum %s", w.name, out, w.client, sum)
		}
		batch := fmt.Sprintf("put %s %s\nget %[2]s %s\nrm %[2]s\n", path, s.path("there"), s.path("back"))
		s.runInput(strings.NewReader(batch), sftp, append(options, "-q", "-b", "-", "["+w.ip+"]")...)
		s.wantSum(s.path("back"), sum)
	}
	s.wantEnds()
}
