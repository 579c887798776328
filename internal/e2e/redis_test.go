package e2e

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

func TestRedis(t *testing.T) {
	const port = 6379
	server := netnstest.Need(t, "redis-server", "redis-server")
	benchmark := netnstest.Need(t, "redis-benchmark", "redis-tools")
	cli := netnstest.Need(t, "redis-cli", "redis-tools")
	s := newSite(t, port)
	s.server(port, s.Server.Command(t.Context(), server, "--port", "6379", "--bind", "0.0.0.0", "::",
		"--protected-mode", "no", "--save", "", "--dir", s.dir))
	path, _ := s.file("value", 1<<20)
	value, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range ways {
		// One at a time, and sixteen at a time.
		for _, pipeline := range []string{"1", "16"} {
			out := s.run(benchmark, "-h", w.ip, "-n", "5000", "-c", "20", "-P", pipeline, "-t", "set,get,incr", "--csv")
			// A heading and three lines.
			if n := strings.Count(out, "\n"); n != 4 || strings.Contains(strings.ToLower(out), "err") {
				t.Errorf("%s: redis-benchmark:\n%s", w.name, out)
			}
		}
		s.runInput(bytes.NewReader(value), cli, "-h", w.ip, "-x", "set", w.name)
		if got := s.run(cli, "-h", w.ip, "get", w.name); got != string(value)+"\n" {
			t.Errorf("%s: got back %d bytes that are not the %d that were set", w.name, len(got), len(value))
		}
	}
	s.wantEnds() // redis-benchmark ends with answers on their way
}
