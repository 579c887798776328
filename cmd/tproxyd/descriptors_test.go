package main

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// TestDescriptorLimit has 300 clients and 200 descriptors.
func TestDescriptorLimit(t *testing.T) {
	const clients, atOnce = 300, 90
	b := newBed(t)
	start := time.Now()
	d := b.start(fmt.Sprintf(configHead, "", "")+service4, options{confinement: confinement{Descriptors: 200}})
	limit := int(d.metrics().sum("tproxyd_max_connections"))
	if limit < atOnce {
		t.Errorf("%d connections possible with 200 descriptors, want %d", limit, atOnce)
	}
	served := make(chan *net.TCPConn, clients)
	for i := range clients {
		c := b.dial(targets["vip4"])
		go func() {
			if err := ping(c); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
			served <- c
		}()
	}
	var open []*net.TCPConn
	for range limit {
		open = append(open, <-served)
	}
	m := d.metrics()
	if m.sum("tproxyd_connections_active") != float64(limit) || m.sum("tproxyd_accept_pauses_total", "reason=max_connections") == 0 {
		t.Errorf("at the limit of %d: %v connections, %v pauses", limit, m.sum("tproxyd_connections_active"), m.sum("tproxyd_accept_pauses_total"))
	}
	if _, err := d.get("/readyz"); err != nil {
		t.Errorf("/readyz at the limit: %v", err)
	}
	for _, c := range open {
		if err := ping(c); err != nil {
			t.Errorf("a connection at the limit: %v", err)
		}
	}
	for range clients - limit { // each that ends makes room for one
		closeAll(t, open[0])
		open = append(open[1:], <-served)
	}
	closeAll(t, open...)
	m = d.idle()
	if m.sum("tproxyd_connections_closed_total", "reason=client_close") != clients || m.sum("tproxyd_connections_closed_total") != clients {
		t.Errorf("%v connections have ended, %v of them well, want %d", m.sum("tproxyd_connections_closed_total"),
			m.sum("tproxyd_connections_closed_total", "reason=client_close"), clients)
	}
	if n := strings.Count(d.stderr.String(), `"level":"warn"`); n > 1+int(time.Since(start)/time.Second) {
		t.Errorf("%d warnings in %v:\n%s", n, time.Since(start), &d.stderr)
	}
}

// TestAdminTakesDescriptors has clients of the admin address use up the
// descriptors that are left at the limit.
func TestAdminTakesDescriptors(t *testing.T) {
	b := newBed(t)
	start := time.Now()
	d := b.start(configuration("", ""), options{confinement: confinement{Descriptors: 200}})
	var slow []net.Conn
	defer func() { closeAll(t, slow...) }()
	for range 40 {
		c, err := net.Dial("tcp", adminAddress)
		if err != nil {
			t.Fatal(err)
		}
		slow = append(slow, c)
	}
	limit := int(d.metrics().sum("tproxyd_max_connections"))
	var open []*net.TCPConn
	for i := range limit {
		c := b.dial(targets["vip4"])
		if err := ping(c); err != nil {
			t.Fatalf("client %d of %d: %v", i, limit, err)
		}
		open = append(open, c)
	}
	closeAll(t, open...)
	if m := d.idle(); m.sum("tproxyd_connections_rejected_total") != 0 {
		t.Errorf("%v connections were rejected", m.sum("tproxyd_connections_rejected_total"))
	}
	netnstest.Eventually(t, patience, func() bool { return b.talk(targets["vip6"]) == nil }, "connections are accepted")
	if n := strings.Count(d.stderr.String(), `"level":"warn"`); n > 2+2*int(time.Since(start)/time.Second) {
		t.Errorf("%d warnings in %v:\n%s", n, time.Since(start), &d.stderr)
	}
}
