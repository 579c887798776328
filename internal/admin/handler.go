package admin

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
)

// csp lets the page style itself and nothing else.
const csp = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// newHandler returns the handler of a server; write is asked at each change, and
// progress told of each piece of an answer that is long.
func newHandler(cfg Config, write func() bool, progress func(*http.Request)) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", methods{get: promhttp.HandlerFor(cfg.Gatherer, promhttp.HandlerOpts{
		ErrorLog:          scrapeLog{cfg.Log},
		ErrorHandling:     promhttp.ContinueOnError,
		EnableOpenMetrics: true,
	})})
	mux.Handle("/healthz", methods{get: check(cfg.Live)})
	mux.Handle("/readyz", methods{get: check(cfg.Ready)})
	mux.Handle("/{$}", methods{get: page(cfg.Status)})
	a := &api{status: cfg.Status, control: cfg.Control, write: write, log: cfg.Log}
	a.routes(mux)
	(&tapAPI{api: a, tap: cfg.Tap, progress: progress}).routes(mux)
	return guard(mux)
}

// guard sets the headers that every answer has, and refuses bodies where none
// is due.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", csp)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		if r.ContentLength != 0 || !isRead(r) {
			h.Set("Connection", "close") // what is left of a body is not waited for
		}
		if r.ContentLength != 0 && r.Method != http.MethodPost && isKnown(r.Method) {
			refuse(w, r, http.StatusRequestEntityTooLarge, "a request has no body here")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isRead(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// isKnown tells methods that are answered at some path from those that are not.
func isKnown(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodPost || method == http.MethodDelete
}

// refuse answers with an error, as JSON to clients of the API.
func refuse(w http.ResponseWriter, r *http.Request, code int, text string) {
	if strings.HasPrefix(r.URL.Path, "/api/") {
		writeError(w, code, text)
		return
	}
	http.Error(w, text, code)
}

// methods are the handlers of one path; nil where a method is refused.
type methods struct{ get, post, del http.Handler }

// ServeHTTP implements http.Handler.
func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var handler http.Handler
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		handler = m.get
	case http.MethodPost:
		handler = m.post
	case http.MethodDelete:
		handler = m.del
	}
	if handler == nil {
		allowed := m.allowed()
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		refuse(w, r, http.StatusMethodNotAllowed, "only "+strings.Join(allowed, " and ")+" are answered here")
		return
	}
	handler.ServeHTTP(w, r)
}

func (m methods) allowed() []string {
	var names []string
	if m.get != nil {
		names = append(names, http.MethodGet, http.MethodHead)
	}
	if m.post != nil {
		names = append(names, http.MethodPost)
	}
	if m.del != nil {
		names = append(names, http.MethodDelete)
	}
	return names
}

// check answers whether state returns nil, and what it returns if not.
func check(state func() error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := state(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok\n")) // the client has gone if this fails
	})
}

// page answers with the status for a person.
func page(status func() Status) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var body bytes.Buffer
		if err := pageTemplate.Execute(&body, status()); err != nil {
			http.Error(w, fmt.Sprintf("render status: %v", err), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(body.Bytes()) // the client has gone if this fails
	})
}

// scrapeLog is the log of promhttp. A client that did not take its answer is
// no news, and must not be able to fill the log.
type scrapeLog struct{ log *zap.Logger }

// Println implements promhttp.Logger.
func (l scrapeLog) Println(v ...any) {
	level := zap.WarnLevel
	for _, x := range v {
		if err, ok := x.(error); ok && errors.As(err, new(*net.OpError)) {
			level = zap.DebugLevel
		}
	}
	l.log.Log(level, "scrape: "+strings.TrimSpace(fmt.Sprintln(v...)))
}
