package healthcheck

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// maxStrays is how many answers to other questions are passed over.
const maxStrays = 16

func converseDNS(c net.Conn, want *DNSCheck, f *finding) error {
	if want == nil {
		want = &DNSCheck{Type: dnsmessage.TypeNS}
	}
	id := uint16(rand.Uint32())
	question, packed, err := want.query(id)
	if err != nil {
		return &fault{Failed, err}
	}
	if _, err := c.Write(packed); err != nil {
		return fmt.Errorf("send the question: %w", err)
	}
	b := make([]byte, 4096) // of a longer one this is enough
	var stray error
	for range maxStrays {
		n, err := c.Read(b)
		if err != nil {
			return fmt.Errorf("wait for the answer: %w", err)
		}
		f.answered = true
		code, err := judgeDNS(b[:n], id, question)
		if err != nil {
			// An answer to an earlier check, or nonsense: the one that is waited
			// for may come yet.
			stray = err
			continue
		}
		if code != want.RCode {
			return bad(BadStatus, "response code %s, want %s", rcodeName(code), rcodeName(want.RCode))
		}
		return nil
	}
	return bad(BadAnswer, "%d answers, of which none fits: %w", maxStrays, stray)
}

// query packs the question.
func (d *DNSCheck) query(id uint16) (dnsmessage.Question, []byte, error) {
	name, err := dnsmessage.NewName(strings.TrimSuffix(d.Query, ".") + ".")
	if err != nil {
		return dnsmessage.Question{}, nil, fmt.Errorf("query %q: %w", d.Query, err)
	}
	q := dnsmessage.Question{Name: name, Type: d.Type, Class: dnsmessage.ClassINET}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{q},
	}
	packed, err := m.Pack()
	if err != nil {
		return q, nil, fmt.Errorf("query %q: %w", d.Query, err)
	}
	return q, packed, nil
}

// judgeDNS returns the code of an answer to question. Of the answer it reads
// the header and the question, which an answer of some errors may lack.
func judgeDNS(b []byte, id uint16, question dnsmessage.Question) (dnsmessage.RCode, error) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	switch {
	case err != nil:
		return 0, fmt.Errorf("read the answer: %w", err)
	case h.ID != id:
		return 0, fmt.Errorf("id %d is not that of the question, %d", h.ID, id)
	case !h.Response:
		return 0, errors.New("it is no answer but a question")
	}
	q, err := p.Question()
	if errors.Is(err, dnsmessage.ErrSectionDone) && h.RCode != dnsmessage.RCodeSuccess {
		return h.RCode, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the question in the answer: %w", err)
	}
	if q.Type != question.Type || q.Class != question.Class || !strings.EqualFold(q.Name.String(), question.Name.String()) {
		return 0, fmt.Errorf("it answers %v %v", q.Name, q.Type)
	}
	return h.RCode, nil
}
