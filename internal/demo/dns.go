package demo

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/net/dns/dnsmessage"
)

// dnsName is what the client asks for. Its TXT record is a [sighting]: the
// server's name, the source of the question, and where it was sent to.
const dnsName = "who-asks.demo."

// dnsQuestion is a query as a stub resolver sends it: RFC 1035, section 4.1.
func dnsQuestion(id uint16) ([]byte, error) {
	name, err := dnsmessage.NewName(dnsName)
	if err != nil {
		return nil, fmt.Errorf("make DNS name: %w", err)
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET}},
	}
	return m.Pack()
}

// dnsAnswer answers a query by what the server sees. Other names do not exist.
func dnsAnswer(query []byte, s sighting) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, fmt.Errorf("parse DNS query: %w", err)
	}
	if m.Response || len(m.Questions) != 1 {
		return nil, errors.New("no DNS query of one question")
	}
	q := m.Questions[0]
	answer := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: m.ID, Response: true, Authoritative: true, RecursionDesired: m.RecursionDesired,
		},
		Questions: m.Questions,
	}
	if q.Name.String() != dnsName || q.Class != dnsmessage.ClassINET {
		answer.RCode = dnsmessage.RCodeNameError
	} else if q.Type == dnsmessage.TypeTXT {
		answer.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
			Body:   &dnsmessage.TXTResource{TXT: []string{s.Server, s.Source, s.Destination}},
		}}
	}
	return answer.Pack()
}

// readDNS takes the sighting out of the answer to the query with this ID.
func readDNS(answer []byte, id uint16) (s sighting, err error) {
	var m dnsmessage.Message
	if err := m.Unpack(answer); err != nil {
		return s, fmt.Errorf("parse DNS answer: %w", err)
	}
	if !m.Response || m.ID != id || m.RCode != dnsmessage.RCodeSuccess {
		return s, fmt.Errorf("DNS message %d is no good answer to query %d: %v", m.ID, id, m.RCode)
	}
	if len(m.Answers) != 1 {
		return s, fmt.Errorf("%d DNS records, want 1", len(m.Answers))
	}
	body, ok := m.Answers[0].Body.(*dnsmessage.TXTResource)
	if !ok || len(body.TXT) != 3 {
		return s, fmt.Errorf("DNS record %v, want a TXT of 3 strings", m.Answers[0].GoString())
	}
	return sighting{Server: body.TXT[0], Source: body.TXT[1], Destination: body.TXT[2]}, nil
}

// serveDNS answers on a socket until it is closed.
func serveDNS(pc net.PacketConn, name string) {
	query := make([]byte, dnsSize)
	for {
		n, source, err := pc.ReadFrom(query)
		if err != nil {
			return // closed
		}
		answer, err := dnsAnswer(query[:n], sighting{
			Server: name, Source: source.String(), Destination: pc.LocalAddr().String(),
		})
		if err == nil {
			// An answer that does not arrive is missed at the client's end.
			_, _ = pc.WriteTo(answer, source)
		}
	}
}

// dnsSize is the largest message without EDNS: RFC 1035, section 2.3.4.
const dnsSize = 512
