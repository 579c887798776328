package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/tproxyd/tproxyd/internal/balance"
	"github.com/tproxyd/tproxyd/internal/health"
	"github.com/tproxyd/tproxyd/internal/lab"
	"golang.org/x/sys/unix"
)

// states are the states of the backends of a service, by name.
func (b *bed) states(service string) map[string]string {
	b.t.Helper()
	got := map[string]string{}
	for _, s := range b.proxy.Services() {
		if s.Name == service {
			for _, be := range s.Backends {
				got[be.Name] = be.Health.State.String()
			}
		}
	}
	return got
}

func (b *bed) wantStates(want map[string]string) {
	b.t.Helper()
	if d := cmp.Diff(want, b.states("web")); d != "" {
		b.t.Errorf("states of web, -want +got:\n%s", d)
	}
}

// until waits for a backend's state.
func (b *bed) until(service, backend, state string) {
	b.t.Helper()
	eventually(b.t, func() bool { return b.states(service)[backend] == state }, backend+" is "+state)
}

// set changes a backend of the service web at run time.
func (b *bed) set(backend string, c BackendChange) {
	b.t.Helper()
	if err := b.proxy.SetBackend("web", backend, c); err != nil {
		b.t.Fatal(err)
	}
}

func admin(a health.Admin) BackendChange { return BackendChange{Admin: &a} }

// counts opens n flows and counts the backends that they get; then they end.
func (b *bed) counts(n int) map[string]int {
	b.t.Helper()
	got := map[string]int{}
	for range n {
		name, c := b.whose(addrPort(lab.VIP4, 80))
		got[name]++
		c.Close()
	}
	return got
}

// TestChecks takes a backend out and back in by the results of checks, and uses
// backups when no other is up.
func TestChecks(t *testing.T) {
	s := balanced(balance.RoundRobin)
	s.Backends[2].Backup = true
	s.Health = health.Policy{Checked: true, Rise: 2, Fall: 3, InitialUp: true}
	b := newBed(t, s)
	b.names(81, 82, 83)
	fail := func(name string, n int) {
		for range n {
			b.proxy.CheckResult("web", name, false, "connection refused")
		}
	}
	fail("b81", 2)
	if !b.proxy.Changing("web", "b81") || b.proxy.Changing("web", "b82") {
		t.Error("a failed check does not ask for faster ones, or those of others do")
	}
	b.wantStates(map[string]string{"b81": "up", "b82": "up", "b83": "up"})
	fail("b81", 1)
	b.wantStates(map[string]string{"b81": "down", "b82": "up", "b83": "up"})
	if d := cmp.Diff(map[string]int{"b82": 6}, b.counts(6)); d != "" {
		t.Error(d)
	}
	fail("b82", 3)
	if d := cmp.Diff(map[string]int{"b83": 6}, b.counts(6)); d != "" {
		t.Error(d)
	}
	fail("b83", 3)
	b.wantRefused(addrPort(lab.VIP4, 80))
	for _, st := range b.proxy.Services()[0].Backends {
		if st.Health.Why != "connection refused" {
			t.Errorf("%s is down because of %q", st.Name, st.Health.Why)
		}
	}
	for range 2 {
		b.proxy.CheckResult("web", "b81", true, "")
	}
	if d := cmp.Diff(map[string]int{"b81": 6}, b.counts(6)); d != "" {
		t.Error(d)
	}
	b.proxy.CheckResult("web", "gone", true, "") // a reload may be faster than a check
	b.wantMetrics(`
# HELP tproxyd_backend_up Whether a backend gets new flows as a matter of course (1) or not (0).
# TYPE tproxyd_backend_up gauge
tproxyd_backend_up{backend="b81",service="web"} 1
tproxyd_backend_up{backend="b82",service="web"} 0
tproxyd_backend_up{backend="b83",service="web"} 0
`, metricBackendUp)
}

func (b *bed) wantMetrics(want string, names ...string) {
	b.t.Helper()
	if err := testutil.CollectAndCompare(NewCollector(b.proxy), strings.NewReader(want), names...); err != nil {
		b.t.Error(err)
	}
}

// TestPanicOpen uses all backends when none is up, if the service says so.
func TestPanicOpen(t *testing.T) {
	s := balanced(balance.RoundRobin)
	s.Health = health.Policy{Checked: true, Rise: 1, Fall: 1, PanicOpen: true}
	b := newBedWorkers(t, 1, Config{Services: []Service{s}})
	b.names(81, 82, 83)
	b.wantStates(map[string]string{"b81": "down", "b82": "down", "b83": "down"})
	if d := cmp.Diff(map[string]int{"b81": 2, "b82": 2, "b83": 2}, b.counts(6)); d != "" {
		t.Error(d)
	}
	b.proxy.CheckResult("web", "b82", true, "")
	if d := cmp.Diff(map[string]int{"b82": 6}, b.counts(6)); d != "" {
		t.Error(d)
	}
}

// TestBackendDown cuts the flows of a backend that goes down, or leaves them.
func TestBackendDown(t *testing.T) {
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprintf("cut=%v", cut), func(t *testing.T) {
			s := balanced(balance.RoundRobin)
			s.Backends = pool(lab.VIP4, 81, 82)
			s.Health = health.Policy{Checked: true, Rise: 1, Fall: 1, InitialUp: true}
			s.CutOnDown = cut
			b := newBedWorkers(t, 1, Config{Services: []Service{s}, DrainTimeout: time.Second})
			b.server(81, echo)
			b.server(82, echo)
			flows := map[string]*net.TCPConn{}
			for range 2 {
				before := b.backendActive("web", "b81")
				c := b.dial(addrPort(lab.VIP4, 80))
				mustPing(t, c)
				if b.backendActive("web", "b81") > before {
					flows["b81"] = c
				} else {
					flows["b82"] = c
				}
			}
			b.proxy.CheckResult("web", "b81", false, "test")
			if cut {
				wantRST(t, flows["b81"])
			} else {
				mustPing(t, flows["b81"])
				flows["b81"].Close()
			}
			mustPing(t, flows["b82"])
			flows["b82"].Close()
			want := map[Reason]uint64{ClientClose: 2}
			if cut {
				want = map[Reason]uint64{ClientClose: 1, BackendDown: 1}
			}
			b.ends("web", want)
		})
	}
}

// TestEjection takes a backend out that refuses connections or resets them
// before its first byte, and lets it back in after a while.
func TestEjection(t *testing.T) {
	for _, kind := range []string{"connect", "reset"} {
		t.Run(kind, func(t *testing.T) {
			s := balanced(balance.RoundRobin)
			s.Backends = pool(lab.VIP4, 81, 82)
			s.Health = health.Policy{Failures: 3, EjectBase: 300 * time.Millisecond, EjectMax: time.Minute, MaxEjectedPercent: 50}
			b := newBedWorkers(t, 2, Config{Services: []Service{s}, DrainTimeout: time.Second})
			b.names(82)
			var broken atomic.Bool
			broken.Store(true)
			if kind == "reset" {
				b.server(81, func(c *net.TCPConn) {
					if broken.Load() {
						// Not before the proxy has connected, or that is what fails.
						_, _ = io.ReadFull(c, make([]byte, 1))
						_ = c.SetLinger(0)
						return
					}
					_, _ = io.WriteString(c, "b81")
					_, _ = io.Copy(io.Discard, c)
				})
			}
			for range 20 {
				if c, err := b.tryDial(addrPort(lab.VIP4, 80)); err == nil {
					_, _ = io.WriteString(c, "x")
					_, _ = io.ReadFull(c, make([]byte, 3))
					c.Close()
				}
				if b.states("web")["b81"] == "ejected" {
					break
				}
			}
			b.until("web", "b81", "ejected")
			if n := b.ejections("web", "b81", kind); n != 1 {
				t.Errorf("%d ejections for %s, want 1", n, kind)
			}
			if d := cmp.Diff(map[string]int{"b82": 4}, b.counts(4)); d != "" && b.states("web")["b81"] == "ejected" {
				t.Error(d)
			}
			if why := b.proxy.Services()[0].Backends[0].Health.Why; !strings.Contains(why, "3 flows in a row failed, the last by "+kind) {
				t.Errorf("it is ejected because of %q", why)
			}
			b.until("web", "b81", "up")
			broken.Store(false)
			if kind == "connect" {
				b.names(81)
			}
			if got := b.counts(10); got["b81"] < 3 {
				t.Errorf("flows by backend %v after the ejection", got)
			}
		})
	}
}

func (b *bed) ejections(service, backend, kind string) uint64 {
	b.t.Helper()
	for i, name := range failureNames {
		if name == kind {
			return serviceStatsOf(b.t, b.proxy, service).backend(backend).ejections[i].Load()
		}
	}
	b.t.Fatalf("no failure %s", kind)
	return 0
}

// TestEjectionUDP takes a backend out whose port is closed.
func TestEjectionUDP(t *testing.T) {
	s := udpVIP("dns", 53)
	s.Listen = s.Listen[:1]
	s.Backends = pool(lab.VIP4, 91, 92)
	s.Health = health.Policy{Failures: 2, EjectBase: time.Hour, EjectMax: time.Hour, MaxEjectedPercent: 50}
	b := newBed(t, s)
	b.datagramServerOn(lab.ServerIP4, 92, func([]byte, netip.AddrPort) [][]byte { return [][]byte{[]byte("b92")} })
	for range 40 {
		if b.states("dns")["b91"] == "ejected" {
			break
		}
		b.question(addrPort(lab.VIP4, 53))
	}
	b.until("dns", "b91", "ejected")
	if n := b.ejections("dns", "b91", "unreachable"); n != 1 {
		t.Errorf("%d ejections, want 1", n)
	}
	for range 5 {
		if got := b.question(addrPort(lab.VIP4, 53)); got != "b92" {
			t.Errorf("answer %q, want b92", got)
		}
	}
}

// question sends a datagram from a new port and returns the answer, "" if that
// is an ICMP error.
func (b *bed) question(to netip.AddrPort) string {
	b.t.Helper()
	c := b.talk(to)
	defer c.Close()
	if _, err := c.Write([]byte("question")); err != nil {
		b.t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 512)
	n, err := c.Read(buf)
	if err != nil && !errors.Is(err, unix.ECONNREFUSED) {
		b.t.Fatal(err)
	}
	return string(buf[:n])
}

// TestRunTime changes backends at run time; reloads keep that unless the file
// changes the backend.
func TestRunTime(t *testing.T) {
	s := balanced(balance.RoundRobin)
	b := newBedWorkers(t, 1, Config{Services: []Service{s}})
	b.names(81, 82, 83)
	name, held := b.whose(addrPort(lab.VIP4, 80))
	b.set(name, admin(health.Drain))
	if got := b.counts(6); got[name] != 0 {
		t.Errorf("flows by backend %v, %s is drained", got, name)
	}
	b.set(name, admin(health.Ready))
	ten := 10
	b.set("b82", BackendChange{Weight: &ten})
	if got := b.counts(12); got["b82"] != 10 {
		t.Errorf("flows by backend %v, the weights are 1, 10 and 1", got)
	}
	b.set("b83", admin(health.Maintenance))
	b.wantStates(map[string]string{"b81": "up", "b82": "up", "b83": "maintenance"})

	// A reload that changes something else keeps all that.
	other := balanced(balance.RoundRobin)
	other.Retries = 2
	b.apply(Config{Services: []Service{other}})
	if got := b.counts(11); got["b82"] != 10 || got["b83"] != 0 {
		t.Errorf("flows by backend %v after a reload", got)
	}
	// One that changes the backends does not.
	changed := balanced(balance.RoundRobin, 1, 2, 1)
	b.apply(Config{Services: []Service{changed}})
	b.wantStates(map[string]string{"b81": "up", "b82": "up", "b83": "maintenance"})
	if got := b.counts(6); got["b82"] != 4 || got["b83"] != 0 {
		t.Errorf("flows by backend %v after the file changed the weight of b82 to 2", got)
	}
	b.set("b82", BackendChange{Weight: &ten})
	b.set("b82", BackendChange{Default: true})
	if got := b.counts(6); got["b82"] != 4 {
		t.Errorf("flows by backend %v, the weight is that of the file again", got)
	}
	mustRead := make([]byte, 1)
	_ = held.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := held.Read(mustRead); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the flow of the drained backend: %v, want it to go on", err)
	}
	for _, err := range []error{
		b.proxy.SetBackend("web", "b84", admin(health.Drain)), b.proxy.SetBackend("mail", "b81", admin(health.Drain)),
	} {
		if !errors.Is(err, ErrNoBackend) && !errors.Is(err, ErrNoService) {
			t.Errorf("change of what is not there: %v", err)
		}
	}
}

// TestSlowStart gives a backend that comes up its weight little by little.
func TestSlowStart(t *testing.T) {
	s := balanced(balance.RoundRobin)
	s.Backends = pool(lab.VIP4, 81, 82)
	s.Health = health.Policy{Checked: true, Rise: 1, Fall: 1, InitialUp: true, SlowStart: 10 * time.Second}
	b := newBedWorkers(t, 1, Config{Services: []Service{s}, DrainTimeout: time.Second})
	b.names(81, 82)
	b.proxy.CheckResult("web", "b81", false, "test")
	b.proxy.CheckResult("web", "b81", true, "")
	b.wantStates(map[string]string{"b81": "starting", "b82": "up"})
	if got := b.counts(10); got["b81"] > 5 || got["b82"] < 5 {
		t.Errorf("flows by backend %v, b81 has just come up", got)
	}
	w := b.proxy.view.Load().services[0].pool.State(0).Weight
	eventually(t, func() bool { return b.proxy.view.Load().services[0].pool.State(0).Weight > w }, "its weight grows")
}
