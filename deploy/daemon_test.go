package deploy_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

const adminAddress = "127.0.0.1:9180"

// daemonConfig has one service, on both of the lab's virtual addresses. The
// verbs are settings of [daemon], and further services.
const daemonConfig = `
[daemon]
workers = 2
drain_timeout = "30s"
%s

[admin]
listen = "` + adminAddress + `"

[[service]]
name = "web"
mode = "vip"
listen = ["203.0.113.10:443", "[2001:db8:f::10]:443"]
source = "client-ip"

  [[service.backend]]
  address = "198.18.2.2:8443"

  [[service.backend]]
  address = "[2001:db8:2::2]:8443"
%s`

// built is the path of the daemon, built once for all tests. It lies where the
// repository's own build lies, because nothing runs after the last test.
var built = sync.OnceValues(func() (string, error) {
	path, err := filepath.Abs("../bin/tproxyd-deploy-test")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "../cmd/tproxyd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

func daemon(t *testing.T) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// startDaemon runs the daemon in the proxy's host until the end of the test.
func startDaemon(t *testing.T, l *lab.Lab, config string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tproxyd.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := l.Proxy.Command(t.Context(), daemon(t), "run", "--config", file)
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test's context has ended by now.
		if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() != 0 {
			t.Errorf("tproxyd run: %v\n%s", err, &out)
		}
	})
	netnstest.Eventually(t, patience, func() bool {
		_, err := fetch(l, "/readyz")
		return err == nil
	}, "the daemon is ready")
}

// fetch gets a page of the daemon's admin address.
func fetch(l *lab.Lab, path string) (string, error) {
	transport := &http.Transport{DialContext: l.Proxy.Dial, DisableKeepAlives: true}
	client := &http.Client{Transport: transport, Timeout: patience}
	resp, err := client.Get("http://" + adminAddress + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, resp.Status, body)
	}
	return string(body), err
}

func scrape(t *testing.T, l *lab.Lab) string {
	t.Helper()
	page, err := fetch(l, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// metric returns the value of a series of the daemon.
func metric(t *testing.T, l *lab.Lab, series string) float64 {
	t.Helper()
	page := scrape(t, l)
	for line := range strings.Lines(page) {
		if value, found := strings.CutPrefix(line, series+" "); found {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("the daemon does not serve %s:\n%s", series, page)
	return 0
}
