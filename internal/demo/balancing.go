package demo

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/admin"
	"github.com/tproxyd/tproxyd/internal/lab"
)

const (
	returnVIP    = "203.0.113.30" // to which the server's way back is taken away
	failoverPort = "8081"         // of the virtual address, as what follows
	proxiedPort  = "8082"
	secretPort   = "8443"
)

// balancing is the configuration of the services that it shows.
func balancing() string {
	check := "interval = \"100ms\"\n  rise = 1\n  fall = 2\n"
	return fmt.Sprintf(`
[[service]]
name = "failover"
listen = ["%s:%s"]
source = "client"
%s
  [service.health]
  type = "http"
  %s
[[service]]
name = "return"
listen = ["%s:80"]
source = "client"
%s
  [service.health]
  type = "tcp"
  check_source = "spoof"
  timeout = "100ms"
  %s
[[service]]
name = "proxied"
listen = ["%[1]s:%[8]s"]
source = "host"
send_proxy = "v2"
%[9]s
[[service]]
name = "tls"
listen = ["%[1]s:%[10]s"]
source = "client"
`, lab.VIP4, failoverPort, named(sparePort, "one", lab.ServerIP4)+named(sparePort, "two", lab.Server2IP4), check,
		returnVIP, backends(backendPort, lab.ServerIP4), check,
		proxiedPort, backends(headerPort, lab.ServerIP4), secretPort) +
		sniRoute("api", "api.example", lab.ServerIP4) + sniRoute("shop", "*.shop.example", lab.Server2IP4) + shadowService()
}

func named(port, name, addr string) string {
	return backends(port, addr) + "  name = \"" + name + "\"\n"
}

func sniRoute(name, sni, addr string) string {
	return fmt.Sprintf(`
  [[service.route]]
  name = %q
  sni = [%q]
    [[service.route.backend]]
    address = %q
`, name, sni, net.JoinHostPort(addr, tlsPort))
}

// balance shows what becomes of flows when backends are ill, or are chosen by
// more than an address.
func (d *demo) balance(ctx context.Context) {
	d.out.step("Backends that fail, and those that are chosen")
	for _, s := range []struct {
		name, what string
		show       func(context.Context) error
	}{
		{"health_failover", "a backend ends: no request fails, checks find it down, and back up when it returns", d.failover},
		{"return_path_verdict", "a backend answers the host but not the virtual address: a spoofed check says so", d.returnPath},
		{"sni_route", "a TLS client gets to the pool of the name that it asks for; the TLS stays end to end", d.sniRoutes},
		{"proxy_protocol", "a backend that sees the proxy's address learns the client's from a PROXY header", d.proxied},
		{"runtime_drain", "a backend is drained by the API: it gets no new flow until it is ready again", d.runtimeDrain},
		{"shadow_bytes_equal", "a second server gets a copy of what a client sends, byte for byte, and its answers go nowhere", d.shadow},
	} {
		d.out.outcome(s.name, s.what, s.show(ctx))
	}
}

// requests makes n requests to the service with two backends, and counts the
// answers of each.
func (d *demo) requests(ctx context.Context, n int) (map[string]int, error) {
	answers := map[string]int{}
	for range n {
		e, err := d.get(ctx, net.JoinHostPort(lab.VIP4, failoverPort))
		if err != nil {
			return answers, err
		}
		answers[e.Server]++
	}
	return answers, nil
}

// both waits until both backends answer: workers take turns on their own.
func (d *demo) both(ctx context.Context) error {
	return d.eventually(ctx, func() error {
		answers, err := d.requests(ctx, 4)
		if err != nil {
			return final{err}
		}
		if len(answers) != 2 {
			return fmt.Errorf("answers by backend: %v, want both", answers)
		}
		return nil
	})
}

func (d *demo) failover(ctx context.Context) error {
	if err := d.both(ctx); err != nil {
		return err
	}
	if err := d.servers.spare.Close(); err != nil {
		return err
	}
	if _, err := d.requests(ctx, 16); err != nil {
		return fmt.Errorf("just after the backend has ended: %w", err)
	}
	if err := d.waitMetric(ctx, 0, "tproxyd_backend_up", "service", "failover", "backend", "two"); err != nil {
		return err
	}
	if answers, err := d.requests(ctx, 8); err != nil || answers["one"] != 8 {
		return fmt.Errorf("with a backend that is down: answers %v%s", answers, because(err))
	}
	if err := d.servers.startSpare(d.lab.Server); err != nil {
		return err
	}
	if err := d.waitMetric(ctx, 1, "tproxyd_backend_up", "service", "failover", "backend", "two"); err != nil {
		return err
	}
	return d.both(ctx)
}

// waitMetric waits until a metric, which has to be there, has a value.
func (d *demo) waitMetric(ctx context.Context, want float64, name string, labels ...string) error {
	return d.eventually(ctx, func() error {
		m, err := scrape(ctx)
		if err != nil {
			return err
		}
		for _, series := range m[name].GetMetric() {
			if has(series, labels) && m.sum(name, labels...) == want {
				return nil
			}
		}
		return fmt.Errorf("%s%v is %v, want %v", name, labels, m.sum(name, labels...), want)
	})
}

func (d *demo) returnPath(ctx context.Context) (err error) {
	const metric = "tproxyd_backend_return_path_ok"
	if err := d.waitMetric(ctx, 1, metric, "service", "return"); err != nil {
		return err
	}
	nl, err := d.lab.Server.Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	away := &netlink.Route{Dst: &net.IPNet{IP: net.ParseIP(returnVIP).To4(), Mask: net.CIDRMask(32, 32)}, Type: unix.RTN_BLACKHOLE}
	if err := nl.RouteAdd(away); err != nil {
		return fmt.Errorf("take the way back away: %w", err)
	}
	err = d.waitMetric(ctx, 0, metric, "service", "return")
	if err == nil {
		err = d.eventually(ctx, d.verdict(ctx))
	}
	if restored := nl.RouteDel(away); err != nil || restored != nil {
		return errors.Join(err, restored)
	}
	return d.waitMetric(ctx, 1, metric, "service", "return")
}

// verdict says whether the daemon tells an operator what is the matter.
func (d *demo) verdict(ctx context.Context) func() error {
	return func() error {
		var s admin.Service
		err := adminGet(ctx, "/api/v1/services/return", func(r io.Reader) error { return json.NewDecoder(r).Decode(&s) })
		switch {
		case err != nil:
			return err
		case len(s.Backends) != 1 || s.Backends[0].State != admin.BackendDown:
			return fmt.Errorf("backends %+v, want one that is down", s.Backends)
		case !strings.Contains(s.Backends[0].Reason, "does not route replies back"):
			return fmt.Errorf("the reason shown is %q", s.Backends[0].Reason)
		}
		d.out.say("%s: %s", s.Backends[0].Name, s.Backends[0].Reason)
		return nil
	}
}

func (d *demo) sniRoutes(ctx context.Context) error {
	for name, want := range map[string]string{"api.example": "backend-1", "www.shop.example": "backend-2"} {
		got, err := d.hello(ctx, name)
		if err != nil || got != want {
			return fmt.Errorf("%s: answer of %q, want %s%s", name, got, want, because(err))
		}
		d.out.say("%s is answered by %s", name, got)
	}
	if got, err := d.hello(ctx, "other.example"); err == nil {
		return fmt.Errorf("a name without a route is answered by %s", got)
	}
	return nil
}

// hello shakes hands for name and reads what the server says.
func (d *demo) hello(ctx context.Context, name string) (string, error) {
	c, err := d.dial(ctx, net.JoinHostPort(lab.VIP4, secretPort))
	if err != nil {
		return "", err
	}
	// The demo has no authority that could sign certificates.
	secured := tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	defer func() { _ = secured.Close() }() // what it says has been read
	text, err := io.ReadAll(secured)
	return string(text), err
}

func (d *demo) proxied(ctx context.Context) error {
	c, err := d.dial(ctx, net.JoinHostPort(lab.VIP4, proxiedPort))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "payload\n"); err != nil {
		return err
	}
	var got header
	if err := json.NewDecoder(c).Decode(&got); err != nil {
		return err
	}
	d.out.say("the backend is connected to %s, and reads from the header: client %s, to %s; then: %q", got.Peer, got.Source, got.Destination, got.Rest)
	peer, _, err := net.SplitHostPort(got.Peer)
	want := header{Peer: got.Peer, Source: c.LocalAddr().String(), Destination: c.RemoteAddr().String(), Rest: "payload\n"}
	if err != nil || peer != lab.ProxyServerIP4 || got != want {
		return fmt.Errorf("the backend got %+v, want %+v%s", got, want, because(err))
	}
	return nil
}

func (d *demo) runtimeDrain(ctx context.Context) error {
	if err := d.setBackend(ctx, "drain"); err != nil {
		return err
	}
	if answers, err := d.requests(ctx, 8); err != nil || answers["one"] != 8 {
		return fmt.Errorf("with a backend that is drained: answers %v%s", answers, because(err))
	}
	if err := d.setBackend(ctx, "ready"); err != nil {
		return err
	}
	return d.both(ctx)
}

// setBackend changes one of the two backends.
func (d *demo) setBackend(ctx context.Context, state string) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.step)
	defer cancel()
	body := fmt.Appendf(nil, `{"state": %q}`, state)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+adminAddress+"/api/v1/services/failover/backends/two", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var b admin.Backend
	if err := json.NewDecoder(res.Body).Decode(&b); err != nil || string(b.AdminState) != state {
		return fmt.Errorf("set state %q: %s, %+v%s", state, res.Status, b, because(err))
	}
	d.out.say("POST %s %s: %s", req.URL.Path, body, b.State)
	return nil
}
