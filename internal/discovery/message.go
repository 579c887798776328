package discovery

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// A question is what one message asks.
type question struct {
	name string // absolute, lower case, with the last dot
	kind dnsmessage.Type
}

const (
	// udpSize is what a server may send by UDP: what passes every path without
	// fragments.
	udpSize = 1232
	// maxChain bounds the CNAMEs of one message.
	maxChain = 16
)

// pack is the message that asks q. Without edns it has no OPT record, for
// servers that do not know it.
func (q question) pack(id uint16, edns bool) ([]byte, error) {
	name, err := dnsmessage.NewName(q.name)
	if err != nil {
		return nil, fmt.Errorf("name %q: %w", q.name, err)
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: id, RecursionDesired: true})
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if err := b.Question(dnsmessage.Question{Name: name, Type: q.kind, Class: dnsmessage.ClassINET}); err != nil {
		return nil, fmt.Errorf("name %q: %w", q.name, err)
	}
	if edns {
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(udpSize, dnsmessage.RCodeSuccess, false); err != nil {
			return nil, err
		}
		if err := b.StartAdditionals(); err != nil {
			return nil, err
		}
		if err := b.OPTResource(h, dnsmessage.OPTResource{}); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

// A reply is what a message says to a question.
type reply struct {
	code      dnsmessage.RCode
	truncated bool
	ttl       time.Duration // the least of the records used
	addrs     []netip.Addr
	services  []service
	tail      string // name at which the CNAMEs end, if nothing is known of it
}

// A service is one SRV record.
type service struct {
	priority, weight, port uint16
	target                 string // absolute, lower case
}

// parse reads the answer to q from msg. It says false if msg is not an answer
// to this very question: such a message is to be ignored, not believed.
func (q question) parse(msg []byte, id uint16) (reply, bool, error) {
	var p dnsmessage.Parser
	r, ours := q.open(&p, msg, id)
	if !ours {
		return reply{}, false, nil
	}
	if r.truncated || r.code != dnsmessage.RCodeSuccess && r.code != dnsmessage.RCodeNameError {
		return r, true, nil
	}
	s, err := q.section(&p)
	if err != nil {
		return reply{}, true, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	err = s.follow(q.name, &r) // before r is returned
	return r, true, err
}

// open reads the header and the question of msg. It says whether msg answers q.
func (q question) open(p *dnsmessage.Parser, msg []byte, id uint16) (reply, bool) {
	h, err := p.Start(msg)
	if err != nil || !h.Response || h.ID != id || h.OpCode != 0 {
		return reply{}, false
	}
	r := reply{code: h.RCode, truncated: h.Truncated}
	asked, err := p.AllQuestions()
	if err != nil {
		return reply{}, false
	}
	if len(asked) == 0 {
		// A server that did not understand the question need not repeat it.
		return r, h.RCode == dnsmessage.RCodeFormatError || h.RCode == dnsmessage.RCodeNotImplemented
	}
	return r, len(asked) == 1 && lower(asked[0].Name) == q.name &&
		asked[0].Type == q.kind && asked[0].Class == dnsmessage.ClassINET
}

// A section is what matters of the records of an answer, by owner.
type section struct {
	aliases map[string]alias
	sets    map[string]*reply
}

type alias struct {
	target string
	ttl    time.Duration
}

func (q question) section(p *dnsmessage.Parser) (section, error) {
	s := section{aliases: make(map[string]alias), sets: make(map[string]*reply)}
	for {
		h, err := p.AnswerHeader()
		if err == dnsmessage.ErrSectionDone { //nolint:errorlint // the parser never wraps it
			return s, nil
		}
		if err != nil {
			return s, err
		}
		if h.Class != dnsmessage.ClassINET || h.Type != q.kind && h.Type != dnsmessage.TypeCNAME {
			if err := p.SkipAnswer(); err != nil {
				return s, err
			}
			continue
		}
		if err := s.record(p, h); err != nil {
			return s, err
		}
	}
}

// record reads the body of one record that matters.
func (s *section) record(p *dnsmessage.Parser, h dnsmessage.ResourceHeader) error {
	owner, ttl := lower(h.Name), seconds(h.TTL)
	if h.Type == dnsmessage.TypeCNAME {
		body, err := p.CNAMEResource()
		if err == nil {
			s.aliases[owner] = alias{lower(body.CNAME), ttl}
		}
		return err
	}
	set := s.sets[owner]
	if set == nil {
		set = &reply{ttl: math.MaxInt64}
		s.sets[owner] = set
	}
	set.ttl = min(set.ttl, ttl)
	switch h.Type {
	case dnsmessage.TypeA:
		body, err := p.AResource()
		if err != nil {
			return err
		}
		set.address(netip.AddrFrom4(body.A))
	case dnsmessage.TypeAAAA:
		body, err := p.AAAAResource()
		if err != nil {
			return err
		}
		set.address(netip.AddrFrom16(body.AAAA).Unmap())
	case dnsmessage.TypeSRV:
		body, err := p.SRVResource()
		if err != nil {
			return err
		}
		set.services = append(set.services, service{body.Priority, body.Weight, body.Port, lower(body.Target)})
	default:
		return p.SkipAnswer()
	}
	return nil
}

// address adds a, unless nothing could be reached at it: filters answer
// 0.0.0.0, which would be this host.
func (r *reply) address(a netip.Addr) {
	if a.IsUnspecified() || a.IsMulticast() || a.Is6() && a.IsLinkLocalUnicast() || a == broadcast {
		return
	}
	r.addrs = append(r.addrs, a)
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// follow goes from the name asked for along the aliases to the records.
func (s *section) follow(asked string, r *reply) error {
	name := asked
	r.ttl = math.MaxInt64
	for range maxChain {
		if set := s.sets[name]; set != nil {
			r.ttl, r.addrs, r.services = min(r.ttl, set.ttl), set.addrs, set.services
			return nil
		}
		next, ok := s.aliases[name]
		if !ok {
			if r.code == dnsmessage.RCodeSuccess && name != asked {
				r.tail = name
			}
			return nil
		}
		name, r.ttl = next.target, min(r.ttl, next.ttl)
	}
	return fmt.Errorf("%w: CNAME loop, or a chain of over %d", ErrMalformed, maxChain)
}

// seconds is a TTL. One with the first bit set counts as 0 (RFC 2181, section
// 8).
func seconds(ttl uint32) time.Duration {
	if ttl > math.MaxInt32 {
		return 0
	}
	return time.Duration(ttl) * time.Second
}

func lower(n dnsmessage.Name) string { return strings.ToLower(n.String()) }
