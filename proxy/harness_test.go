package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/accesslog"
	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/rules"
	"go.uber.org/zap/zaptest"
)

const patience = 10 * time.Second // for what should happen at once

// bed is a lab with a proxy in it.
type bed struct {
	*lab.Lab
	t       *testing.T
	proxy   *Proxy
	records *recordKeeper
}

// recordKeeper is a Records that keeps all.
type recordKeeper struct {
	mu  sync.Mutex
	all []accesslog.Record
}

func (k *recordKeeper) Get() []accesslog.Record { return make([]accesslog.Record, 0, 64) }

func (k *recordKeeper) Offer(b []accesslog.Record) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all = append(k.all, b...)
	return true
}

// wait returns the records once there are n.
func (k *recordKeeper) wait(t *testing.T, n int) []accesslog.Record {
	t.Helper()
	var got []accesslog.Record
	netnstest.Eventually(t, patience, func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		got = append(got[:0], k.all...)
		return len(got) >= n
	}, fmt.Sprintf("want %d access records", n))
	return got
}

// newBed makes a lab with rules that intercept what goes to the foreign
// addresses, and a proxy that serves services.
func newBed(t *testing.T, services ...Service) *bed {
	t.Helper()
	return newBedConfig(t, Config{Services: services, DrainTimeout: time.Second, Records: true})
}

func newBedConfig(t *testing.T, c Config) *bed {
	t.Helper()
	return newBedWorkers(t, 2, c)
}

func newBedWorkers(t *testing.T, workers int, c Config) *bed {
	t.Helper()
	b := &bed{Lab: netnstest.New(t), t: t, records: &recordKeeper{}}
	plan := rules.Plan{Intercepts: []rules.Intercept{{
		Name:         "foreign",
		DestPrefixes: []netip.Prefix{netip.MustParsePrefix(lab.ForeignNet4), netip.MustParsePrefix(lab.ForeignNet6)},
		ToPort:       interceptPort,
		OnFailure:    rules.Block,
	}}}
	if err := rules.Apply(plan); err != nil {
		t.Fatal(err)
	}
	p, err := New(Options{Workers: workers, Records: b.records, Log: zaptest.NewLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	b.proxy = p
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := p.Apply(c); err != nil {
		t.Fatal(err)
	}
	return b
}

const interceptPort = 15001

// vip returns a service on the VIPs of both families with one backend of each.
func vip(name string, port int) Service {
	return Service{
		Name: name, Mode: VIP, Source: Client, ConnectTimeout: 2 * time.Second,
		IdleTimeout: time.Minute, HalfCloseTimeout: time.Minute, Retries: 1,
		Listen: []netip.AddrPort{addrPort(lab.VIP4, port), addrPort(lab.VIP6, port)},
		Backends: []Backend{
			{Name: "a4", Addr: addrPort(lab.ServerIP4, port), Weight: 1},
			{Name: "a6", Addr: addrPort(lab.ServerIP6, port), Weight: 1},
		},
	}
}

// intercept returns a service that gets what goes to the foreign addresses.
func intercept() Service {
	s := vip("any", interceptPort)
	s.Mode, s.Backends = Intercept, nil
	s.Listen = []netip.AddrPort{addrPort("0.0.0.0", interceptPort), addrPort("::", interceptPort)}
	return s
}

func addrPort(ip string, port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), uint16(port))
}

// server listens on all addresses of the server and gives each connection to
// serve, on a goroutine of its own.
func (b *bed) server(port int, serve func(*net.TCPConn)) {
	b.t.Helper()
	b.listen(b.Server, fmt.Sprintf(":%d", port), serve)
}

func (b *bed) listen(h *lab.Host, address string, serve func(*net.TCPConn)) {
	b.t.Helper()
	ln, err := h.Listen("tcp", address)
	if err != nil {
		b.t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				serve(c.(*net.TCPConn))
			})
		}
	})
	b.t.Cleanup(func() {
		ln.Close()
		conns.Wait()
	})
}

// dial connects the client to address.
func (b *bed) dial(address netip.AddrPort) *net.TCPConn {
	b.t.Helper()
	c, err := b.tryDial(address)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

// tryDial connects the client to address.
func (b *bed) tryDial(address netip.AddrPort) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := b.Client.Dial(ctx, "tcp", address.String())
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	b.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn), nil
}

// echo sends back what comes until the client ends its stream.
func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
}

// families runs test once with the address of each family.
func families(t *testing.T, v4, v6 string, test func(t *testing.T, ip string)) {
	t.Run("v4", func(t *testing.T) { test(t, v4) })
	t.Run("v6", func(t *testing.T) { test(t, v6) })
}
