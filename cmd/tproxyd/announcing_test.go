package main

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/tproxyd/tproxyd/config"
	"github.com/tproxyd/tproxyd/internal/announce"
	"github.com/tproxyd/tproxyd/proxy"
	"go.uber.org/zap"
)

// calls are what was asked to be announced, since the last look.
type calls struct {
	mu   sync.Mutex // nobody waits for it: time alone orders nothing
	made []announce.Config
	fail bool
	over int // ended by their context
}

// announce takes two seconds.
func (c *calls) announce(ctx context.Context, cfg announce.Config) error {
	c.mu.Lock()
	c.made = append(c.made, cfg)
	c.mu.Unlock()
	select {
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		c.over++
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail {
		return errors.New("there is no way")
	}
	return nil
}

func (c *calls) failing(fail bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = fail
}

// TestAnnouncing holds when what is announced, on time that is made.
func TestAnnouncing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		serving, c := proxy.Serving{}, &calls{}
		a := newAnnouncements(zap.NewNop())
		a.announce, a.serving = c.announce, func(string) proxy.Serving { return serving }
		want := func(when string, all ...announce.Config) {
			t.Helper()
			synctest.Wait()
			c.mu.Lock()
			defer c.mu.Unlock()
			if diff := cmp.Diff(all, c.made, cmpopts.IgnoreFields(announce.Config{}, "Sent", "Sending"), cmpopts.EquateEmpty(),
				cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("%s: -want +got\n%s", when, diff)
			}
			c.made = nil
		}
		p := netip.MustParseAddrPort
		svc := config.Service{Name: "a", Announce: true, Listen: []netip.AddrPort{p("203.0.113.11:1"), p("203.0.113.10:1"), p("203.0.113.11:2"), p("[2001:db8::1]:1")}}
		other := config.Service{Name: "b", Listen: []netip.AddrPort{p("203.0.113.12:1")}}
		four := announce.Config{Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("203.0.113.11")}}
		six := announce.Config{Addresses: []netip.Addr{netip.MustParseAddr("2001:db8::1")}}
		conf := func(services ...config.Service) *config.Config { return &config.Config{Services: services} }

		serving.IPv4 = true
		a.set(conf(svc, other))
		want("before it is ready")
		a.begin()
		want("ready", four)
		time.Sleep(time.Hour) //nolint:forbidigo // the clock of synctest
		a.update()
		want("nothing has changed")
		serving.IPv6 = true
		a.update()
		want("the other family", six)
		serving = proxy.Serving{}
		a.update()
		if c.over != 1 {
			t.Errorf("%d were stopped, want the one under way", c.over)
		}
		serving.IPv4 = true
		a.update()
		want("it is back", four)
		time.Sleep(time.Minute) //nolint:forbidigo // the clock of synctest

		svc.AnnounceInterface, four.Interfaces = "eth0", []string{"eth0"}
		c.failing(true)
		a.set(conf(svc))
		want("elsewhere", four)
		time.Sleep(2*time.Second + announceRetry) //nolint:forbidigo // the clock of synctest
		want("after a failure", four)
		time.Sleep(2*time.Second + announceRetry - 1) //nolint:forbidigo // the clock of synctest
		want("not yet")
		c.failing(false)
		time.Sleep(time.Hour) //nolint:forbidigo // the clock of synctest
		want("after the next one", four)
		svc.Announce = false
		a.set(conf(svc))
		svc.Announce = true
		a.set(conf(svc))
		want("switched on again", four)
		a.close()
		if c.over != 2 || len(a.running) > 0 {
			t.Errorf("%d were stopped, %d run", c.over, len(a.running))
		}
		a.update()
		want("after the end")
	})
}
