package tap_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/ringcap/pcapng"
	"github.com/tproxyd/tproxyd/ringcap/tap"
)

// TestLinkedFlow reads both legs of each flow back, from the first SYN on,
// although the upstream source becomes known only after connect has returned.
func TestLinkedFlow(t *testing.T) {
	l := netnstest.New(t)
	var mu sync.Mutex
	done := map[uint64]tap.Completeness{}
	m := manage(t, tap.Options{Application: "test", Completed: func(c tap.Completeness) {
		mu.Lock()
		defer mu.Unlock()
		done[c.Flow] = c
	}})
	r := newRelay(t, m, l, "web", new(atomic.Uint64), 50*time.Millisecond) // longer than a block is open
	dir := t.TempDir() + "/made"
	apply(t, m, tap.Config{
		Endpoints: r.endpoints(), Captures: []tap.Capture{{Name: "all", Directory: dir}},
		// While a block settles, others fill: that is what the many are for.
		Settle: 500 * time.Millisecond, Ring: tap.Ring{BlockSize: 128 << 10, Blocks: 256},
		Names: []pcapng.Name{{Addr: netip.MustParseAddr(lab.ServerIP4), Name: "b1"}},
	})
	const flows, size = 3, 200_000
	for range flows {
		r.exchange(size)
	}
	netnstest.Eventually(t, patience, func() bool { mu.Lock(); defer mu.Unlock(); return len(done) == flows }, "flows are reported")
	for id, c := range done {
		if c.Ratio != 1 || c.Reason != "done" || c.ClientIn != size || c.UpstreamIn != size || c.ClientOut != size || c.UpstreamOut != size {
			t.Errorf("flow %d: %+v", id, c)
		}
	}
	if err := m.Stop("all"); err != nil {
		t.Fatal(err)
	}
	paths := complete(t, dir)
	if len(paths) != 1 {
		t.Fatal(paths)
	}
	all := tshark(t, paths[0])
	for id := 1; id <= flows; id++ {
		id := strconv.Itoa(id)
		for _, side := range []string{lab.ClientLink + ":client", lab.ServerLink + ":upstream"} {
			if n := count(all, func(p seen) bool { return p.id == id && p.side == side && p.syn }); n != 2 {
				t.Errorf("flow %s has %d SYNs on %s, want 2", id, n, side)
			}
			if n := count(all, func(p seen) bool { return p.id == id && p.side == side && p.fin }); n < 2 {
				t.Errorf("flow %s has %d FINs on %s, want 2", id, n, side)
			}
		}
		comments := 0
		for _, p := range all {
			if p.id != id || p.comment == "" {
				continue
			}
			comments++
			for _, part := range []string{"flow " + id + " of service web", "backend b1", "by round-robin, because its turn, source host"} {
				if !strings.Contains(p.comment, part) {
					t.Errorf("comment %q does not say %q", p.comment, part)
				}
			}
		}
		if comments != 1 {
			t.Errorf("%d comments of flow %s", comments, id)
		}
	}
	if strays := count(all, func(p seen) bool { return p.id == "" }); strays > 0 {
		t.Errorf("%d of %d packets have no id", strays, len(all))
	}
	s := m.Stats()
	if s.Captures[0].Packets != uint64(len(all)) || s.Captures[0].SinkDrops+s.Captures[0].RingDrops != 0 {
		t.Errorf("%d packets in the file, stats %+v", len(all), s.Captures)
	}
}

// TestEvents puts what the proxy decided into captures and streams, and shows
// the counts as metrics.
func TestEvents(t *testing.T) {
	netnstest.New(t)
	m := manage(t, tap.Options{})
	dir := t.TempDir()
	apply(t, m, tap.Config{Captures: []tap.Capture{
		{Name: "all", Directory: dir + "/all"},
		{Name: "mail", Directory: dir + "/mail", Selection: tap.Selection{Services: []string{"mail"}}},
	}})
	at := time.Unix(1_700_000_000, 5)
	m.Event(tap.Event{Time: at, Kind: "ejected", Service: "web", Backend: "b1", Text: "five failures"})
	m.Event(tap.Event{Time: at, Kind: "denied", Service: "mail", Client: netip.MustParseAddrPort("198.18.1.2:5000")})
	var viewed bytes.Buffer
	metrics := func() string { return scrape(t, m) }
	netnstest.Eventually(t, patience, func() bool {
		s := m.List()
		return s[0].Events == 2 && s[1].Events == 1
	}, "events are written")
	if err := m.Live(expired(t), tap.Query{Name: "v"}, &viewed); err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		`tproxyd_tap_packets_total{capture="all"} 0`, `tproxyd_tap_sink_drops_total{sink="live"} 0`,
		`tproxyd_tap_freezes_total{interface="lab-client",ring="capture"} 0`, `tproxyd_tap_ring_fill{interface="lab-server",ring="capture"} 0`,
		`tproxyd_tap_flow_completeness_count 0`,
	} {
		if got := metrics(); !strings.Contains(got, want) {
			t.Errorf("no %s in:\n%s", want, got)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	all := tshark(t, complete(t, dir+"/all")[0])
	if len(all) != 2 || all[0].comment != "ejected, service web, backend b1: five failures" || !all[0].time.Equal(at) {
		t.Errorf("events %+v", all)
	}
	mail := tshark(t, complete(t, dir+"/mail")[0])
	if len(mail) != 1 || mail[0].comment != "denied, service mail, client 198.18.1.2:5000" {
		t.Errorf("events %+v", mail)
	}
	if err := m.Live(t.Context(), tap.Query{}, &viewed); !errors.Is(err, tap.ErrClosed) {
		t.Errorf("Live after Close: %v", err)
	}
	if err := m.Apply(tap.Config{}); !errors.Is(err, tap.ErrClosed) {
		t.Errorf("Apply after Close: %v", err)
	}
}

// expired is a context that has ended.
func expired(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func scrape(t *testing.T, m *tap.Manager) string {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(m)
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, f := range all {
		if _, err := expfmt.MetricFamilyToText(&out, f); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}
