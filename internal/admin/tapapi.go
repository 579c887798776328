package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"go.uber.org/zap"
)

// tapAPI answers what is below /api/v1/tap.
type tapAPI struct {
	api      *api
	tap      Tap // nil: there is none
	progress func(*http.Request)
}

func (a *tapAPI) routes(mux *http.ServeMux) {
	mux.Handle("/api/v1/tap", methods{get: answer(a.getTap)})
	mux.Handle("/api/v1/tap/captures/{name}", methods{post: a.api.changing(a.postCapture)})
	mux.Handle("/api/v1/tap/live", methods{get: a.stream(ParseLiveQuery, Tap.Live)})
	mux.Handle("/api/v1/tap/dump", methods{get: a.stream(ParseDumpQuery, Tap.Dump)})
}

func (a *tapAPI) getTap(r *http.Request) (any, error) {
	if _, err := parameters(r.URL.RawQuery); err != nil {
		return nil, err
	}
	if a.tap == nil {
		return nil, refusedByTap(ErrNoTap)
	}
	status, err := a.tap.TapStatus()
	if err != nil {
		return nil, refusedByTap(err)
	}
	return status, nil
}

func (a *tapAPI) postCapture(r *http.Request) (any, error) {
	body, err := readJSON(r)
	if err != nil {
		return nil, err
	}
	run, err := parseCaptureState(body)
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, err.Error()}
	}
	if a.tap == nil {
		return nil, refusedByTap(ErrNoTap)
	}
	name := r.PathValue("name")
	switch err := a.tap.SetCapture(name, run); {
	case errors.Is(err, ErrNoCapture):
		return nil, a.noCapture(name)
	case err != nil:
		return nil, refusedByTap(err)
	}
	a.api.log.Info("capture changed", zap.String("capture", name), zap.Bool("running", run), zap.String("by", client(r)))
	status, err := a.tap.TapStatus()
	if err != nil {
		return nil, refusedByTap(err)
	}
	for _, c := range status.Captures {
		if c.Name == name {
			return c, nil
		}
	}
	return nil, a.noCapture(name) // a reload has just removed it
}

// noCapture names what there is instead.
func (a *tapAPI) noCapture(name string) error {
	var known []string
	if status, err := a.tap.TapStatus(); err == nil {
		for _, c := range status.Captures {
			known = append(known, c.Name)
		}
	}
	return &refusal{http.StatusNotFound, fmt.Sprintf("no capture %q; %s", name, listKnown("captures", known))}
}

// parseCaptureState reads {"state": "start"} or {"state": "stop"}.
func parseCaptureState(text []byte) (run bool, err error) {
	const want = `want {"state": "start"} or {"state": "stop"}`
	fields, err := parseObject(text)
	if err != nil {
		return false, fmt.Errorf("%s: %w", want, err)
	}
	var state string
	if len(fields) != 1 || json.Unmarshal(fields["state"], &state) != nil {
		return false, errors.New(want)
	}
	switch state {
	case "start":
		return true, nil
	case "stop":
		return false, nil
	}
	return false, fmt.Errorf("state %q: %s", state, want)
}

// refusedByTap is the answer to an error of a Tap.
func refusedByTap(err error) error {
	switch {
	case errors.Is(err, ErrNoTap), errors.Is(err, ErrNoRecorder), errors.Is(err, ErrDraining):
		return &refusal{http.StatusConflict, err.Error()}
	case errors.Is(err, ErrRefused):
		return &refusal{http.StatusBadRequest, err.Error()}
	}
	return err
}

// stream answers with packets. Since they have the payload of other people, it is
// for those who may change things, and as these from no page of somebody else's.
func (a *tapAPI) stream(parse func(string) (TapQuery, error), run func(Tap, context.Context, TapQuery, io.Writer) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, err := parse(r.URL.RawQuery)
		switch {
		case !a.api.write():
			err = &refusal{http.StatusForbidden, "packets are handed out only where things may be changed: set write = true below [admin], or use the unix socket, admin.socket"}
		case ownHost(r) != nil:
			err = &refusal{http.StatusForbidden, ownHost(r).Error()}
		case r.Method != http.MethodGet:
			err = &refusal{http.StatusMethodNotAllowed, "only GET is answered here"}
		case err != nil:
			err = &refusal{http.StatusBadRequest, err.Error()}
		case a.tap == nil:
			err = refusedByTap(ErrNoTap)
		}
		if err == nil {
			err = a.pour(w, r, q, run)
		}
		if err != nil {
			answer(func(*http.Request) (any, error) { return nil, err }).ServeHTTP(w, r)
		}
	})
}

// pour writes what run does; an error is one before the first byte.
func (a *tapAPI) pour(w http.ResponseWriter, r *http.Request, q TapQuery, run func(Tap, context.Context, TapQuery, io.Writer) error) error {
	out := &packetWriter{w: w, control: http.NewResponseController(w), progress: func() { a.progress(r) }}
	if err := out.withoutDeadline(); err != nil {
		return fmt.Errorf("stream packets: %w", err)
	}
	a.api.log.Info("packets are streamed", zap.String("path", r.URL.Path), zap.String("query", r.URL.RawQuery), zap.String("by", client(r)))
	err := run(a.tap, r.Context(), q, out)
	switch {
	case r.Context().Err() != nil:
		return nil //nolint:nilerr // the client has gone, and nobody is to be told
	case err != nil && !out.begun:
		return refusedByTap(err)
	case err != nil:
		a.api.log.Warn("stream of packets ended", zap.Error(err), zap.String("by", client(r)))
		panic(http.ErrAbortHandler) // the one way to tell a client that the end is missing
	case !out.begun:
		out.begin()
	}
	return nil
}

// packetWriter sends each write at once, and has no deadline: who runs a live
// stream drops what a slow client does not take.
type packetWriter struct {
	w        http.ResponseWriter
	control  *http.ResponseController
	progress func()
	begun    bool
}

// withoutDeadline takes back the deadlines of the server. That of reading would
// end the request, since the connection is read to see whether the client goes.
func (p *packetWriter) withoutDeadline() error {
	return errors.Join(p.control.SetWriteDeadline(time.Time{}), p.control.SetReadDeadline(time.Time{}))
}

func (p *packetWriter) begin() {
	p.begun = true
	p.w.Header().Set("Content-Type", "application/x-pcapng")
	p.w.WriteHeader(http.StatusOK)
}

// Write implements io.Writer.
func (p *packetWriter) Write(b []byte) (int, error) {
	if !p.begun {
		p.begin()
	}
	n, err := p.w.Write(b)
	if err == nil {
		err = p.control.Flush()
	}
	p.progress()
	return n, err
}

// ownHost refuses what a page could have asked for: one of somebody else's, or one
// whose name has been let point here, see checkOrigin. A GET has no Origin.
func ownHost(r *http.Request) error {
	if err := checkOrigin(r); err != nil {
		return err
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return errors.New("request of a foreign page")
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if len(host) > 1 && host[0] == '[' {
		host = host[1 : len(host)-1]
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "localhost" {
		return fmt.Errorf("packets are not handed out to %q: ask for an IP address or localhost", host)
	}
	return nil
}
