package discovery_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// A server is a name server with the records it is given, and with a say in
// how it answers.
type server struct {
	t    testing.TB
	addr netip.AddrPort

	mu      sync.Mutex
	records []dnsmessage.Resource
	answer  func(*request) [][]byte // nil: by the records
	asked   []string
}

// A request is one message to a server.
type request struct {
	dnsmessage.Message
	tcp bool
	s   *server
}

// startServer runs a server on a free port of UDP and TCP.
func startServer(t testing.TB, records ...dnsmessage.Resource) *server {
	t.Helper()
	return startServerAt(t, "127.0.0.1:0", records...)
}

func startServerAt(t testing.TB, address string, records ...dnsmessage.Resource) *server {
	t.Helper()
	var lc net.ListenConfig
	tcp, err := lc.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	udp, err := lc.ListenPacket(t.Context(), "udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, addr: netip.MustParseAddrPort(tcp.Addr().String()), records: records}
	var all sync.WaitGroup
	all.Go(func() { s.serveUDP(udp) })
	all.Go(func() { s.serveTCP(tcp) })
	t.Cleanup(func() {
		_, _ = tcp.Close(), udp.Close()
		all.Wait()
	})
	return s
}

func (s *server) serveUDP(conn net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		for _, msg := range s.handle(buf[:n], false) {
			_, _ = conn.WriteTo(msg, from)
		}
	}
}

func (s *server) serveTCP(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		s.serveConn(conn)
	}
}

func (s *server) serveConn(conn net.Conn) {
	defer conn.Close()
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return
	}
	for _, msg := range s.handle(buf, true) {
		_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...))
	}
}

func (s *server) handle(msg []byte, tcp bool) [][]byte {
	r := &request{tcp: tcp, s: s}
	if err := r.Unpack(msg); err != nil || len(r.Questions) != 1 {
		s.t.Errorf("server was sent %x: %v", msg, err)
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := r.Questions[0]
	s.asked = append(s.asked, strings.TrimPrefix(q.Type.String(), "Type")+" "+q.Name.String())
	if s.answer != nil {
		return s.answer(r)
	}
	return [][]byte{r.byRecords()}
}

// set replaces the records, and answers by them.
func (s *server) set(records ...dnsmessage.Resource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records, s.answer = records, nil
}

// answers replaces the way to answer.
func (s *server) answers(how func(*request) [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = how
}

// questions is what was asked so far.
func (s *server) questions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.asked...)
}

// reply is a message that answers r.
func (r *request) reply(code dnsmessage.RCode, answers ...dnsmessage.Resource) dnsmessage.Message {
	return dnsmessage.Message{
		Header:    dnsmessage.Header{ID: r.ID, Response: true, RCode: code},
		Questions: r.Questions,
		Answers:   answers,
	}
}

func (r *request) pack(m dnsmessage.Message) []byte {
	msg, err := m.Pack()
	if err != nil {
		r.s.t.Error(err)
	}
	return msg
}

// byRecords answers as an honest server does, with the CNAMEs it has.
func (r *request) byRecords() []byte {
	name, kind := r.Questions[0].Name, r.Questions[0].Type
	var answers []dnsmessage.Resource
	exists := false
	for range 20 {
		var alias *dnsmessage.CNAMEResource
		for _, rr := range r.s.records {
			if !strings.EqualFold(rr.Header.Name.String(), name.String()) {
				continue
			}
			exists = true
			c, isAlias := rr.Body.(*dnsmessage.CNAMEResource)
			if isAlias {
				alias = c
			}
			if isAlias || rr.Header.Type == kind {
				answers = append(answers, rr)
			}
		}
		if alias == nil {
			break
		}
		name = alias.CNAME
	}
	code := dnsmessage.RCodeSuccess
	if !exists {
		code = dnsmessage.RCodeNameError
	}
	msg := r.pack(r.reply(code, answers...))
	if !r.tcp && len(msg) > 1232 {
		m := r.reply(code)
		m.Truncated = true
		return r.pack(m)
	}
	return msg
}

// with answers every question with the given code and records.
func with(code dnsmessage.RCode, answers ...dnsmessage.Resource) func(*request) [][]byte {
	return func(r *request) [][]byte { return [][]byte{r.pack(r.reply(code, answers...))} }
}

func resource(name string, ttl uint32, kind dnsmessage.Type, body dnsmessage.ResourceBody) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{
		Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET, TTL: ttl,
	}, Body: body}
}

// host is an A or AAAA record.
func host(name string, ttl uint32, address string) dnsmessage.Resource {
	a := netip.MustParseAddr(address)
	if a.Is4() {
		return resource(name, ttl, dnsmessage.TypeA, &dnsmessage.AResource{A: a.As4()})
	}
	return resource(name, ttl, dnsmessage.TypeAAAA, &dnsmessage.AAAAResource{AAAA: a.As16()})
}

func cname(name string, ttl uint32, target string) dnsmessage.Resource {
	return resource(name, ttl, dnsmessage.TypeCNAME, &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(target)})
}

// srv is a record of the one service that there is.
func srv(ttl uint32, priority, weight, port uint16, target string) dnsmessage.Resource {
	return resource("_https._tcp.example.", ttl, dnsmessage.TypeSRV, &dnsmessage.SRVResource{
		Priority: priority, Weight: weight, Port: port, Target: dnsmessage.MustNewName(target),
	})
}

// closedPort is an address at which nobody answers.
func closedPort(t testing.TB) netip.AddrPort {
	t.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.9:0")
	if err != nil {
		t.Fatal(err)
	}
	a := netip.MustParseAddrPort(conn.LocalAddr().String())
	if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	return a
}
