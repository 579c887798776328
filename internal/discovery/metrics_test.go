package discovery_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/tproxyd/tproxyd/internal/discovery"
)

func TestMetrics(t *testing.T) {
	s := startServer(t, host("web.example.", 60, "198.18.2.2"), host("web.example.", 60, "198.18.2.3"))
	h := start(t, to(s), web)
	h.round()
	s.answers(with(dnsmessage.RCodeServerFailure))
	h.again(time.Minute)
	// The same name with an interval of its own, never answered.
	h.resolver.Set([]discovery.Query{web, {Host: web.Host, Port: web.Port, Interval: time.Minute}})
	h.round()
	h.resolver.Set([]discovery.Query{web})
	want := `
# HELP tproxyd_resolver_endpoints Addresses that a name stands for, by the last good answer.
# TYPE tproxyd_resolver_endpoints gauge
tproxyd_resolver_endpoints{name="Web.example:80"} 2
# HELP tproxyd_resolver_last_success_timestamp_seconds When the last good answer for a name came; 0: never.
# TYPE tproxyd_resolver_last_success_timestamp_seconds gauge
tproxyd_resolver_last_success_timestamp_seconds{name="Web.example:80"} 1e+09
# HELP tproxyd_resolver_queries_total Messages sent to name servers, by what became of them.
# TYPE tproxyd_resolver_queries_total counter
tproxyd_resolver_queries_total{result="malformed"} 0
tproxyd_resolver_queries_total{result="network"} 0
tproxyd_resolver_queries_total{result="nodata"} 1
tproxyd_resolver_queries_total{result="nxdomain"} 0
tproxyd_resolver_queries_total{result="ok"} 1
tproxyd_resolver_queries_total{result="server-error"} 8
tproxyd_resolver_queries_total{result="timeout"} 0
`
	if err := testutil.CollectAndCompare(h.resolver, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.CollectAndLint(h.resolver); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}
