package e2e

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// resolverAnswer is what a resolver on the proxy's host answers.
const resolverAnswer = "203.0.113.1"

// answer is a resolver's answer: the same address for all names.
func answer(query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	if len(m.Questions) != 1 {
		return nil, errors.New("not one question")
	}
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, RecursionDesired: m.RecursionDesired, RecursionAvailable: true}
	m.Additionals = nil
	m.Answers = []dnsmessage.Resource{{
		Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET},
		Body:   &dnsmessage.AResource{A: netip.MustParseAddr(resolverAnswer).As4()},
	}}
	return m.Pack()
}

// startResolver answers on the DNS port of all addresses of the proxy's host,
// by sockets that do not share it: Go sets no SO_REUSEADDR for UDP.
func (s *site) startResolver() {
	s.t.Helper()
	for network, address := range map[string]string{"udp4": "0.0.0.0:53", "udp6": "[::]:53"} {
		pc, err := s.Proxy.ListenPacket(network, address)
		if err != nil {
			s.t.Fatal(err)
		}
		var serving sync.WaitGroup
		serving.Go(func() {
			query := make([]byte, 512)
			for {
				n, from, err := pc.ReadFrom(query)
				if err != nil {
					return // closed
				}
				if reply, err := answer(query[:n]); err == nil {
					_, _ = pc.WriteTo(reply, from) // what is lost is missed by the client
				}
			}
		})
		s.t.Cleanup(func() {
			_ = pc.Close() // has nothing to say that reading has not
			serving.Wait()
		})
	}
}

// wantShared fails the test if the DNS port of an address that the proxy's host
// does not have can be bound beside the resolver, or cannot, against want.
func (s *site) wantShared(ip string, want bool) {
	s.t.Helper()
	err := s.Proxy.Do(func() error {
		lc := net.ListenConfig{Control: transparent}
		pc, err := lc.ListenPacket(context.Background(), "udp", addrPort(ip, dnsPort).String())
		if err == nil {
			_ = pc.Close() // has nothing to say that reading has not
		}
		return err
	})
	if want && err != nil || !want && !errors.Is(err, unix.EADDRINUSE) {
		s.t.Fatalf("bind a transparent socket to %s beside the resolver: %v, want success: %t", ip, err, want)
	}
}

// TestInterceptBesideResolver intercepts questions to a DNS server elsewhere
// on a host that has a resolver of its own, with and without sharing its port.
func TestInterceptBesideResolver(t *testing.T) {
	for _, shared := range []bool{false, true} {
		name := map[bool]string{false: "exclusive", true: "shared"}[shared]
		t.Run(name, func(t *testing.T) {
			// The virtual addresses have another port.
			s := newUDPSite(t, 5353, "")
			if shared {
				s.startKnot(s.Proxy, resolverAnswer, "0.0.0.0", "::")
			} else {
				s.startResolver()
			}
			elsewhere := s.startKnot(s.Server, serverAnswer, lab.ForeignIP4, lab.ForeignIP6)
			s.wantShared(lab.ForeignIP4, shared)
			s.wantShared(lab.ForeignIP6, shared)
			peers := []struct{ client, foreign, own string }{
				{lab.ClientIP4, lab.ForeignIP4, lab.ProxyClientIP4},
				{lab.ClientIP6, lab.ForeignIP6, lab.ProxyClientIP6},
			}
			const rounds = 3
			want := map[netip.AddrPort]int{}
			for i, p := range peers {
				// One port asks both in turn, and takes answers only from whom
				// it asks.
				from := addrPort(p.client, 40001+i)
				for range rounds {
					if got := s.dig(from, p.foreign, "host.example.", "A"); got != serverAnswer+"\n" {
						t.Errorf("the server at %s answers %q, want %s", p.foreign, got, serverAnswer)
					}
					if got := s.dig(from, p.own, "host.example.", "A"); got != resolverAnswer+"\n" {
						t.Errorf("the resolver at %s answers %q, want %s", p.own, got, resolverAnswer)
					}
				}
				want[from] = rounds
			}
			for _, p := range peers { // last: knot leaves out of its log what comes too fast
				s.dnsperf(p.foreign)
				s.dnsperf(p.own)
			}
			s.wantUDPService("intercept-udp")
			wantClients(t, elsewhere.clients(), want)
		})
	}
}

// transparent lets a socket bind to an address of others, and share it.
func transparent(network, _ string, c syscall.RawConn) error {
	level, option := unix.SOL_IP, unix.IP_TRANSPARENT
	if network == "udp6" {
		level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	var err error
	controlErr := c.Control(func(fd uintptr) {
		err = errors.Join(
			os.NewSyscallError("setsockopt(IP_TRANSPARENT)", unix.SetsockoptInt(int(fd), level, option, 1)),
			os.NewSyscallError("setsockopt(SO_REUSEADDR)", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)),
		)
	})
	return errors.Join(controlErr, err)
}
