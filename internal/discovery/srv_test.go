package discovery_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/tproxyd/tproxyd/internal/discovery"
)

var https = discovery.Query{SRV: "_https._tcp.example"}

func weighted(address string, weight int, backup bool) discovery.Endpoint {
	return discovery.Endpoint{Addr: netip.MustParseAddrPort(address), Weight: weight, Backup: backup}
}

func TestSRV(t *testing.T) {
	records := []dnsmessage.Resource{
		srv(90, 10, 60000, 443, "a.example."), srv(90, 10, 30000, 444, "b.example."),
		srv(90, 10, 1, 445, "c.example."), srv(90, 20, 5, 443, "b.example."),
		srv(90, 30, 0, 443, "c.example."), srv(90, 10, 7, 446, "missing.example."),
		srv(90, 20, 9, 443, "a.example."), // as a backup too: it is one already
		srv(90, 10, 9, 0, "c.example."), srv(90, 10, 9, 443, "."),
		host("a.example.", 60, "198.18.2.1"), host("b.example.", 30, "198.18.2.2"),
		host("b.example.", 60, "2001:db8::2"), cname("c.example.", 60, "d.example."), host("d.example.", 60, "198.18.2.3"),
	}
	s := startServer(t, records...)
	h := start(t, to(s), https)
	between(t, h.round(), 27*time.Second, 30*time.Second)
	want := []discovery.Endpoint{
		weighted("198.18.2.1:443", 256, false), weighted("198.18.2.2:443", 5, true), weighted("198.18.2.2:444", 128, false),
		weighted("198.18.2.3:443", 1, true), weighted("198.18.2.3:445", 1, false),
		weighted("[2001:db8::2]:443", 5, true), weighted("[2001:db8::2]:444", 128, false),
	}
	h.expect(https, nil, want...)
	// A host that cannot be asked for keeps its addresses; the others go on.
	s.answers(func(r *request) [][]byte {
		if r.Questions[0].Name.String() == "b.example." {
			return with(dnsmessage.RCodeServerFailure)(r)
		}
		return [][]byte{r.byRecords()}
	})
	h.again(time.Minute)
	h.expect(https, discovery.ErrServer, want...)
	s.answers(with(dnsmessage.RCodeServerFailure))
	h.again(time.Minute)
	h.expect(https, discovery.ErrServer, want...)
	s.set(srv(90, 0, 0, 0, "."))
	h.again(time.Minute)
	h.expect(https, discovery.ErrNotOffered, want...)
	s.set(srv(90, 0, 0, 443, "a.example."), host("a.example.", 90, "198.18.2.9"))
	h.again(time.Minute)
	h.expect(https, nil, weighted("198.18.2.9:443", 1, false))
}

// TestSRVBounds: many hosts with many addresses give no more than there may
// be, and those are no backups.
func TestSRVBounds(t *testing.T) {
	var records []dnsmessage.Resource
	for i := range 100 {
		target := fmt.Sprintf("h%d.example.", i)
		records = append(records, srv(60, uint16(i%2), uint16(i), 443, target))
		for j := range 20 {
			records = append(records, host(target, 60, fmt.Sprintf("198.18.%d.%d", 100-i, j)))
		}
	}
	h := start(t, to(startServer(t, records...)), https)
	h.round()
	a := h.resolver.Answers()[https]
	if len(a.Endpoints) != discovery.MaxEndpoints || a.Err != nil {
		t.Fatalf("%d endpoints, error %v", len(a.Endpoints), a.Err)
	}
	for _, e := range a.Endpoints {
		if e.Backup || e.Weight < 1 || e.Weight > 256 {
			t.Fatalf("%+v", e)
		}
	}
}
