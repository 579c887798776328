package tap_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/ringcap"
	"github.com/tproxyd/tproxyd/ringcap/tap"
)

// dump reads what the recorder has.
func dump(t *testing.T, m *tap.Manager, q tap.DumpQuery) []seen {
	t.Helper()
	var out bytes.Buffer
	n, err := m.Dump(t.Context(), q, &out)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "dump.pcapng")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	all := tshark(t, path)
	if len(all) != n {
		t.Fatalf("dump of %d packets says %d", len(all), n)
	}
	return all
}

// TestRecorder dumps a flow with both legs, a service, and all, also after the
// flows have ended, and in the order of time.
func TestRecorder(t *testing.T) {
	l := netnstest.New(t)
	m := manage(t, tap.Options{})
	ids := new(atomic.Uint64)
	web, mail := newRelay(t, m, l, "web", ids, 0), newRelay(t, m, l, "mail", ids, 0)
	if _, err := m.Dump(t.Context(), tap.DumpQuery{}, &bytes.Buffer{}); !errors.Is(err, tap.ErrNoRecorder) {
		t.Errorf("dump without a recorder: %v", err)
	}
	cfg := tap.Config{
		Endpoints: append(web.endpoints(), mail.endpoints()...),
		Recorder:  &tap.Recorder{Memory: 8 << 20, Snap: tap.SnapHeaders},
	}
	apply(t, m, cfg)
	web.exchange(10_000)
	web.exchange(10_000)
	mail.exchange(10_000)
	apply(t, m, cfg) // keeps the history
	one := dump(t, m, tap.DumpQuery{Last: time.Minute, Selection: tap.Selection{Flow: 2}})
	sides := map[string]int{}
	for i, p := range one {
		if p.id != "2" {
			t.Errorf("packet of flow %q in the dump of flow 2", p.id)
		}
		if p.syn {
			sides[p.side]++
		}
		if i > 0 && p.time.Before(one[i-1].time) {
			t.Error("packets are not in the order of time")
		}
	}
	if len(sides) != 2 || sides[lab.ClientLink+":client"] != 2 || sides[lab.ServerLink+":upstream"] != 2 {
		t.Errorf("SYNs %v, want two on each leg", sides)
	}
	service := dump(t, m, tap.DumpQuery{Selection: tap.Selection{Services: []string{"web"}}})
	if n := count(service, func(p seen) bool { return p.id == "3" }); n != 0 || len(service) <= len(one) {
		t.Errorf("%d packets of the service, %d of another", len(service), n)
	}
	all := dump(t, m, tap.DumpQuery{Selection: tap.Selection{Strays: true}})
	if n := count(all, func(p seen) bool { return p.id == "" }); n != 0 || len(all) <= len(service) {
		t.Errorf("%d packets, %d of no flow", len(all), n)
	}
	if s := m.Stats().Interfaces; len(s) != 2 || !s[0].Recorder || s[0].Drops != 0 {
		t.Errorf("rings %+v", s)
	}
}

// TestTrigger writes what was before and after, limited in number.
func TestTrigger(t *testing.T) {
	l := netnstest.New(t)
	m := manage(t, tap.Options{})
	dir := t.TempDir()
	cfg := tap.Config{Recorder: &tap.Recorder{
		Memory: 8 << 20, Directory: dir, Before: time.Hour, After: 300 * time.Millisecond, Triggers: []string{"upstream-reset"}, PerMinute: 2, KeepFiles: 1,
	}}
	apply(t, m, cfg)
	s := newStream(t, m, l, 7, "dns", lab.ProxyClientIP4)
	s.send(20, 100)
	if m.Trigger("rtt", tap.Selection{Flow: 7}) {
		t.Error("a reason that is not configured triggers")
	}
	if !m.Trigger("upstream-reset", tap.Selection{Flow: 7}) {
		t.Fatal("no trigger")
	}
	s.send(5, 100)
	netnstest.Eventually(t, patience, func() bool { return len(complete(t, dir)) == 1 }, "dump is written")
	path := complete(t, dir)[0]
	if name := filepath.Base(path); !strings.HasSuffix(name, "-upstream-reset-7.pcapng") {
		t.Errorf("file %s is not named after its reason", name)
	}
	if got := numbers(t, tshark(t, path), "7"); len(got) < 20 {
		t.Errorf("%d datagrams, want those from before", len(got))
	}
	// The second is written at once when the recorder ends; the first goes.
	if !m.Trigger("upstream-reset", tap.Selection{Services: []string{"dns"}}) || m.Trigger("upstream-reset", tap.Selection{}) {
		t.Error("two a minute are allowed")
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	paths := complete(t, dir)
	if len(paths) != 1 || !strings.HasSuffix(paths[0], "-upstream-reset-dns.pcapng") {
		t.Fatalf("files %v, want the last", paths)
	}
	inOrder(t, numbers(t, tshark(t, paths[0]), "7"), 0, 25)
	if st := m.Stats(); st.Dumps != 2 || st.DumpsRefused != 1 {
		t.Errorf("%d dumps, %d refused", st.Dumps, st.DumpsRefused)
	}
	if left, err := filepath.Glob(dir + "/*.tmp"); err != nil || len(left) > 0 {
		t.Error("left", left, err)
	}
}

// TestWindow leaves out what was before and after.
func TestWindow(t *testing.T) {
	l := netnstest.New(t)
	m := manage(t, tap.Options{})
	apply(t, m, tap.Config{Recorder: &tap.Recorder{Memory: 8 << 20}})
	s := newStream(t, m, l, 7, "dns", lab.ProxyClientIP4)
	s.send(10, 100)
	from := time.Now()
	s.send(10, 100)
	to := time.Now()
	s.send(10, 100)
	got := numbers(t, dump(t, m, tap.DumpQuery{Window: ringcap.Window{From: from, To: to}}), "7")
	inOrder(t, got[:10], 10, 20)
	if len(got) != 10 {
		t.Errorf("%d datagrams in the window, want 10", len(got))
	}
}

// TestApplyAtomic checks that a configuration which cannot run changes nothing.
func TestApplyAtomic(t *testing.T) {
	l := netnstest.New(t)
	m := manage(t, tap.Options{})
	dir := t.TempDir()
	good := tap.Capture{Name: "good", Directory: dir}
	apply(t, m, tap.Config{Captures: []tap.Capture{good}})
	s := newStream(t, m, l, 1, "dns", lab.ProxyClientIP4)
	s.send(5, 100)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		cfg  tap.Config
		want string
	}{
		{"interface", tap.Config{Interfaces: []string{"lab-*", "nothing0"}, Captures: []tap.Capture{good}}, "nothing0"},
		{"pattern", tap.Config{Interfaces: []string{"["}}, "syntax error in pattern"},
		{"filter", tap.Config{Interfaces: both, Captures: []tap.Capture{{Name: "x", Directory: dir, Selection: tap.Selection{Filter: "port"}}}}, "compile filter"},
		{"directory", tap.Config{Interfaces: both, Captures: []tap.Capture{{Name: "x", Directory: file}}}, "not a directory"},
		{"name", tap.Config{Interfaces: both, Captures: []tap.Capture{{Name: "live", Directory: dir}}}, "stands for viewers"},
		{"twice", tap.Config{Interfaces: both, Captures: []tap.Capture{good, good}}, "two of the name"},
		{"sample", tap.Config{Interfaces: both, Captures: []tap.Capture{{Name: "x", Directory: dir, Selection: tap.Selection{Sample: 101}}}}, "no percentage"},
		{"geometry", tap.Config{Interfaces: both, Ring: tap.Ring{BlockSize: 100}, Captures: []tap.Capture{good}}, "block"},
		{"recorder", tap.Config{Interfaces: both, Captures: []tap.Capture{good}, Recorder: &tap.Recorder{Directory: file}}, "not a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := m.Apply(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Apply = %v, want %q", err, tt.want)
			}
		})
	}
	s.send(5, 100)
	if err := m.Stop("good"); err != nil {
		t.Fatal(err)
	}
	inOrder(t, numbers(t, tshark(t, complete(t, dir)[0]), "1"), 0, 10)
	if err := m.Stop("x"); !errors.Is(err, tap.ErrUnknown) {
		t.Errorf("Stop = %v", err)
	}
	if list := m.List(); len(list) != 1 || list[0].Running || list[0].Files != 0 || list[0].Packets != 10 {
		t.Errorf("List = %+v", list)
	}
	if err := m.Start("good"); err != nil {
		t.Fatal(err)
	}
	s.send(5, 100)
	if err := m.Stop("good"); err != nil {
		t.Fatal(err)
	}
	inOrder(t, numbers(t, tshark(t, complete(t, dir)[1]), "1"), 10, 15)
}
