package healthcheck

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// short is the timeout of checks that are to reach it.
const short = 40 * time.Millisecond

func TestTCP(t *testing.T) {
	wantOutcome(t, run(t, Check{}, listen(t, nil)), OK)
	wantOutcome(t, run(t, Check{}, closed(t, false)), Refused)
}

// TestNoTimeWait looks for what closed connections leave here.
func TestNoTimeWait(t *testing.T) {
	addr := listen(t, hang)
	for range 10 {
		wantOutcome(t, run(t, Check{}, addr), OK)
	}
	// The test's own namespace; state 06 is TIME_WAIT, and the peer's port is in hex.
	table, err := os.ReadFile("/proc/thread-self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	if left := regexp.MustCompile(fmt.Sprintf(`(?m)^.*:%04X 06 .*$`, addr.Port())).FindAll(table, -1); len(left) > 0 {
		t.Errorf("left: %s", left)
	}
}

// afterRequest answers with text once the request is there.
func afterRequest(text string, then func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		_, _ = io.WriteString(c, text)
		if then != nil {
			then(c)
		}
	}
}

// endless writes text until the other side has had enough.
func endless(text string) func(net.Conn) {
	return func(c net.Conn) {
		for {
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
		}
	}
}

// drip writes a byte now and then.
func drip(c net.Conn) {
	for {
		if _, err := io.WriteString(c, "x"); err != nil {
			return
		}
		time.Sleep(short / 8) //nolint:forbidigo // the backend is slow, and nothing waits for it
	}
}

func TestHTTP(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for name, tt := range map[string]struct {
		answer func(net.Conn)
		check  HTTPCheck
		want   Outcome
	}{
		"ok":                   {afterRequest(ok+"Content-Length: 0\r\n\r\n", nil), HTTPCheck{}, OK},
		"without a body":       {afterRequest(ok+"Content-Length: 9\r\n\r\n", hang), HTTPCheck{}, OK},
		"redirect":             {afterRequest("HTTP/1.0 302 Found\r\n\r\n", nil), HTTPCheck{}, OK},
		"error":                {afterRequest("HTTP/1.1 503 Sorry\r\n\r\n", nil), HTTPCheck{}, BadStatus},
		"another range":        {afterRequest("HTTP/1.1 503 Sorry\r\n\r\n", nil), HTTPCheck{Status: []StatusRange{{200, 200}, {500, 503}}}, OK},
		"out of range":         {afterRequest(ok+"\r\n", nil), HTTPCheck{Status: []StatusRange{{201, 204}}}, BadStatus},
		"early hints":          {afterRequest("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"+ok+"\r\n", nil), HTTPCheck{}, OK},
		"early hints for ever": {afterRequest("", endless("HTTP/1.1 103 Early Hints\r\n\r\n")), HTTPCheck{}, BadAnswer},
		"body":                 {afterRequest(ok+"\r\nall is well", nil), HTTPCheck{Body: "is well"}, OK},
		"body in chunks":       {afterRequest(ok+"Transfer-Encoding: chunked\r\n\r\n3\r\nis \r\n4\r\nwell\r\n0\r\n\r\n", nil), HTTPCheck{Body: "is well"}, OK},
		"body, then silence":   {afterRequest(ok+"\r\nall is well", hang), HTTPCheck{Body: "is well"}, OK},
		"another body":         {afterRequest(ok+"\r\nall is lost", nil), HTTPCheck{Body: "is well"}, BadAnswer},
		"half a body":          {afterRequest(ok+"Content-Length: 100\r\n\r\nall is", nil), HTTPCheck{Body: "is well"}, Reset},
		"body too late":        {afterRequest(ok+"\r\n"+strings.Repeat("x", maxBody-3)+"is well", nil), HTTPCheck{Body: "is well"}, BadAnswer},
		"endless body":         {afterRequest(ok+"\r\n", endless("xxxxxxx")), HTTPCheck{Body: "is well"}, BadAnswer},
		"endless header":       {afterRequest(ok, endless("A: b\r\n")), HTTPCheck{}, BadAnswer},
		"endless line":         {afterRequest("", endless("HTTP")), HTTPCheck{}, BadAnswer},
		"endless chunk header": {afterRequest(ok+"Transfer-Encoding: chunked\r\n\r\n", endless("1;aaaa")), HTTPCheck{Body: "x"}, BadAnswer},
		"no HTTP":              {afterRequest("SSH-2.0-OpenSSH_9.2\r\n", nil), HTTPCheck{}, BadAnswer},
		"half an answer":       {afterRequest("HTTP/1.1 20", nil), HTTPCheck{}, BadAnswer},
		"half a header":        {afterRequest(ok+"Content-Type: a\r\n", nil), HTTPCheck{}, Reset},
		"nothing":              {afterRequest("", nil), HTTPCheck{}, Reset},
		"reset":                {afterRequest("", reset), HTTPCheck{}, Reset},
	} {
		t.Run(name, func(t *testing.T) {
			wantOutcome(t, run(t, Check{Type: HTTP, HTTP: &tt.check}, listen(t, tt.answer)), tt.want)
		})
	}
}

func TestTimeouts(t *testing.T) {
	for name, tt := range map[string]struct {
		kind   Type
		answer func(net.Conn)
	}{
		"http, silent":        {HTTP, hang},
		"http, half":          {HTTP, afterRequest("HTTP/1.1 200 O", hang)},
		"http, drip":          {HTTP, afterRequest("HTTP/1.1 200 OK\r\nA: ", drip)},
		"tls, silent":         {TLS, hang},
		"tls, half a record":  {TLS, func(c net.Conn) { _, _ = io.WriteString(c, "\x16\x03\x03\x40\x00\x02"); hang(c) }},
		"tls, drip of record": {TLS, func(c net.Conn) { _, _ = io.WriteString(c, "\x16\x03\x03\x40\x00\x02"); drip(c) }},
	} {
		t.Run(name, func(t *testing.T) {
			f := run(t, Check{Type: tt.kind, Timeout: short}, listen(t, tt.answer))
			wantOutcome(t, f, Timeout)
			if !f.answered {
				t.Error("the connection was there, so the way back is right")
			}
		})
	}
	silent := listenPackets(t, func([]byte) [][]byte { return nil })
	wantOutcome(t, run(t, Check{Type: UDP, Timeout: short}, silent), Timeout)
	wantOutcome(t, run(t, Check{Type: DNS, Timeout: short}, silent), Timeout)
}

func TestRequest(t *testing.T) {
	got := make(chan *http.Request, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r }))
	defer s.Close()
	addr := s.Listener.Addr().(*net.TCPAddr).AddrPort()
	wantOutcome(t, run(t, Check{Type: HTTP, HTTP: &HTTPCheck{Method: "HEAD", Path: "/health?x=1", Host: "example.org"}}, addr), OK)
	if r := <-got; r.Method != "HEAD" || r.URL.String() != "/health?x=1" || r.Host != "example.org" || !r.Close {
		t.Errorf("request %+v", r)
	}
	wantOutcome(t, run(t, Check{Type: HTTP}, addr), OK)
	if r := <-got; r.Method != "GET" || r.URL.String() != "/" || r.Host != addr.String() {
		t.Errorf("request %+v", r)
	}
}

func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "all is well") }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	addr := s.Listener.Addr().(*net.TCPAddr).AddrPort()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	days := int(time.Until(s.Certificate().NotAfter).Hours()/24) + 1
	for name, tt := range map[string]struct {
		check TLSCheck
		want  Outcome
	}{
		"any certificate": {TLSCheck{}, OK},
		"unknown root":    {TLSCheck{Verify: true, ServerName: "example.com", Roots: x509.NewCertPool()}, BadCertificate},
		"right name":      {TLSCheck{Verify: true, ServerName: "example.com", Roots: roots}, OK},
		"wrong name":      {TLSCheck{Verify: true, ServerName: "example.invalid", Roots: roots}, BadCertificate},
		"by address":      {TLSCheck{Verify: true, Roots: roots}, OK},
		"days left":       {TLSCheck{MinDays: days - 2}, OK},
		"too few":         {TLSCheck{MinDays: days + 1}, BadCertificate},
	} {
		t.Run(name, func(t *testing.T) {
			f := run(t, Check{Type: TLS, TLS: &tt.check}, addr)
			wantOutcome(t, f, tt.want)
			if !f.ends.Equal(s.Certificate().NotAfter) {
				t.Errorf("the certificate ends %v", f.ends)
			}
		})
	}
	wantOutcome(t, run(t, Check{Type: HTTP, TLS: &TLSCheck{}, HTTP: &HTTPCheck{Body: "well"}}, addr), OK)
	wantOutcome(t, run(t, Check{Type: HTTP}, addr), BadStatus) // Go tells that it wants TLS
}

func TestNotTLS(t *testing.T) {
	for name, tt := range map[string]struct {
		answer func(net.Conn)
		want   Outcome
	}{
		"text":    {endless("HTTP/1.1 400 Bad Request\r\n"), BadAnswer},
		"garbage": {endless("\x16\x03\x03\x00\x10\x02\x00\x00\x0cgarbage_"), BadAnswer},
		"close":   {nil, Reset},
		"reset":   {reset, Reset},
		"old": {func(c net.Conn) {
			_ = tls.Server(c, &tls.Config{MaxVersion: tls.VersionTLS10}).Handshake() //nolint:gosec // that is what is tested
		}, BadAnswer},
	} {
		t.Run(name, func(t *testing.T) { wantOutcome(t, run(t, Check{Type: TLS}, listen(t, tt.answer)), tt.want) })
	}
}

func TestUDP(t *testing.T) {
	echo := listenPackets(t, func(b []byte) [][]byte { return [][]byte{append([]byte("echo "), b...)} })
	wantOutcome(t, run(t, Check{Type: UDP}, echo), OK)
	wantOutcome(t, run(t, Check{Type: UDP, UDP: &UDPCheck{Send: []byte("ping"), Expect: []byte("echo ping")}}, echo), OK)
	wantOutcome(t, run(t, Check{Type: UDP, UDP: &UDPCheck{Send: []byte("ping"), Expect: []byte("pong")}}, echo), BadAnswer)
	wantOutcome(t, run(t, Check{Type: UDP, UDP: &UDPCheck{Send: []byte("ping")}}, closed(t, true)), Refused)
}
