package discovery_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tproxyd/tproxyd/internal/discovery"
)

// TestNotAsked: what is known without a server is not asked for.
func TestNotAsked(t *testing.T) {
	s := startServer(t)
	cfg := to(s)
	cfg.Hosts = write(t, "hosts", `
# 198.18.9.9 commented
198.18.2.2   db.example DB   # 198.18.9.9
2001:db8::2	db
fe80::1%lo   db
nonsense     db
198.18.2.3   other
`)
	for host, want := range map[string][]discovery.Endpoint{
		"198.18.2.7": endpoints("198.18.2.7:1"), "2001:db8::7": endpoints("[2001:db8::7]:1"),
		"::ffff:198.18.2.7": endpoints("198.18.2.7:1"),
		"db":                endpoints("198.18.2.2:1", "[2001:db8::2]:1"),
		"DB.Example.":       endpoints("198.18.2.2:1"),
		"localhost":         endpoints("127.0.0.1:1", "[::1]:1"),
		"a.LocalHost.":      endpoints("127.0.0.1:1", "[::1]:1"),
	} {
		q := discovery.Query{Host: host, Port: 1}
		h := start(t, cfg, q)
		between(t, h.round(), 27*time.Second, 300*time.Second)
		h.expect(q, nil, want...)
	}
	if asked := s.questions(); len(asked) > 0 {
		t.Errorf("asked %v", asked)
	}
}

// TestSearch: the servers and the search list of resolv.conf, in the order
// that ndots says; the file is read anew each time.
func TestSearch(t *testing.T) {
	s := startServerAt(t, "127.0.0.53:53", host("web.b.example.", 60, "198.18.2.2"), host("web.x.", 60, "198.18.2.3"))
	const head = "nameserver nonsense\nnameserver 127.0.0.53 # ours\nsearch ignored\nsearch A.example. b.example\n"
	for _, c := range []struct {
		host, options string
		want          []discovery.Endpoint
		asked         []string
	}{
		{"web", "", endpoints("198.18.2.2:1"), []string{"web.a.example.", "web.b.example."}},
		{"web.x", "", endpoints("198.18.2.3:1"), []string{"web.x."}},
		{"web.x", "options ndots:2 timeout:30 attempts:0", endpoints("198.18.2.3:1"), []string{"web.x.a.example.", "web.x.b.example.", "web.x."}},
		{"web.", "", nil, []string{"web."}},
	} {
		before := len(s.questions())
		q := discovery.Query{Host: c.host, Port: 1}
		h := start(t, discovery.Config{ResolvConf: write(t, "resolv.conf", head+c.options+"\n")}, q)
		h.round()
		err := error(nil)
		if c.want == nil {
			err = discovery.ErrNoName
		}
		h.expect(q, err, c.want...)
		var asked []string
		for _, question := range s.questions()[before:] {
			if name, ok := strings.CutPrefix(question, "A "); ok {
				asked = append(asked, name)
			}
		}
		if d := cmp.Diff(c.asked, asked); d != "" {
			t.Errorf("%s %s: asked (-want +got):\n%s", c.host, c.options, d)
		}
	}
}
