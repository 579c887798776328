package discovery_test

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/tproxyd/tproxyd/internal/discovery"
)

var web = discovery.Query{Host: "Web.example", Port: 80}

func to(s *server) discovery.Config {
	return discovery.Config{Servers: []netip.AddrPort{s.addr}}
}

func TestHost(t *testing.T) {
	s := startServer(t,
		host("web.example.", 60, "198.18.2.3"), host("web.example.", 30, "198.18.2.2"), host("web.example.", 60, "198.18.2.3"),
		host("web.example.", 90, "2001:db8::2"), host("web.example.", 90, "::ffff:198.18.2.2"), host("web.example.", 90, "0.0.0.0"))
	h := start(t, to(s), web)
	d := h.round()
	between(t, d, 27*time.Second, 30*time.Second)
	first := endpoints("198.18.2.2:80", "198.18.2.3:80", "[2001:db8::2]:80")
	a := h.expect(web, nil, first...)
	if !a.At.Equal(time.Unix(1e9, 0)) || !a.Expires.Equal(a.At.Add(30*time.Second)) {
		t.Errorf("at %v, expires %v", a.At, a.Expires)
	}
	h.again(d)
	h.expect(web, nil, first...)
	s.set(host("web.example.", 60, "198.18.2.4"))
	h.again(d)
	if a := h.expect(web, nil, endpoints("198.18.2.4:80")...); !a.At.Equal(time.Unix(1e9, 0).Add(2 * d)) {
		t.Errorf("at %v", a.At)
	}
	want := []change{{web, first}, {web, endpoints("198.18.2.4:80")}}
	if d := cmp.Diff(want, h.told(), compareAddrs); d != "" {
		t.Errorf("changes (-want +got):\n%s", d)
	}
}

func TestIntervals(t *testing.T) {
	for _, c := range []struct {
		ttl       uint32
		interval  time.Duration
		low, high time.Duration
	}{
		{0, 0, time.Second, time.Second},
		{1, 0, time.Second, time.Second},
		{100, 0, 90 * time.Second, 100 * time.Second},
		{86400, 0, 270 * time.Second, 300 * time.Second},
		{1 << 31, 0, time.Second, time.Second},
		{60, 10 * time.Second, 9 * time.Second, 10 * time.Second},
		{60, time.Hour, 54 * time.Minute, time.Hour},
		{60, time.Millisecond, time.Second, time.Second},
	} {
		s := startServer(t, host("web.example.", c.ttl, "198.18.2.3"))
		h := start(t, to(s), discovery.Query{Host: "web.example", Interval: c.interval})
		between(t, h.round(), c.low, c.high)
	}
}

// failures are the ways in which an answer is none.
var failures = map[string]struct {
	answer func(*request) [][]byte
	err    error
}{
	"SERVFAIL": {with(dnsmessage.RCodeServerFailure), discovery.ErrServer},
	"REFUSED":  {with(dnsmessage.RCodeRefused), discovery.ErrServer},
	"NXDOMAIN": {with(dnsmessage.RCodeNameError), discovery.ErrNoName},
	"no data":  {with(dnsmessage.RCodeSuccess), discovery.ErrNoData},
	"only useless addresses": {
		with(dnsmessage.RCodeSuccess, host("web.example.", 60, "0.0.0.0"), host("web.example.", 60, "ff02::1")), discovery.ErrNoData,
	},
	"records of another name": {
		with(dnsmessage.RCodeSuccess, host("bank.example.", 60, "198.18.6.6")), discovery.ErrNoData,
	},
	"CNAME to itself": {
		with(dnsmessage.RCodeSuccess, cname("web.example.", 60, "web.example.")), discovery.ErrMalformed,
	},
	"CNAME loop": {
		with(dnsmessage.RCodeSuccess, cname("web.example.", 60, "a.example."), cname("a.example.", 60, "web.example.")), discovery.ErrMalformed,
	},
	"endless CNAMEs over messages": {func(r *request) [][]byte {
		name := r.Questions[0].Name.String()
		return [][]byte{r.pack(r.reply(0, cname(name, 60, "a."+name)))}
	}, discovery.ErrMalformed},
	"record cut off": {func(r *request) [][]byte {
		msg := r.byRecords()
		return [][]byte{msg[:len(msg)-1]}
	}, discovery.ErrMalformed},
	"only forgeries": {func(r *request) [][]byte {
		m := r.reply(0, host("web.example.", 60, "198.18.6.6"))
		m.ID++
		return slices.Repeat([][]byte{r.pack(m)}, 300)
	}, discovery.ErrMalformed},
	"truncated by TCP": {func(r *request) [][]byte {
		m := r.reply(0)
		m.Truncated = true
		return [][]byte{r.pack(m)}
	}, discovery.ErrMalformed},
}

// TestKeepsLastGood: whatever goes wrong, what was known stays, is told once
// and asked for again ever more seldom, and all is well when it is over.
func TestKeepsLastGood(t *testing.T) {
	for name, c := range failures {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			records := []dnsmessage.Resource{host("web.example.", 60, "198.18.2.2"), host("web.example.", 60, "2001:db8::2")}
			s := startServer(t, records...)
			h := start(t, to(s), web)
			good := endpoints("198.18.2.2:80", "[2001:db8::2]:80")
			h.round()
			at := h.expect(web, nil, good...).At
			s.answers(c.answer)
			for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
				between(t, h.again(time.Minute), max(want*time.Second*9/10, time.Second), want*time.Second)
			}
			if a := h.expect(web, c.err, good...); !a.At.Equal(at) {
				t.Errorf("good at %v, was %v", a.At, at)
			}
			s.set(records...)
			between(t, h.again(time.Minute), 54*time.Second, time.Minute)
			h.expect(web, nil, good...)
			if told := h.told(); len(told) != 1 {
				t.Errorf("told %v", told)
			}
			want := []string{"endpoints changed", "name does not resolve; its last good endpoints stay", "name resolves again"}
			if d := cmp.Diff(want, h.messages()); d != "" {
				t.Errorf("log (-want +got):\n%s", d)
			}
		})
	}
}

// TestNeverGood: a name that never had an answer has none, and says why.
func TestNeverGood(t *testing.T) {
	h := start(t, discovery.Config{Servers: []netip.AddrPort{closedPort(t)}}, web)
	between(t, h.round(), time.Second, time.Second)
	h.expect(web, syscall.ECONNREFUSED)
	if told := h.told(); len(told) != 0 {
		t.Errorf("told %v", told)
	}
}

// TestSilence: a server that does not answer costs the timeout, and no more.
func TestSilence(t *testing.T) {
	s := startServer(t)
	s.answers(func(*request) [][]byte { return nil })
	cfg := to(s)
	cfg.Timeout = 10 * time.Millisecond
	h := start(t, cfg, web)
	h.round()
	if err := h.resolver.Answers()[web].Err; err == nil {
		t.Error("no error")
	}
	if n := len(s.questions()); n == 0 || n > 4 {
		t.Errorf("asked %d times, want 2 for each family at most", n)
	}
}

// TestFamilyFails: what fails for one family leaves the other alone.
func TestFamilyFails(t *testing.T) {
	s := startServer(t, host("web.example.", 60, "198.18.2.2"), host("web.example.", 60, "2001:db8::2"))
	h := start(t, to(s), web)
	h.round()
	broken := func(r *request) [][]byte {
		if r.Questions[0].Type == dnsmessage.TypeAAAA {
			return with(dnsmessage.RCodeServerFailure)(r)
		}
		return with(0, host("web.example.", 60, "198.18.2.9"))(r)
	}
	s.answers(broken)
	between(t, h.again(time.Minute), time.Second, time.Second)
	h.expect(web, discovery.ErrServer, endpoints("198.18.2.9:80", "[2001:db8::2]:80")...)
	h.again(time.Second)
	s.set(host("web.example.", 60, "198.18.2.9"))
	h.again(time.Second)
	h.expect(web, nil, endpoints("198.18.2.9:80")...)
	s.answers(broken)
	h.again(time.Minute)
	h.expect(web, discovery.ErrServer, endpoints("198.18.2.9:80")...) // not the one before
	want := []string{
		"endpoints changed", "name resolves in part; the rest is as of the last good answer", "endpoints changed",
		"name resolves again", "endpoints changed", "name resolves in part; the rest is as of the last good answer",
	}
	if d := cmp.Diff(want, h.messages()); d != "" {
		t.Errorf("log (-want +got):\n%s", d)
	}
}

// TestForgeries: an answer to something else does not stand in the way of the
// right one.
func TestForgeries(t *testing.T) {
	s := startServer(t, host("web.example.", 60, "198.18.2.2"))
	s.answers(func(r *request) [][]byte {
		evil := host("web.example.", 60, "198.18.6.6")
		id := r.reply(0, evil)
		id.ID ^= 1
		question := r.reply(0, evil)
		question.Questions = []dnsmessage.Question{{Name: dnsmessage.MustNewName("bank.example."), Type: r.Questions[0].Type, Class: dnsmessage.ClassINET}}
		query := r.reply(0, evil)
		query.Response = false
		none := r.reply(0, evil)
		none.Questions = nil
		return [][]byte{nil, []byte("junk"), r.pack(id), r.pack(question), r.pack(query), r.pack(none), r.byRecords()}
	})
	h := start(t, to(s), web)
	h.round()
	h.expect(web, nil, endpoints("198.18.2.2:80")...)
}

// TestTruncated: what does not fit comes by TCP, and is bounded.
func TestTruncated(t *testing.T) {
	var records []dnsmessage.Resource
	var want []discovery.Endpoint
	for i := range 1000 {
		a := fmt.Sprintf("198.18.%d.%d", i/250, i%250)
		records = append(records, host("web.example.", 60, a))
		if i < discovery.MaxEndpoints {
			want = append(want, endpoints(a+":80")...)
		}
	}
	slices.Reverse(records)
	h := start(t, to(startServer(t, records...)), web)
	h.round()
	h.expect(web, nil, want...)
}

// TestNextServer: one that is down and one that fails are passed over.
func TestNextServer(t *testing.T) {
	failing, good := startServer(t), startServer(t, host("web.example.", 60, "198.18.2.2"))
	failing.answers(with(dnsmessage.RCodeServerFailure))
	h := start(t, discovery.Config{Servers: []netip.AddrPort{closedPort(t), failing.addr, good.addr}}, web)
	h.round()
	h.expect(web, nil, endpoints("198.18.2.2:80")...)
}

// TestNoEDNS: a server that does not know EDNS is asked without.
func TestNoEDNS(t *testing.T) {
	s := startServer(t, host("web.example.", 60, "198.18.2.2"))
	s.answers(func(r *request) [][]byte {
		if len(r.Additionals) > 0 {
			m := r.reply(dnsmessage.RCodeFormatError)
			m.Questions = nil
			return [][]byte{r.pack(m)}
		}
		return [][]byte{r.byRecords()}
	})
	h := start(t, to(s), web)
	h.round()
	h.expect(web, nil, endpoints("198.18.2.2:80")...)
}

// TestCNAME: a chain is followed within a message and over messages; its least
// TTL counts.
func TestCNAME(t *testing.T) {
	s := startServer(t)
	s.answers(func(r *request) [][]byte {
		if r.Questions[0].Name.String() == "web.example." {
			return with(0, cname("WEB.example.", 60, "a.example."), cname("a.example.", 20, "b.Example."))(r)
		}
		return with(0, host("b.example.", 90, "198.18.2.2"))(r)
	})
	h := start(t, to(s), web)
	between(t, h.round(), 18*time.Second, 20*time.Second)
	h.expect(web, nil, endpoints("198.18.2.2:80")...)
}

// TestSet: what stays goes on, what is gone is forgotten, what is new is asked.
func TestSet(t *testing.T) {
	s := startServer(t, host("web.example.", 60, "198.18.2.2"), host("new.example.", 60, "198.18.2.3"))
	h := start(t, to(s), web)
	h.round()
	other := discovery.Query{Host: "new.example", Port: 81}
	h.resolver.Set([]discovery.Query{web, other})
	h.round()
	h.expect(web, nil, endpoints("198.18.2.2:80")...)
	h.expect(other, nil, endpoints("198.18.2.3:81")...)
	if n := len(s.questions()); n != 4 {
		t.Errorf("asked %d times: %v", n, s.questions())
	}
	h.resolver.Set([]discovery.Query{other})
	if a := h.resolver.Answers(); len(a) != 1 || len(a[other].Endpoints) != 1 {
		t.Errorf("answers %v", a)
	}
	h.again(time.Minute) // of the one that is left
	h.resolver.Set(nil)
	if a := h.resolver.Answers(); len(a) != 0 {
		t.Errorf("answers %v", a)
	}
}

func TestConfigErrors(t *testing.T) {
	for _, cfg := range []discovery.Config{
		{Timeout: -1},
		{MinInterval: time.Hour, MaxInterval: time.Minute},
		{Servers: []netip.AddrPort{{}}},
		{Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}},
	} {
		if _, err := discovery.New(cfg); err == nil {
			t.Errorf("%+v: no error", cfg)
		}
	}
	if _, err := discovery.New(discovery.Config{MinInterval: time.Hour}); err != nil {
		t.Error(err)
	}
}
