package demo

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// TestResolve has the client ask all name servers directly.
func TestResolve(t *testing.T) {
	l := netnstest.New(t)
	s, err := startServers(l.Server)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	d := &demo{cfg: Config{step: stepLimit}, lab: l}
	for address, name := range dnsServers() {
		e, err := d.resolve(t.Context(), address)
		want := exchange{sighting{Server: name, Source: e.client, Destination: address}, e.client, address}
		if err != nil || e.client == "" {
			t.Errorf("ask %s as %q: %v", address, e.client, err)
		}
		if diff := cmp.Diff(want, e, cmp.AllowUnexported(exchange{}, sighting{})); diff != "" {
			t.Errorf("answer of %s (-want +got):\n%s", address, diff)
		}
	}
	if got, want := d.questions.Load(), uint64(len(dnsServers())); got != want {
		t.Errorf("%d questions counted, want %d", got, want)
	}
}

// TestResolveFails asks a server that knows nothing, and none.
func TestResolveFails(t *testing.T) {
	l := netnstest.New(t)
	pc, err := l.Server.ListenPacket("udp", families[0].foreignDNS)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pc.Close() }()
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, dnsSize)
		_, from, err := pc.ReadFrom(b)
		if err == nil {
			_, err = pc.WriteTo([]byte("no DNS"), from)
		}
		if err != nil {
			t.Error(err)
		}
	}()
	d := &demo{cfg: Config{step: stepLimit}, lab: l}
	if _, err := d.resolve(t.Context(), families[0].foreignDNS); err == nil || !strings.Contains(err.Error(), "parse DNS answer") {
		t.Errorf("error %v, want one about the answer", err)
	}
	<-done
	d.cfg.step = 100 * time.Millisecond
	_, err = d.resolve(t.Context(), families[0].foreignDNS)
	if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
		t.Errorf("error %v, want a time-out", err)
	}
}

func TestDNSAnswer(t *testing.T) {
	seen := sighting{Server: "s", Source: "a:1", Destination: "b:2"}
	message := func(name string, kind dnsmessage.Type, change func(*dnsmessage.Message)) []byte {
		m := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: 7},
			Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
		}
		change(&m)
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	asIs := func(*dnsmessage.Message) {}
	tests := map[string]struct {
		query []byte
		want  string // of the error, here or at the client's end
	}{
		"good":        {message(dnsName, dnsmessage.TypeTXT, asIs), ""},
		"other name":  {message("demo.", dnsmessage.TypeTXT, asIs), "RCodeNameError"},
		"other type":  {message(dnsName, dnsmessage.TypeA, asIs), "0 DNS records"},
		"other id":    {message(dnsName, dnsmessage.TypeTXT, func(m *dnsmessage.Message) { m.ID = 8 }), "is no good answer to query 7"},
		"an answer":   {message(dnsName, dnsmessage.TypeTXT, func(m *dnsmessage.Message) { m.Response = true }), "no DNS query"},
		"no question": {message(dnsName, dnsmessage.TypeTXT, func(m *dnsmessage.Message) { m.Questions = nil }), "no DNS query"},
		"short":       {[]byte("short"), "parse DNS query"},
		"empty":       {nil, "parse DNS query"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := sighting{}
			answer, err := dnsAnswer(tt.query, seen)
			if err == nil {
				got, err = readDNS(answer, 7)
			}
			switch {
			case tt.want == "" && (err != nil || got != seen):
				t.Errorf("got %+v, %v, want %+v", got, err, seen)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got error %v, want %q", err, tt.want)
			}
		})
	}
}
