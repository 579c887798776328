package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/rules"
	"golang.org/x/sys/unix"
)

const (
	patience      = 15 * time.Second
	adminAddress  = "127.0.0.1:9180"
	interceptPort = 15001
	maxShown      = 32 << 10 // of what a daemon has printed, when a test fails
	exemptMark    = 0x7470
)

// way is an address that leads to the server through the daemon.
type way struct {
	name, ip, client string
}

// url is the way's address and a port, as in a URL.
func (w way) url(port int) string { return net.JoinHostPort(w.ip, strconv.Itoa(port)) }

var ways = []way{
	{"vip4", lab.VIP4, lab.ClientIP4},
	{"vip6", lab.VIP6, lab.ClientIP6},
	{"intercept4", lab.ForeignIP4, lab.ClientIP4},
	{"intercept6", lab.ForeignIP6, lab.ClientIP6},
}

// site is a lab with rules and the daemon.
type site struct {
	*lab.Lab
	t   *testing.T
	dir string
}

// newSite serves one port: on the virtual addresses for the server's, and on
// foreign addresses by interception.
func newSite(t *testing.T, port int) *site {
	t.Helper()
	return startSite(t, services("tcp", port, ""))
}

// services are two of a protocol, one of each mode, with more keys.
func services(protocol string, port int, keys string) string {
	name := map[string]string{"tcp": "", "udp": "-udp"}[protocol]
	return fmt.Sprintf(`
[[service]]
name = "vip%[1]s"
protocol = %[2]q
mode = "vip"
listen = ["%[4]s:%[3]d", "[%[5]s]:%[3]d"]
%[9]s
  [[service.backend]]
  address = "%[6]s:%[3]d"
  [[service.backend]]
  address = "[%[7]s]:%[3]d"
[[service]]
name = "intercept%[1]s"
protocol = %[2]q
mode = "intercept"
listen = ["0.0.0.0:%[8]d", "[::]:%[8]d"]
%[9]s
`, name, protocol, port, lab.VIP4, lab.VIP6, lab.ServerIP4, lab.ServerIP6, interceptPort, keys)
}

// startSite makes a lab and runs the daemon with these services.
func startSite(t *testing.T, services string) *site {
	t.Helper()
	exe, err := built()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{Lab: netnstest.New(t), t: t, dir: t.TempDir()}
	err = rules.Apply(rules.Plan{ExemptMark: exemptMark, Intercepts: []rules.Intercept{{
		Name:         "egress",
		DestPrefixes: []netip.Prefix{netip.MustParsePrefix(lab.ForeignNet4), netip.MustParsePrefix(lab.ForeignNet6)},
		ToPort:       interceptPort,
		OnFailure:    rules.Block,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	config := s.write("tproxyd.toml", fmt.Sprintf("[admin]\nlisten = %q\n", adminAddress)+services)
	s.daemon(s.Proxy.Command(t.Context(), exe, "run", "--config", config))
	netnstest.Eventually(t, patience, func() bool {
		_, err := page("/readyz")
		return err == nil
	}, "the daemon is ready")
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(name, text string) (path string) {
	s.t.Helper()
	path = s.path(name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// file makes a file of random bytes and returns its checksum.
func (s *site) file(name string, size int) (path, sum string) {
	s.t.Helper()
	data := make([]byte, size)
	_, _ = rand.Read(data) // never fails
	path = s.path(name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path, fmt.Sprintf("%x", sha256.Sum256(data))
}

// wantSum compares a file with a checksum, and removes it.
func (s *site) wantSum(path, want string) {
	s.t.Helper()
	f, err := os.Open(path)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer func() { _ = f.Close() }() // only read
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		s.t.Error(err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		s.t.Errorf("%s has the checksum %s, want %s", path, got, want)
	}
	if err := os.Remove(path); err != nil {
		s.t.Error(err)
	}
}

// daemon runs a program until the end of the test, or until stop is called,
// which waits for it. It is ended by SIGTERM.
func (s *site) daemon(cmd *lab.Cmd) (stop func()) {
	s.t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = patience
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	wait := sync.OnceValue(cmd.Wait)
	s.t.Cleanup(func() {
		// The context of the test has ended by now.
		err := wait()
		if s.t.Failed() {
			s.t.Logf("%s: %v\n%s", cmd, err, out.Bytes()[max(0, out.Len()-maxShown):])
		}
	})
	return func() {
		s.t.Helper()
		if err := cmd.Cancel(); err != nil {
			s.t.Error(err)
		}
		_ = wait() // of a program that SIGTERM has ended
	}
}

// server runs a program on the server and waits until it takes connections on
// port.
func (s *site) server(port int, cmd *lab.Cmd) {
	s.t.Helper()
	s.daemon(cmd)
	for _, ip := range []string{lab.ServerIP4, lab.ServerIP6} {
		netnstest.Eventually(s.t, patience, func() bool {
			c, err := s.Server.Dial(s.t.Context(), "tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
			if err != nil {
				return false
			}
			c.Close()
			return true
		}, cmd.String()+" listens on "+ip)
	}
}

// run runs a program on the client, which has to end well within a time, and
// returns what it printed.
func (s *site) run(name string, args ...string) string {
	s.t.Helper()
	return s.runInput(nil, name, args...)
}

func (s *site) runInput(stdin io.Reader, name string, args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	cmd := s.Client.Command(ctx, name, args...)
	cmd.Stdin = stdin
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func page(path string) (string, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Get("http://" + adminAddress + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}

var closed = regexp.MustCompile(`(?m)^tproxyd_connections_closed_total\{reason="(\w+)",service="(\w+)"\} (\d+)`)

// wantEnds waits until no flow is left, and fails the test if one has ended
// for another reason than the peers' closing, and those given, or if a service
// has had none.
func (s *site) wantEnds(others ...string) {
	s.t.Helper()
	var text string
	netnstest.Eventually(s.t, patience, func() bool {
		var err error
		text, err = page("/metrics")
		return err == nil && strings.Contains(text, "\ntproxyd_connections_active{service=\"vip\"} 0\n") &&
			strings.Contains(text, "\ntproxyd_connections_active{service=\"intercept\"} 0\n")
	}, "no flow is left")
	flows := map[string]int{}
	for _, m := range closed.FindAllStringSubmatch(text, -1) {
		n, err := strconv.Atoi(m[3])
		if err != nil {
			s.t.Fatal(err)
		}
		if n > 0 && !slices.Contains(append(others, "client_close", "upstream_close"), m[1]) {
			s.t.Errorf("%d flows of the service %s ended by %s", n, m[2], m[1])
		}
		flows[m[2]] += n
	}
	for _, service := range []string{"vip", "intercept"} {
		if flows[service] == 0 {
			s.t.Errorf("the service %s had no flow:\n%s", service, text)
		}
	}
}
