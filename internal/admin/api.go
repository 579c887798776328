package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"
)

// api answers what is below /api/v1.
type api struct {
	status  func() Status
	control Control
	write   func() bool
	log     *zap.Logger
}

// ServiceBackend is a backend with the service it belongs to.
type ServiceBackend struct {
	Service  string `json:"service"`
	Protocol string `json:"protocol"`
	Backend
}

// routes adds the paths of a to mux.
func (a *api) routes(mux *http.ServeMux) {
	const backend = "/api/v1/services/{service}/backends/{backend}"
	mux.Handle("/api/v1/status", methods{get: answer(a.getStatus)})
	mux.Handle("/api/v1/services", methods{get: answer(a.getServices)})
	mux.Handle("/api/v1/services/{service}", methods{get: answer(a.getService)})
	mux.Handle("/api/v1/backends", methods{get: answer(a.getBackends)})
	mux.Handle("/api/v1/flows", methods{get: answer(a.getFlows)})
	mux.Handle(backend, methods{get: answer(a.getBackend), post: a.changing(a.postBackend)})
	mux.Handle("/api/v1/flows/{id}", methods{del: a.changing(a.deleteFlow)})
	mux.Handle("/api/", answer(unknownPath))
}

func (a *api) getStatus(*http.Request) (any, error) { return a.status(), nil }

func (a *api) getServices(r *http.Request) (any, error) {
	if _, err := parameters(r.URL.RawQuery); err != nil {
		return nil, err
	}
	return map[string]any{"services": a.status().Services}, nil
}

func (a *api) getService(r *http.Request) (any, error) {
	return findService(a.status().Services, r.PathValue("service"))
}

func (a *api) getBackend(r *http.Request) (any, error) {
	service, err := findService(a.status().Services, r.PathValue("service"))
	if err != nil {
		return nil, err
	}
	name := r.PathValue("backend")
	i := slices.IndexFunc(service.Backends, func(b Backend) bool { return b.Name == name })
	if i < 0 {
		return nil, noBackend(service, name)
	}
	return ServiceBackend{service.Name, service.Protocol, service.Backends[i]}, nil
}

func (a *api) getBackends(r *http.Request) (any, error) {
	values, err := parameters(r.URL.RawQuery, "service", "state")
	if err != nil {
		return nil, err
	}
	state, err := oneOf("state", values["state"], "", backendStates()...)
	if err != nil {
		return nil, err
	}
	services := a.status().Services
	if name := values["service"]; name != "" {
		service, err := findService(services, name)
		if err != nil {
			return nil, err
		}
		services = []Service{service}
	}
	backends := array[ServiceBackend]{}
	for _, s := range services {
		for _, b := range s.Backends {
			if state == "" || b.State == state {
				backends = append(backends, ServiceBackend{s.Name, s.Protocol, b})
			}
		}
	}
	return map[string]any{"backends": backends}, nil
}

func (a *api) getFlows(r *http.Request) (any, error) {
	q, err := ParseFlowQuery(r.URL.RawQuery)
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, err.Error()}
	}
	if a.control == nil {
		return nil, errNoControl
	}
	return a.control.Flows(q), nil
}

func unknownPath(*http.Request) (any, error) {
	return nil, &refusal{http.StatusNotFound, "no such path; there are /api/v1/status, /api/v1/services, /api/v1/services/{service}, " +
		"/api/v1/services/{service}/backends/{backend}, /api/v1/backends, /api/v1/flows, /api/v1/flows/{id}, " +
		"/api/v1/tap, /api/v1/tap/captures/{name}, /api/v1/tap/live and /api/v1/tap/dump"}
}

// findService returns the service of that name, or an error that names others.
func findService(services []Service, name string) (Service, error) {
	i := slices.IndexFunc(services, func(s Service) bool { return s.Name == name })
	if i >= 0 {
		return services[i], nil
	}
	var known []string
	for _, s := range services {
		known = append(known, s.Name)
	}
	return Service{}, &refusal{http.StatusNotFound, fmt.Sprintf("no service %q; %s", name, listKnown("services", known))}
}

func noBackend(s Service, name string) error {
	var known []string
	for _, b := range s.Backends {
		known = append(known, b.Name)
	}
	return &refusal{http.StatusNotFound, fmt.Sprintf("no backend %q in service %q; %s", name, s.Name, listKnown("backends", known))}
}

// listKnown names what there is instead, as far as a line has room.
func listKnown(what string, names []string) string {
	const room = 20
	switch n := len(names); {
	case n == 0:
		return "there are no " + what
	case n > room:
		return fmt.Sprintf("known are %s and %d more", strings.Join(names[:room], ", "), n-room)
	}
	return "known are " + strings.Join(names, ", ")
}

// refusal is an error with its HTTP status code.
type refusal struct {
	code int
	text string
}

// Error implements error.
func (r *refusal) Error() string { return r.text }

var errNoControl = &refusal{http.StatusNotImplemented, "this server only shows the status"}

// answer is a handler that returns what to encode, nil for nothing, or an error.
type answer func(r *http.Request) (any, error)

// ServeHTTP implements http.Handler.
func (f answer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v, err := f(r)
	switch refused := (*refusal)(nil); {
	case errors.As(err, &refused):
		writeError(w, refused.code, refused.text)
	case err != nil:
		writeError(w, http.StatusInternalServerError, err.Error())
	case v == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		writeJSON(w, http.StatusOK, v)
	}
}

func writeError(w http.ResponseWriter, code int, text string) {
	writeJSON(w, code, map[string]string{"error": text})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		http.Error(w, fmt.Sprintf("encode answer: %v", err), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(body.Bytes()) // the client has gone if this fails
}
