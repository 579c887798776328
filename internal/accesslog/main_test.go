package accesslog_test

import (
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tproxyd/tproxyd/internal/accesslog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// full is a flow of TCP with every field set.
func full() accesslog.Record {
	return accesslog.Record{
		Time:           time.Date(2026, 2, 3, 4, 5, 6, 7891000, time.UTC),
		FlowID:         0x00c0ffee00000001,
		Service:        "web",
		Protocol:       "tcp",
		Client:         netip.MustParseAddrPort("198.18.1.2:40000"),
		Destination:    netip.MustParseAddrPort("203.0.113.10:443"),
		Backend:        netip.MustParseAddrPort("198.18.2.2:8443"),
		UpstreamSource: netip.MustParseAddrPort("198.18.1.2:40000"),
		BackendName:    "web-1",
		SourcePolicy:   "client",
		BytesIn:        517,
		BytesOut:       104857600,
		Queue:          0,
		Connect:        1042 * time.Microsecond,
		Duration:       2*time.Second + 7*time.Microsecond + 999,
		PathIn:         "copy",
		PathOut:        "splice",
		Retries:        1,
		ClientRTT:      25312 * time.Microsecond,
		UpstreamRTT:    -1,
		ClientRetrans:  3, UpstreamRetrans: -1,
		LimitedBy: "network",
		Reason:    "client_fin",
		Term:      "--",
		ActConn:   9,
		FeConn:    5,
		BeConn:    4,
		SrvConn:   2,
	}
}

// records are the flows of the golden files.
func records() []accesslog.Record {
	v6 := full()
	v6.Client = netip.MustParseAddrPort("[2001:db8::1]:50000")
	v6.Destination = netip.MustParseAddrPort("[2001:db8::10]:443")
	v6.Backend = netip.MustParseAddrPort("[2001:db8:1::2]:8443")
	v6.UpstreamSource = netip.MustParseAddrPort("[2001:db8::1]:50000")
	v6.BackendName = ""

	refused := full()
	refused.Backend, refused.UpstreamSource, refused.BackendName = netip.AddrPort{}, netip.AddrPort{}, ""
	refused.BytesIn, refused.BytesOut = 0, 0
	refused.Queue, refused.Connect, refused.Duration = -1, -1, 3*time.Second
	refused.PathIn, refused.PathOut = "none", "none"
	refused.Reason, refused.Term = "connect_timeout", "sC"

	odd := full()
	odd.Service = "a \"b\"/\\c\n\x00\x7fé\xff"
	odd.BackendName = "x/y z#1"
	odd.Client = netip.AddrPortFrom(netip.MustParseAddr("fe80::1").WithZone(`e"0`), 1)
	odd.Term = ""

	seen := full()
	seen.Tapped, seen.TapClient, seen.TapUpstream = true, 1, 0.5

	return []accesslog.Record{full(), v6, refused, udp(), seen, odd, {}}
}

// udp is a flow of datagrams with every field set.
func udp() accesslog.Record {
	r := full()
	r.Service, r.Protocol, r.BackendName = "dns", "udp", "dns-1"
	r.Destination = netip.MustParseAddrPort("203.0.113.53:53")
	r.Backend = netip.MustParseAddrPort("198.18.2.53:53")
	r.BytesIn, r.BytesOut = 66, 142
	r.DatagramsIn, r.DatagramsOut = 2, 3
	r.PathOut, r.Retries = "copy", 0
	r.Reason = "answered"
	return r
}
