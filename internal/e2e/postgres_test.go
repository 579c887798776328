package e2e

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"golang.org/x/sys/unix"
)

var processed = regexp.MustCompile(`number of transactions actually processed: (\d+)`)

func TestPostgres(t *testing.T) {
	const port = 5432
	// Debian has them off the path, by version.
	tool := func(name string) string {
		paths, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name) // the pattern is right
		slices.Sort(paths)
		return netnstest.Need(t, append([]string{name}, paths...)[len(paths)], "postgresql")
	}
	initdb, postgres, ready, pgbench := tool("initdb"), tool("postgres"), tool("pg_isready"), tool("pgbench")
	s := newSite(t, port)
	data := s.path("data")
	// It does not run as root.
	init := s.userCommand(initdb, "--pgdata", data, "--username", "bench",
		"--auth", "trust", "--locale", "C", "--encoding", "UTF8", "--no-sync")
	if out, err := init.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", init, err, out)
	}
	s.write("data/pg_hba.conf", fmt.Sprintf("host all all %s/32 trust\nhost all all %s/128 trust\n", lab.ClientIP4, lab.ClientIP6))
	cmd := s.userCommand(postgres, "-D", data, "-k", "", "-h", "*", "-p", strconv.Itoa(port), "-F")
	s.server(port, cmd)
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGINT) } // without waiting for clients
	netnstest.Eventually(t, patience, func() bool {
		return s.Server.Command(t.Context(), ready, "--quiet", "--host", lab.ServerIP4, "--port", strconv.Itoa(port)).Run() == nil
	}, "the database has started up")

	for i, w := range ways {
		target := []string{"--host", w.ip, "--port", strconv.Itoa(port), "--username", "bench"}
		if i == 0 {
			s.run(pgbench, append(target, "--initialize", "--quiet", "postgres")...)
		}
		for _, load := range [][]string{{"--client", "8", "--transactions", "25"}, {"--connect", "--client", "4", "--transactions", "5"}} {
			out := s.run(pgbench, slices.Concat(target, load, []string{"--no-vacuum", "postgres"})...)
			m := processed.FindStringSubmatch(out)
			if m == nil || m[1] != "200" && m[1] != "20" || !strings.Contains(out, "number of failed transactions: 0 ") {
				t.Errorf("%s: pgbench %v:\n%s", w.name, load, out)
			}
		}
	}
	s.wantEnds()
}
