package admin

import (
	"bytes"
	"encoding/json"
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

func newHandler(cfg Config) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(cfg.Gatherer, promhttp.HandlerOpts{
		ErrorLog:          scrapeLog{cfg.Log},
		ErrorHandling:     promhttp.ContinueOnError,
		EnableOpenMetrics: true,
	}))
	mux.Handle("/healthz", check(cfg.Live))
	mux.Handle("/readyz", check(cfg.Ready))
	mux.Handle("/api/v1/status", rendered("application/json", cfg.Status, renderJSON))
	mux.Handle("/{$}", rendered("text/html; charset=utf-8", cfg.Status, renderPage))
	return guard(mux)
}

// guard refuses what no request to this server needs, and sets the headers
// that every answer has.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", csp)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			h.Set("Connection", "close") // its body is not waited for
			http.Error(w, "only GET and HEAD are answered here", http.StatusMethodNotAllowed)
			return
		}
		if r.ContentLength != 0 {
			h.Set("Connection", "close")
			http.Error(w, "a request has no body here", http.StatusRequestEntityTooLarge)
			return
		}
		next.ServeHTTP(w, r)
	})
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

// rendered answers with the status as render writes it.
func rendered(contentType string, status func() Status, render func(*bytes.Buffer, Status) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var body bytes.Buffer
		if err := render(&body, status()); err != nil {
			http.Error(w, fmt.Sprintf("render status: %v", err), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(body.Bytes()) // the client has gone if this fails
	})
}

func renderJSON(dst *bytes.Buffer, s Status) error {
	enc := json.NewEncoder(dst)
	enc.SetIndent("", "  ")
	return enc.Encode(s)
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
