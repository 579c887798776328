package healthcheck

import (
	"net"
	"slices"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// answerDNS makes an answer to the question in b, after change.
func answerDNS(b []byte, change func(*dnsmessage.Message)) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil {
		return nil
	}
	m.Response = true
	if change != nil {
		change(&m)
	}
	packed, err := m.Pack()
	if err != nil {
		return nil
	}
	return packed
}

func TestDNS(t *testing.T) {
	good := func(b []byte) []byte { return answerDNS(b, nil) }
	wrongID := func(b []byte) []byte { return answerDNS(b, func(m *dnsmessage.Message) { m.ID++ }) }
	code := func(c dnsmessage.RCode) func([]byte) []byte {
		return func(b []byte) []byte { return answerDNS(b, func(m *dnsmessage.Message) { m.RCode = c }) }
	}
	for name, tt := range map[string]struct {
		answers []func([]byte) []byte
		code    dnsmessage.RCode
		want    Outcome
	}{
		"ok":           {[]func([]byte) []byte{good}, 0, OK},
		"refused":      {[]func([]byte) []byte{code(dnsmessage.RCodeRefused)}, 0, BadStatus},
		"as expected":  {[]func([]byte) []byte{code(dnsmessage.RCodeNameError)}, dnsmessage.RCodeNameError, OK},
		"strays first": {[]func([]byte) []byte{wrongID, func([]byte) []byte { return []byte("?") }, good}, 0, OK},
		"no question": {[]func([]byte) []byte{func(b []byte) []byte {
			return answerDNS(b, func(m *dnsmessage.Message) { m.RCode, m.Questions = dnsmessage.RCodeFormatError, nil })
		}}, 0, BadStatus},
		"wrong id":  {slices.Repeat([]func([]byte) []byte{wrongID}, maxStrays), 0, BadAnswer},
		"itself":    {slices.Repeat([]func([]byte) []byte{func(b []byte) []byte { return b }}, maxStrays), 0, BadAnswer},
		"too short": {slices.Repeat([]func([]byte) []byte{func(b []byte) []byte { return b[:11] }}, maxStrays), 0, BadAnswer},
		"another name": {slices.Repeat([]func([]byte) []byte{func(b []byte) []byte {
			return answerDNS(b, func(m *dnsmessage.Message) { m.Questions[0].Name = dnsmessage.MustNewName("example.net.") })
		}}, maxStrays), 0, BadAnswer},
		"ok without a question": {slices.Repeat([]func([]byte) []byte{func(b []byte) []byte {
			return answerDNS(b, func(m *dnsmessage.Message) { m.Questions = nil })
		}}, maxStrays), 0, BadAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			addr := listenPackets(t, func(b []byte) (all [][]byte) {
				for _, a := range tt.answers {
					all = append(all, a(b))
				}
				return all
			})
			check := DNSCheck{Query: "Example.org", Type: dnsmessage.TypeAAAA, RCode: tt.code}
			wantOutcome(t, run(t, Check{Type: DNS, DNS: &check}, addr), tt.want)
		})
	}
	wantOutcome(t, run(t, Check{Type: DNS}, closed(t, true)), Refused)
	wantOutcome(t, run(t, Check{Type: DNS, DNS: &DNSCheck{Query: "a..b"}}, closed(t, true)), Failed)
}

func TestParse(t *testing.T) {
	if typ, err := ParseQueryType("aaaa"); typ != dnsmessage.TypeAAAA || err != nil {
		t.Errorf("%v, %v", typ, err)
	}
	if code, err := ParseRCode("nxdomain"); code != dnsmessage.RCodeNameError || err != nil {
		t.Errorf("%v, %v", code, err)
	}
	for _, name := range []string{"", "NOPE"} {
		if _, err := ParseQueryType(name); err == nil {
			t.Errorf("query type %q is known", name)
		}
		if _, err := ParseRCode(name); err == nil {
			t.Errorf("response code %q is known", name)
		}
	}
}

func FuzzDNS(f *testing.F) {
	check := DNSCheck{Query: "example.org", Type: dnsmessage.TypeA}
	question, packed, err := check.query(7)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Add(answerDNS(packed, nil))
	f.Add(answerDNS(packed, func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeRefused; m.Questions = nil }))
	f.Fuzz(func(t *testing.T, b []byte) {
		code, err := judgeDNS(b, 7, question)
		if err == nil && (len(b) < 12 || b[0] != 0 || b[1] != 7 || b[2]&0x80 == 0 || byte(code) != b[3]&15) {
			t.Errorf("%x is an answer with code %v", b, code)
		}
	})
}

func FuzzHTTP(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell"))
	f.Add([]byte("HTTP/1.1 103 x\r\n\r\nHTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nwe\r\n2\r\nll\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, theirs := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = theirs.Write(b)
			_ = theirs.Close()
		}()
		err := judgeHTTP(&limited{Conn: ours, left: maxHeader}, "GET", &HTTPCheck{Body: "well"})
		_ = ours.Close()
		<-done
		if got := outcomeOf(err, true); got == Failed || !got.known() {
			t.Errorf("%v: %v", got, err)
		}
	})
}
