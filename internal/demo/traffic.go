package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// exchange is a request and what both ends saw of it.
type exchange struct {
	sighting
	client, peer string // of the client's socket
}

// request makes one request on a connection of its own.
func (d *demo) request(ctx context.Context, method, address, path string, body io.Reader, read func(*http.Response) error) (client, peer string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, body)
	if err != nil {
		return "", "", err
	}
	tr := &http.Transport{
		DisableKeepAlives: true, DisableCompression: true,
		ReadBufferSize: blockSize, WriteBufferSize: blockSize,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			c, err := d.dial(ctx, address)
			if err == nil {
				client, peer = c.LocalAddr().String(), c.RemoteAddr().String()
			}
			return c, err
		},
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return client, peer, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return client, peer, fmt.Errorf("%s %s: %s", method, req.URL, res.Status)
	}
	return client, peer, read(res)
}

func (d *demo) get(ctx context.Context, address string) (e exchange, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.step)
	defer cancel()
	e.client, e.peer, err = d.request(ctx, http.MethodGet, address, "/", nil, func(res *http.Response) error {
		return json.NewDecoder(res.Body).Decode(&e.sighting)
	})
	return e, err
}

// family is what differs between IPv4 and IPv6.
type family struct {
	suffix             string
	vip, foreign       string
	vipDNS, foreignDNS string
}

var families = []family{
	{
		"_v4", net.JoinHostPort(lab.VIP4, "80"), net.JoinHostPort(lab.ForeignIP4, foreignPort),
		net.JoinHostPort(lab.VIP4, dnsPort), net.JoinHostPort(lab.ForeignIP4, dnsPort),
	},
	{
		"_v6", net.JoinHostPort(lab.VIP6, "80"), net.JoinHostPort(lab.ForeignIP6, foreignPort),
		net.JoinHostPort(lab.VIP6, dnsPort), net.JoinHostPort(lab.ForeignIP6, dnsPort),
	},
}

// traffic sends HTTP, DNS and bulk, and looks at what both ends saw of it.
func (d *demo) traffic(ctx context.Context) {
	before, err := scrape(ctx)
	if err != nil {
		d.out.check("metrics", false, "%v", err)
	}
	d.vip(ctx)
	d.intercept(ctx)
	d.datagrams(ctx)
	d.smallCopied(ctx, before)
	d.bulk(ctx)
}

func (d *demo) vip(ctx context.Context) {
	d.out.step("HTTP to the virtual address")
	answered := map[string]int{}
	var errs []error
	for _, f := range families {
		e, err := d.get(ctx, f.vip)
		if err == nil {
			d.say(f.vip, e)
			answered[e.Server+f.suffix]++
			err = d.others(ctx, f, answered)
		}
		errs = append(errs, err)
		d.preserved("vip_source_preserved"+f.suffix, e, err)
		d.out.check("vip_peer_is_vip"+f.suffix, err == nil && e.peer == f.vip && e.Destination != f.vip,
			"client is connected to %s, the backend answers at %s%s", e.peer, e.Destination, because(err))
	}
	d.out.check("vip_balanced", len(answered) == 4,
		"answers by backend and family: %v%s", answered, because(errors.Join(errs...)))
}

// others asks on until both backends of a family have answered. Each worker
// takes turns on its own, so that there is no saying when.
func (d *demo) others(ctx context.Context, f family, answered map[string]int) error {
	const most = 64
	for range most {
		e, err := d.get(ctx, f.vip)
		if err != nil {
			return err
		}
		answered[e.Server+f.suffix]++
		if answered["backend-1"+f.suffix] > 0 && answered["backend-2"+f.suffix] > 0 {
			return nil
		}
	}
	return nil
}

func (d *demo) intercept(ctx context.Context) {
	d.out.step("HTTP to a host that the client believes to reach directly")
	for _, f := range families {
		e, err := d.get(ctx, f.foreign)
		if err == nil {
			d.say(f.foreign, e)
		}
		d.preserved("intercept_source_preserved"+f.suffix, e, err)
		d.out.check("intercept_peer_is_destination"+f.suffix, err == nil && e.peer == f.foreign && e.Destination == f.foreign,
			"client is connected to %s, the server was spoken to as %s%s", e.peer, e.Destination, because(err))
	}
}

func (d *demo) say(address string, e exchange) {
	d.out.say("client %s asks %s", e.client, address)
	d.out.say("  %s, spoken to as %s, saw the source %s", e.Server, e.Destination, e.Source)
	d.out.say("  the client saw the peer %s", e.peer)
}

func (d *demo) preserved(name string, e exchange, err error) {
	d.out.check(name, err == nil && e.Source == e.client && e.client != "",
		"client %s, seen by %s as %s%s", e.client, e.Server, e.Source, because(err))
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

// smallCopied waits for the daemon to count what was sent so far.
func (d *demo) smallCopied(ctx context.Context, before metrics) {
	var copied, spliced float64
	err := d.eventually(ctx, func() error {
		now, err := scrape(ctx)
		if err != nil {
			return err
		}
		copied = now.bytesBy("copy") - before.bytesBy("copy")
		spliced = now.bytesBy("splice") - before.bytesBy("splice")
		if active := now.sum("tproxyd_connections_active"); active != 0 || copied == 0 {
			return fmt.Errorf("%v connections are open, %v bytes counted", active, copied)
		}
		return nil
	})
	d.out.check("small_copied", err == nil && copied > 0 && spliced == 0,
		"%v bytes copied, %v spliced%s", copied, spliced, because(err))
}
