package admin_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/admin"
	"github.com/tproxyd/tproxyd/internal/golden"
)

// fakeControl has three flows, and notes what is changed.
type fakeControl struct {
	err     error
	changed string
	cut     uint64
}

func (f *fakeControl) Flows(q admin.FlowQuery) admin.FlowList {
	c := admin.NewCollector(q)
	for i := range 3 {
		c.Add(&admin.Flow{
			ID: admin.FlowID(0xc0ffee00 + i), Service: "web", Protocol: "tcp", State: admin.FlowRelaying, AgeMS: int64(i * 1000),
			Client:      netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 1, byte(i)}), 40000),
			Destination: netip.MustParseAddrPort("203.0.113.10:443"), BackendName: "web-1", PathIn: "copy", PathOut: "splice",
		})
	}
	return c.List()
}

func (f *fakeControl) CutFlow(id uint64) bool {
	f.cut = id
	return id == 0xc0ffee01
}

func (f *fakeControl) SetBackend(service, backend string, c admin.BackendChange) (admin.Backend, error) {
	weight := 1
	if c.Weight != nil {
		weight = *c.Weight
	}
	f.changed = fmt.Sprintf("%s|%s|%d|%s", service, backend, weight, c.State)
	return admin.Backend{Name: backend, Weight: weight, State: admin.BackendUp, AdminState: c.State}, f.err
}

// ask makes one request; headers are name and value in turn.
func ask(t *testing.T, method, url, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(answer)
}

func TestLists(t *testing.T) {
	base := "http://" + serve(t, admin.Config{Control: &fakeControl{}})
	for file, path := range map[string]string{
		"services.golden.json": "/api/v1/services",
		"service.golden.json":  "/api/v1/services/dns",
		"backends.golden.json": "/api/v1/backends?service=web&state=up",
		"backend.golden.json":  "/api/v1/services/web/backends/api%2F198.18.2.4:80",
		"flows.golden.json":    "/api/v1/flows?client=198.18.1.0/31&limit=1",
	} {
		resp, body := ask(t, "GET", base+path, "")
		if resp.StatusCode != 200 {
			t.Errorf("%s: %s", path, resp.Status)
		}
		golden.Compare(t, file, body)
	}
}

// Each mistake is answered with its code, as JSON that names what is wrong.
func TestMistakes(t *testing.T) {
	const typ, js = "Content-Type", "application/json"
	const post = "/api/v1/services/web/backends/web-1"
	control := &fakeControl{}
	addr := serve(t, admin.Config{Control: control, Write: true})
	tests := []struct {
		method, path, body string
		headers            []string
		code               int
		want               string
	}{
		{"GET", "/api/v1/services/wbe", "", nil, 404, "known are web, all, dns"},
		{"GET", "/api/v1/services/web/backends/x", "", nil, 404, "known are web-1, web-2, api/198.18.2.4:80"},
		{"GET", "/api/v1/backends?state=sick", "", nil, 400, "up, down, ejected"},
		{"GET", "/api/v1/backends?colour=1", "", nil, 400, "service, state"},
		{"GET", "/api/v1/flows?limit=10001", "", nil, 400, "1 to 10000"},
		{"GET", "/api/v1/flows?sort=name", "", nil, 400, "age, bytes, idle, id"},
		{"GET", "/api/v1/flows?client=198.18.1", "", nil, 400, "prefix"},
		{"GET", "/api/v1/flows?service=a&service=b", "", nil, 400, "2 times"},
		{"GET", "/api/v2", "", nil, 404, "/api/v1/status"},
		{"GET", "/api/v1/flows", "body", nil, 413, "no body"},
		{"GET", "/api/v1/flows/00000000c0ffee01", "", nil, 405, "DELETE"},
		{"PUT", post, "{}", nil, 405, "POST"},
		{"POST", "/api/v1/flows", "{}", []string{typ, js}, 405, "GET"},
		{"POST", post, `{"weight":1}`, nil, 415, "application/json"},
		{"POST", post, `{"weight":1}`, []string{typ, "text/plain"}, 415, "application/json"},
		{"POST", post, `{"weight":1}`, []string{typ, js, "Origin", "http://evil.example"}, 403, "foreign page"},
		{"POST", post, `{"weight":1}`, []string{typ, js, "Origin", "null"}, 403, "foreign page"},
		{"POST", post, `{"weight":1}`, []string{typ, js, "Sec-Fetch-Site", "cross-site"}, 403, "foreign page"},
		{"DELETE", "/api/v1/flows/00000000c0ffee01", "", []string{"Origin", "http://evil.example"}, 403, "foreign page"},
		{"POST", post, strings.Repeat(" ", 64<<10+1), []string{typ, js}, 413, "65536"},
		{"POST", post, ``, []string{typ, js}, 400, "JSON object"},
		{"POST", post, `[]`, []string{typ, js}, 400, "JSON object"},
		{"POST", post, `{}`, []string{typ, js}, 400, "nothing to change"},
		{"POST", post, `{"weight":1} {}`, []string{typ, js}, 400, "more behind"},
		{"POST", post, `{"weight":1,"weight":2}`, []string{typ, js}, 400, "twice"},
		{"POST", post, `{"Weight":1}`, []string{typ, js}, 400, "weight and state"},
		{"POST", post, `{"weight":257}`, []string{typ, js}, 400, "0 to 256"},
		{"POST", post, `{"weight":-1}`, []string{typ, js}, 400, "0 to 256"},
		{"POST", post, `{"weight":1.5}`, []string{typ, js}, 400, "0 to 256"},
		{"POST", post, `{"state":"off"}`, []string{typ, js}, 400, "maintenance"},
		{"POST", post, `{"state":null}`, []string{typ, js}, 400, "maintenance"},
		{"DELETE", "/api/v1/flows/xyz", "", nil, 400, "hex"},
		{"DELETE", "/api/v1/flows/1", "", nil, 404, "0000000000000001"},
	}
	for _, tt := range tests {
		resp, body := ask(t, tt.method, "http://"+addr+tt.path, tt.body, tt.headers...)
		var answer map[string]string
		if err := json.Unmarshal([]byte(body), &answer); err != nil || len(answer) != 1 {
			t.Errorf("%s %s: %v: %s", tt.method, tt.path, err, body)
		}
		if resp.StatusCode != tt.code || !strings.Contains(answer["error"], tt.want) {
			t.Errorf("%s %s %.30q: %s %s, want %d and %q", tt.method, tt.path, tt.body, resp.Status, body, tt.code, tt.want)
		}
	}
	if control.changed != "" {
		t.Errorf("changed nevertheless: %s", control.changed)
	}
	// A page whose name points here for a moment.
	resp, _ := rebound(t, addr)
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("page under a name of its own: %s", resp.Status)
	}
}

// rebound posts as a page does that was loaded from a name, which has come to
// mean our address.
func rebound(t *testing.T, addr string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+addr+"/api/v1/services/web/backends/web-1", strings.NewReader(`{"weight":0}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Close, req.Host = true, "evil.example"
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Origin", "http://evil.example")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp, body.String()
}

func TestChanges(t *testing.T) {
	control := &fakeControl{}
	addr := serve(t, admin.Config{Control: control, Write: true})
	post := func(backend, body string) (*http.Response, string) {
		return ask(t, "POST", "http://"+addr+"/api/v1/services/web/backends/"+backend, body, "Content-Type", "application/json; charset=utf-8", "Origin", "http://"+addr)
	}
	for _, tt := range []struct{ backend, body, want string }{
		{"web-1", `{"weight": 10}`, "web|web-1|10|"},
		{"web-1", `{"weight": null, "state": "drain"}`, "web|web-1|-1|drain"},
		{"web-1", `{"weight": "default"}`, "web|web-1|-1|"},
		{"name%2F198.18.2.2:80", `{"state": "ready"}`, "web|name/198.18.2.2:80|1|ready"},
		{"n%2F%5B2001:db8::1%5D:80", `{"state": "maintenance"}`, "web|n/[2001:db8::1]:80|1|maintenance"},
		{"%2E%2E", `{"weight": 0}`, "web|..|0|"},
	} {
		resp, body := post(tt.backend, tt.body)
		if resp.StatusCode != 200 || control.changed != tt.want || !strings.Contains(body, `"service": "web"`) {
			t.Errorf("%s %s: %s, changed %s, want %s: %s", tt.backend, tt.body, resp.Status, control.changed, tt.want, body)
		}
	}
	for err, want := range map[error]int{
		admin.ErrNoService: 404, admin.ErrNoBackend: 404, admin.ErrDraining: 409,
		fmt.Errorf("%w: no weights there", admin.ErrRefused): 400, io.ErrUnexpectedEOF: 500,
	} {
		control.err = err
		if resp, body := post("gone", `{"weight": 1}`); resp.StatusCode != want || !strings.Contains(body, `"error"`) {
			t.Errorf("%v: %s, want %d: %s", err, resp.Status, want, body)
		}
	}
	resp, body := ask(t, "DELETE", "http://"+addr+"/api/v1/flows/00000000c0ffee01", "")
	if resp.StatusCode != 204 || body != "" || control.cut != 0xc0ffee01 {
		t.Errorf("cut: %s, %q, cut %x", resp.Status, body, control.cut)
	}
}

func TestReadOnly(t *testing.T) {
	control := &fakeControl{}
	addr := serve(t, admin.Config{Control: control})
	resp, body := ask(t, "DELETE", "http://"+addr+"/api/v1/flows/00000000c0ffee01", "")
	if resp.StatusCode != 403 || !strings.Contains(body, "write = true") || control.cut != 0 {
		t.Errorf("%s, cut %x: %s", resp.Status, control.cut, body)
	}
}
