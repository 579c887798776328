package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/tproxyd/tproxyd/internal/admin"
)

func backendCommands() group {
	return group{"backend", []command{
		{"list", "list the backends of all services", cmdBackendList},
		{"set", "change a backend until the daemon ends", cmdBackendSet},
	}}
}

func cmdBackendList(ctx context.Context, e env, args []string) error {
	fs := flag.NewFlagSet("backend list", flag.ContinueOnError)
	to := addClientFlags(fs)
	service := fs.String("service", "", "only those of the service of this `name`")
	state := fs.String("state", "", "only those in this `state`: up, down, ejected, drain, maintenance or starting")
	asJSON := fs.Bool("json", false, "print the answer of /api/v1/backends")
	if err := parse(e, fs, args); err != nil {
		return err
	}
	var answer struct{ Backends []admin.ServiceBackend }
	if shown, err := to.show(ctx, e, *asJSON, "/api/v1/backends", query("service", *service, "state", *state), &answer); shown || err != nil {
		return err
	}
	return writeBackends(e.stdout, answer.Backends)
}

func cmdBackendSet(ctx context.Context, e env, args []string) error {
	fs := flag.NewFlagSet("backend set", flag.ContinueOnError)
	to := addClientFlags(fs)
	service := fs.String("service", "", "`name` of the service")
	backend := fs.String("backend", "", "`name` of the backend")
	weight := fs.String("weight", "", "new `weight`, 0 to 256, or default: that of the configuration")
	state := fs.String("state", "", "new `state`: ready; drain: no new flows; maintenance: no checks either")
	asJSON := fs.Bool("json", false, "print the answer of the API")
	if err := parse(e, fs, args); err != nil {
		return err
	}
	if *service == "" || *backend == "" || *weight == "" && *state == "" {
		return usageError{errors.New("backend set: give --service, --backend, and --weight, --state or both; tproxyd backend list has the names")}
	}
	change, err := changeOf(*weight, *state)
	if err != nil {
		return usageError{fmt.Errorf("backend set: %w", err)}
	}
	c, err := to.client()
	if err != nil {
		return err
	}
	path := "/api/v1/services/" + segment(*service) + "/backends/" + segment(*backend)
	body, err := c.do(ctx, http.MethodPost, path, change)
	if err != nil {
		return err
	}
	if *asJSON {
		_, err = e.stdout.Write(body)
		return err
	}
	var answer admin.ServiceBackend
	if err := decodeAnswer(body, &answer); err != nil {
		return err
	}
	return writeBackends(e.stdout, []admin.ServiceBackend{answer})
}

// changeOf is the body of a change, which has been checked as the daemon does.
func changeOf(weight, state string) ([]byte, error) {
	fields := map[string]any{}
	if n, err := strconv.Atoi(weight); err == nil {
		fields["weight"] = n
	} else if weight != "" {
		fields["weight"] = weight
	}
	if state != "" {
		fields["state"] = state
	}
	body, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	_, err = admin.ParseBackendChange(body)
	return body, err
}

// segment escapes a name for a path. Names of nothing but dots have a meaning
// there.
func segment(name string) string {
	if strings.Trim(name, ".") == "" {
		return strings.ReplaceAll(name, ".", "%2E")
	}
	return url.PathEscape(name)
}

// query makes parameters of names and values, leaving out what is empty.
func query(pairs ...string) url.Values {
	values := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			values.Set(pairs[i], pairs[i+1])
		}
	}
	return values
}

func backendsOf(services []admin.Service) []admin.ServiceBackend {
	var all []admin.ServiceBackend
	for _, s := range services {
		for _, b := range s.Backends {
			all = append(all, admin.ServiceBackend{Service: s.Name, Protocol: s.Protocol, Backend: b})
		}
	}
	return all
}

// writeBackends prints a table of backends.
func writeBackends(w io.Writer, backends []admin.ServiceBackend) error {
	t := newTable("SERVICE", "BACKEND", "ADDRESS", "STATE", "WEIGHT", "ACTIVE", "TOTAL", "FAILED", "REASON")
	for _, b := range backends {
		name, active := b.Name, count(b.Active, b.Protocol)
		if b.Route != "" {
			name += " (route " + b.Route + ")"
		}
		if b.MaxConnections > 0 {
			active += fmt.Sprintf(" of %d", b.MaxConnections)
		}
		weight := strconv.Itoa(b.Weight)
		if b.Override {
			weight += " (changed)"
		}
		state := string(b.State)
		if b.Backup {
			state += ", backup"
		}
		t.row(b.Service, name, b.Address, state, weight, active, count(b.Total, b.Protocol), count(b.Failed, b.Protocol), b.Reason)
	}
	return t.write(w)
}
