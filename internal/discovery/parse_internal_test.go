package discovery

import (
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// FuzzParse: whatever a server sends, reading it ends, and gives no more than
// a name may have.
func FuzzParse(f *testing.F) {
	name := dnsmessage.MustNewName("web.example.")
	for kind, body := range map[dnsmessage.Type]dnsmessage.ResourceBody{
		dnsmessage.TypeA:     &dnsmessage.AResource{A: [4]byte{198, 18, 2, 2}},
		dnsmessage.TypeAAAA:  &dnsmessage.AAAAResource{AAAA: [16]byte{0x20, 1, 0xd, 0xb8}},
		dnsmessage.TypeSRV:   &dnsmessage.SRVResource{Port: 80, Target: name},
		dnsmessage.TypeCNAME: &dnsmessage.CNAMEResource{CNAME: name},
	} {
		m := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: 7, Response: true},
			Questions: []dnsmessage.Question{{Name: name, Type: kind, Class: dnsmessage.ClassINET}},
			Answers:   []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: name, Type: kind, Class: dnsmessage.ClassINET}, Body: body}},
		}
		msg, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(msg)
		f.Add(msg[:len(msg)-3])
	}
	f.Add([]byte{0, 7, 0x80, 0, 0, 1, 255, 255, 0, 0, 0, 0, 0xc0, 12})
	f.Fuzz(func(t *testing.T, msg []byte) {
		for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeSRV} {
			r, ours, err := question{"web.example.", kind}.parse(msg, 7)
			if err != nil && !ours {
				t.Errorf("not ours, but %v", err)
			}
			if r.ttl < 0 || len(r.addrs) > len(msg)/12 || len(r.services) > len(msg)/12 {
				t.Errorf("%d bytes: ttl %v, %d addresses, %d services", len(msg), r.ttl, len(r.addrs), len(r.services))
			}
			records := offered(r.services)
			for _, s := range records {
				if w := scale(s, records); w < 1 || w > maxWeight {
					t.Errorf("%+v weighs %d", s, w)
				}
			}
			if len(records) > maxTargets {
				t.Errorf("%d targets", len(records))
			}
		}
	})
}

// FuzzFiles: whatever is in the files, reading them ends with usable values.
func FuzzFiles(f *testing.F) {
	f.Add("nameserver 198.18.0.1\nsearch example.org b\noptions ndots:3 timeout:2 attempts:9 rotate\n", "web")
	f.Add("127.0.0.1 localhost\n::1 localhost web # x\n", "web")
	f.Add("options ndots:99999999999999999999\noptions timeout:-1\nsearch . .. \n", "a.b.")
	f.Fuzz(func(t *testing.T, text, name string) {
		lookupHosts([]byte(text), name)
		c := parseResolvConf([]byte(text))
		if len(c.servers) == 0 || len(c.servers) > maxServers || len(c.search) > maxSearch ||
			c.ndots < 0 || c.ndots > 15 || c.timeout <= 0 || c.attempts < 1 || c.attempts > 5 {
			t.Errorf("%+v", c)
		}
		for _, candidate := range c.candidates(name) {
			if candidate[len(candidate)-1] != '.' {
				t.Errorf("candidate %q", candidate)
			}
			// Errors are for names that are none; nothing may panic.
			_, _ = question{candidate, dnsmessage.TypeA}.pack(1, true)
		}
	})
}
