package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"

	"go.uber.org/zap"
)

// maxBody bounds the body of a change.
const maxBody = 64 << 10

// changing lets a request through that may change something: the server is
// writable, and it was not a page of somebody else's that sent it.
func (a *api) changing(next answer) http.Handler {
	return answer(func(r *http.Request) (any, error) {
		if !a.write() {
			return nil, &refusal{http.StatusForbidden, "read-only: nothing can be changed over this address; set write = true below [admin], or use the unix socket, admin.socket"}
		}
		if err := checkOrigin(r); err != nil {
			return nil, &refusal{http.StatusForbidden, err.Error()}
		}
		if a.control == nil {
			return nil, errNoControl
		}
		return next(r)
	})
}

// checkOrigin refuses what a browser sends on behalf of a page that is not ours.
// A name is never ours: whoever owns one can let it point here, after the page
// has been loaded from somewhere else.
func checkOrigin(r *http.Request) error {
	var protection http.CrossOriginProtection
	if err := protection.Check(r); err != nil {
		return fmt.Errorf("request of a foreign page: %w", err)
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return nil
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host != r.Host {
		return fmt.Errorf("request of a foreign page: origin %q is not %q", origin, r.Host)
	}
	if _, err := netip.ParseAddr(u.Hostname()); err != nil && u.Hostname() != "localhost" {
		return fmt.Errorf("request of a page: its origin %q must be an IP address or localhost", origin)
	}
	return nil
}

func (a *api) postBackend(r *http.Request) (any, error) {
	body, err := readJSON(r)
	if err != nil {
		return nil, err
	}
	change, err := ParseBackendChange(body)
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, err.Error()}
	}
	service, name := r.PathValue("service"), r.PathValue("backend")
	backend, err := a.control.SetBackend(service, name, change)
	switch {
	case errors.Is(err, ErrNoService), errors.Is(err, ErrNoBackend):
		return nil, a.notFound(service, name)
	case errors.Is(err, ErrDraining):
		return nil, &refusal{http.StatusConflict, err.Error()}
	case errors.Is(err, ErrRefused):
		return nil, &refusal{http.StatusBadRequest, err.Error()}
	case err != nil:
		return nil, fmt.Errorf("change backend %q of service %q: %w", name, service, err)
	}
	a.log.Info("backend changed", zap.String("service", service), zap.String("backend", name),
		zap.Int("weight", backend.Weight), zap.String("admin_state", string(backend.AdminState)), zap.String("by", client(r)))
	s, err := findService(a.status().Services, service)
	return ServiceBackend{service, s.Protocol, backend}, err
}

// notFound names what there is instead.
func (a *api) notFound(service, backend string) error {
	s, err := findService(a.status().Services, service)
	if err != nil {
		return err
	}
	return noBackend(s, backend)
}

func (a *api) deleteFlow(r *http.Request) (any, error) {
	id, err := ParseFlowID(r.PathValue("id"))
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, err.Error()}
	}
	if !a.control.CutFlow(uint64(id)) {
		return nil, &refusal{http.StatusNotFound, fmt.Sprintf("no flow %s: it has ended, or never was", id)}
	}
	a.log.Info("flow cut", zap.Stringer("flow_id", id), zap.String("by", client(r)))
	return nil, nil
}

// readJSON returns the body of r, of which nothing is assumed but that it may be
// JSON. Demanding its type makes a browser ask first whether it may send it.
func readJSON(r *http.Request) ([]byte, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return nil, &refusal{http.StatusUnsupportedMediaType, "the body must come as Content-Type: application/json"}
	}
	tooLarge := &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("the body may have %d bytes at most", maxBody)}
	if r.ContentLength > maxBody {
		return nil, tooLarge
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, &refusal{http.StatusBadRequest, fmt.Sprintf("read body: %v", err)}
	case len(body) > maxBody:
		return nil, tooLarge
	}
	return body, nil
}

// ParseBackendChange reads a change in JSON, with no more and no other fields
// than there are: {"weight": 10, "state": "drain"}. A weight of null or "default"
// is that of the configuration.
func ParseBackendChange(text []byte) (BackendChange, error) {
	fields, err := parseObject(text)
	if err != nil {
		return BackendChange{}, fmt.Errorf("the body must be a JSON object such as {\"weight\": 10, \"state\": \"drain\"}: %w", err)
	}
	var c BackendChange
	for name, value := range fields {
		switch name {
		case "weight":
			c.Weight, err = parseWeight(value)
		case "state":
			c.State, err = parseAdminState(value)
		default:
			err = fmt.Errorf("unknown field %q; there are weight and state", name)
		}
		if err != nil {
			return BackendChange{}, err
		}
	}
	if c == (BackendChange{}) {
		return BackendChange{}, errors.New("nothing to change: give weight, state or both")
	}
	return c, nil
}

func parseWeight(text json.RawMessage) (*int, error) {
	weight := DefaultWeight
	if s := string(text); s == "null" || s == `"default"` {
		return &weight, nil
	}
	if err := json.Unmarshal(text, &weight); err != nil || weight < 0 || weight > MaxWeight {
		return nil, fmt.Errorf("weight %s: want an integer from 0 to %d, or \"default\" for that of the configuration", text, MaxWeight)
	}
	return &weight, nil
}

func parseAdminState(text json.RawMessage) (AdminState, error) {
	var s AdminState
	if err := json.Unmarshal(text, &s); err == nil {
		switch s {
		case AdminReady, AdminDrain, AdminMaintenance:
			return s, nil
		}
	}
	return "", fmt.Errorf("state %s: want \"ready\", \"drain\" or \"maintenance\"", text)
}

// parseObject returns the fields of a JSON object, each of which may be there
// once. Package json would take the last, and names in any case.
func parseObject(text []byte) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.Join(errors.New("it does not begin with {"), err)
	}
	fields := map[string]json.RawMessage{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name := t.(string) // or Token had failed
		if _, twice := fields[name]; twice {
			return nil, fmt.Errorf("field %q is there twice", name)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		fields[name] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more behind the object")
	}
	return fields, nil
}

// client tells who sent r.
func client(r *http.Request) string {
	if conn, ok := r.Context().Value(connKey{}).(*net.UnixConn); ok {
		if cred, err := peerOf(conn); err == nil {
			return fmt.Sprintf("uid %d, pid %d", cred.Uid, cred.Pid)
		}
	}
	return r.RemoteAddr
}
