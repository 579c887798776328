package demo

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// TestHold holds the demo in a sandbox within the one of the test, and does
// from there what it invites to.
func TestHold(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "TPROXYD_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, holdEnv+"="+build(t))
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := time.AfterFunc(2*totalLimit, func() { _ = cmd.Process.Kill() })
	defer stop.Stop()
	out := bufio.NewReader(stdout)

	url := after(t, out, "admin page: ")
	client := after(t, out, "client: ")
	after(t, out, "there, in the client, try: ")
	if text := httpGet(t, url+"metrics"); !strings.Contains(text, `tproxyd_connections_total{service="vip"}`) {
		t.Errorf("%smetrics has no metrics of the daemon: %.300s", url, text)
	}
	words := append(strings.Fields(client), netnstest.Need(t, "ip", "iproute2"), "-brief", "address")
	addresses, err := exec.CommandContext(t.Context(), words[0], words[1:]...).CombinedOutput()
	if err != nil || !strings.Contains(string(addresses), lab.ClientIP4) {
		t.Errorf("%s: %v, %s, want the client's addresses", client, err, addresses)
	}

	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(out)
	if err := cmd.Wait(); err != nil {
		t.Errorf("exit after SIGINT: %v", err)
	}
	if want := fmt.Sprintf("%d of %d checks are good", len(contract), len(contract)); !strings.Contains(string(rest), want) {
		t.Errorf("output ends in %q, want %q", rest, want)
	}
}

// after reads on to a line that begins so, and returns the rest of it.
func after(t *testing.T, r *bufio.Reader, begin string) string {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("read on to %q: %v", begin, err)
		}
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), begin); ok {
			return strings.TrimSpace(rest)
		}
	}
}

func httpGet(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: stepLimit}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
