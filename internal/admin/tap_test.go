package admin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/tproxyd/tproxyd/internal/admin"
)

// fakeTap has one capture, and streams what it is told to.
type fakeTap struct {
	err    error
	run    bool
	asked  admin.TapQuery
	pieces chan string
	gone   chan struct{}
}

func (f *fakeTap) TapStatus() (admin.TapStatus, error) {
	return admin.TapStatus{Captures: []admin.TapCapture{{TapCounts: admin.TapCounts{Name: "a", Packets: 3}, Running: f.run}}}, f.err
}

func (f *fakeTap) SetCapture(name string, run bool) error {
	if name != "a" {
		return admin.ErrNoCapture
	}
	f.run = run
	return f.err
}

func (f *fakeTap) Live(ctx context.Context, q admin.TapQuery, w io.Writer) error {
	f.asked = q
	for {
		select {
		case p, ok := <-f.pieces:
			if !ok {
				return f.err
			}
			if _, err := io.WriteString(w, p); err != nil {
				return err
			}
		case <-ctx.Done():
			close(f.gone)
			return ctx.Err()
		}
	}
}

func (f *fakeTap) Dump(_ context.Context, q admin.TapQuery, w io.Writer) error {
	f.asked = q
	_, err := io.WriteString(w, "dump")
	return errors.Join(err, f.err)
}

const tapBase = "/api/v1/tap"

func TestTapList(t *testing.T) {
	tap := &fakeTap{}
	base := "http://" + serve(t, admin.Config{Tap: tap, Control: &fakeControl{}, Write: true}) + tapBase
	if _, body := ask(t, "GET", base, ""); !strings.Contains(body, `"sink_drops": 0`) || !strings.Contains(body, `"viewers": []`) {
		t.Errorf("status: %s", body)
	}
	json := []string{"Content-Type", "application/json"}
	resp, body := ask(t, "POST", base+"/captures/a", `{"state": "start"}`, json...)
	if resp.StatusCode != 200 || !tap.run || !strings.Contains(body, `"running": true`) {
		t.Errorf("start: %s: %s", resp.Status, body)
	}
	for _, tt := range []struct {
		name, body string
		err        error
		code       int
		want       string
	}{
		{"b", `{"state": "stop"}`, nil, 404, "known are a"},
		{"a", `{"state": "pause"}`, nil, 400, `state \"pause\"`},
		{"a", `{}`, nil, 400, "want"},
		{"a", `{"state": "stop"}`, admin.ErrNoTap, 409, "the tap is not configured"},
		{"a", `{"state": "stop"}`, errors.New("broken"), 500, "broken"},
	} {
		tap.err = tt.err
		resp, body := ask(t, "POST", base+"/captures/"+tt.name, tt.body, json...)
		if resp.StatusCode != tt.code || !strings.Contains(body, tt.want) {
			t.Errorf("%s %s: %s: %s", tt.name, tt.body, resp.Status, body)
		}
	}
}

func TestNoTap(t *testing.T) {
	base := "http://" + serve(t, admin.Config{Control: &fakeControl{}, Write: true}) + tapBase
	for _, path := range []string{"", "/live", "/dump?all=true"} {
		if resp, body := ask(t, "GET", base+path, ""); resp.StatusCode != 409 || !strings.Contains(body, "the tap is not configured") {
			t.Errorf("%s: %s: %s", path, resp.Status, body)
		}
	}
}

// TestPacketsNeedWrite holds that payload is for those who may change things.
func TestPacketsNeedWrite(t *testing.T) {
	addr := serve(t, admin.Config{Tap: &fakeTap{}, Control: &fakeControl{}})
	for _, path := range []string{"/live", "/dump?all=true"} {
		if resp, body := ask(t, "GET", "http://"+addr+tapBase+path, ""); resp.StatusCode != 403 || !strings.Contains(body, "write = true") {
			t.Errorf("%s: %s: %s", path, resp.Status, body)
		}
	}
	addr = serve(t, admin.Config{Tap: &fakeTap{}, Control: &fakeControl{}, Write: true})
	for _, header := range [][]string{{"Origin", "http://evil.example"}, {"Sec-Fetch-Site", "cross-site"}} {
		if resp, body := ask(t, "GET", "http://"+addr+tapBase+"/dump?all=true", "", header...); resp.StatusCode != 403 {
			t.Errorf("%v: %s: %s", header, resp.Status, body)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr+tapBase+"/dump?all=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host, req.Close = "evil.example", true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 403 {
		t.Errorf("a page by another name: %s", resp.Status)
	}
}

// TestLiveOutlivesTheDeadline holds that a stream is sent piece by piece, goes on
// for longer than a request may take, and ends when the client goes.
func TestLiveOutlivesTheDeadline(t *testing.T) {
	const timeout = 100 * time.Millisecond
	tap := &fakeTap{pieces: make(chan string), gone: make(chan struct{})}
	addr := serve(t, admin.Config{Tap: tap, Control: &fakeControl{}, Write: true, RequestTimeout: timeout})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+tapBase+"/live?service=web&count=7", nil)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	go func() {
		for time.Since(begun) < 5*timeout {
			tap.pieces <- "x"
		}
		tap.pieces <- "y"
	}()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	one := make([]byte, 1)
	for one[0] != 'y' {
		if _, err := io.ReadFull(resp.Body, one); err != nil {
			t.Fatalf("after %v: %v", time.Since(begun), err)
		}
	}
	if kind := resp.Header.Get("Content-Type"); kind != "application/x-pcapng" || tap.asked.Service != "web" || tap.asked.Count != 7 {
		t.Errorf("type %q, asked %+v", kind, tap.asked)
	}
	cancel()
	<-tap.gone
}

// TestStreamErrors holds that an error before the first byte is an answer, and one
// after it no good end.
func TestStreamErrors(t *testing.T) {
	tap := &fakeTap{pieces: make(chan string)}
	close(tap.pieces)
	base := "http://" + serve(t, admin.Config{Tap: tap, Control: &fakeControl{}, Write: true}) + tapBase
	if resp, body := ask(t, "GET", base+"/live", ""); resp.StatusCode != 200 || body != "" {
		t.Errorf("nothing: %s: %q", resp.Status, body)
	}
	tap.err = fmt.Errorf("%w: filter", admin.ErrRefused)
	if resp, body := ask(t, "GET", base+"/live?filter=x", ""); resp.StatusCode != 400 || !strings.Contains(body, "filter") {
		t.Errorf("refused: %s: %s", resp.Status, body)
	}
	if resp, _ := ask(t, "HEAD", base+"/live", ""); resp.StatusCode != 405 {
		t.Errorf("HEAD: %s", resp.Status)
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", base+"/dump?all=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("a dump that failed ended well after %q", body)
	}
}

func TestTapQueries(t *testing.T) {
	q, err := admin.ParseDumpQuery("last=10s&flow=00000000c0ffee01&service=web&client=198.18.0.7&protocol=tcp&direction=in&filter=port+80&profile=headers&backend=b")
	want := admin.TapQuery{
		Last: 10 * time.Second, Flow: 0xc0ffee01, Service: "web", Client: netip.MustParsePrefix("198.18.0.7/32"), Protocol: "tcp",
		Direction: "in", Filter: "port 80", Headers: true, Backend: "b",
	}
	if d := cmp.Diff(want, q, cmpopts.EquateComparable(netip.Prefix{})); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	for _, text := range []string{"", "last=5s", "all=yes", "flow=0000000000000000", "all=true&count=3", "all=true&last=0s", "all=true&last=25h", "all=true&gso=wire"} {
		if _, err := admin.ParseDumpQuery(text); err == nil {
			t.Errorf("dump %q was accepted", text)
		}
	}
	for _, text := range []string{"count=-1", "last=5s", "gso=x", "count=1&count=2"} {
		if _, err := admin.ParseLiveQuery(text); err == nil {
			t.Errorf("live %q was accepted", text)
		}
	}
}
