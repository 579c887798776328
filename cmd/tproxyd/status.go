package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tproxyd/tproxyd/internal/admin"
)

// names are the values of a flag that may be given several times.
type names []string

// String implements flag.Value.
func (n *names) String() string { return strings.Join(*n, ", ") }

// Set implements flag.Value.
func (n *names) Set(s string) error {
	if s == "" {
		return errors.New("the name is empty")
	}
	*n = append(*n, s)
	return nil
}

// cmdStatus shows the state of a running daemon.
func cmdStatus(ctx context.Context, e env, args []string) error {
	fs := flag.NewFlagSet("status", flag.ContinueOnError)
	to := addClientFlags(fs)
	asJSON := fs.Bool("json", false, "print the answer of /api/v1/status")
	check := fs.Bool("check", false, "print one line; exit with 0 only if the daemon is ready and every service has a backend for new flows")
	var only names
	fs.Var(&only, "service", "only the service of this `name`; may be given several times")
	if err := parse(e, fs, args); err != nil {
		return err
	}
	if *check && *asJSON || *asJSON && len(only) > 0 {
		return usageError{errors.New("status: --json prints all there is: not with --check or --service")}
	}
	var s admin.Status
	if shown, err := to.show(ctx, e, *asJSON, "/api/v1/status", nil, &s); shown || err != nil {
		return err
	}
	services, err := chooseServices(s, only)
	if err != nil {
		return err
	}
	if *check {
		return writeCheck(e.stdout, s, services)
	}
	return writeStatus(e.stdout, s, services)
}

// chooseServices returns the services of s that have one of the names, or all.
func chooseServices(s admin.Status, only names) ([]admin.Service, error) {
	if len(only) == 0 {
		return s.Services, nil
	}
	var chosen []admin.Service
	for _, name := range only {
		i := slices.IndexFunc(s.Services, func(s admin.Service) bool { return s.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("service %q is not configured", name)
		}
		chosen = append(chosen, s.Services[i])
	}
	return chosen, nil
}

// writeCheck prints one line, and fails if new flows have nowhere to go.
func writeCheck(w io.Writer, s admin.Status, services []admin.Service) error {
	var problems []string
	if !s.Ready {
		problems = append(problems, "not ready: "+s.ReadyReason)
	}
	for _, svc := range services {
		if !takesFlows(svc) {
			problems = append(problems, svc.Name+": "+noneTakes(svc))
		}
	}
	if len(problems) > 0 {
		if _, err := fmt.Fprintln(w, clean("failed: "+strings.Join(problems, "; "))); err != nil {
			return err
		}
		return errReported
	}
	_, err := fmt.Fprintf(w, "ok: ready, %d of %d services have backends for new flows\n", len(services), len(services))
	return err
}

// takesFlows tells whether new flows of a service have somewhere to go. An
// intercept service that sends them to where they wanted to has a backend for
// that; one without any has names that stand for nothing yet.
func takesFlows(s admin.Service) bool {
	return slices.ContainsFunc(s.Backends, admin.Backend.TakesFlows)
}

// noneTakes says of each backend why it takes no flows, as far as a line has
// room.
func noneTakes(s admin.Service) string {
	if len(s.Backends) == 0 {
		return "no backend for new flows, its names have no addresses yet"
	}
	const room = 3
	var each []string
	for _, b := range s.Backends {
		why := string(b.State)
		switch {
		case (b.State == admin.BackendUp || b.State == admin.BackendStarting) && b.Weight == 0:
			why = "weight 0"
		case b.Reason != "":
			why += ": " + b.Reason
		}
		each = append(each, fmt.Sprintf("%s (%s)", b.Name, why))
	}
	if more := len(each) - room; more > 0 {
		each = append(each[:room], fmt.Sprintf("and %d more", more))
	}
	return "no backend for new flows, " + strings.Join(each, ", ")
}

func writeStatus(w io.Writer, s admin.Status, services []admin.Service) error {
	writeHead(w, s)
	fmt.Fprintln(w)
	t := newTable("SERVICE", "MODE", "STATE", "LISTEN", "ACTIVE", "WAITING", "TOTAL", "REJECTED", "IN", "OUT")
	for _, svc := range services {
		t.row(svc.Name, svc.Mode+" "+svc.Protocol, serviceState(svc), listen(svc),
			count(svc.Active, svc.Protocol), strconv.Itoa(svc.QueueLength), count(svc.Total, svc.Protocol), count(svc.Rejected, svc.Protocol),
			admin.FormatBytes(svc.BytesIn), admin.FormatBytes(svc.BytesOut))
	}
	if err := t.write(w); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := writeBackends(w, backendsOf(services)); err != nil {
		return err
	}
	return writeShadows(w, services)
}

// writeShadows shows the shadows, if there are any.
func writeShadows(w io.Writer, services []admin.Service) error {
	t := newTable("SERVICE", "SHADOW", "PERCENT", "ACTIVE", "ENDED", "GIVEN UP", "DIFFERENT", "SENT")
	found := false
	for _, svc := range services {
		if s := svc.Shadow; s != nil {
			found = true
			t.row(svc.Name, s.Address, strconv.Itoa(s.Percent), strconv.Itoa(s.Active), decimal(s.Total),
				decimal(s.Failed), decimal(s.Mismatches), admin.FormatBytes(s.BytesSent))
		}
	}
	if !found {
		return nil
	}
	fmt.Fprintln(w)
	return t.write(w)
}

func writeHead(w io.Writer, s admin.Status) {
	state := "ready"
	if !s.Ready {
		state = "not ready: " + s.ReadyReason
	}
	uptime := time.Duration(s.UptimeSeconds * float64(time.Second))
	fmt.Fprintln(w, clean(fmt.Sprintf("tproxyd %s, pid %d, up %s: %s", s.Version, s.PID, admin.FormatAge(uptime), state)))
	// The clock is the daemon's, which has written the times.
	loaded := admin.FormatAge(s.Started.Add(uptime).Sub(s.Config.LastReloadTime))
	if s.Config.LastReloadSuccess {
		fmt.Fprintln(w, clean(fmt.Sprintf("%s, loaded %s ago", s.Config.Path, loaded)))
	} else {
		fmt.Fprintln(w, clean(fmt.Sprintf("%s, refused %s ago, the one before stays in force: %s", s.Config.Path, loaded, s.Config.LastError)))
	}
	fmt.Fprintf(w, "%s of %d at most", count(s.Connections.Active, "tcp"), s.Limits.MaxConnections)
	if s.Limits.MaxFlows > 0 {
		fmt.Fprintf(w, ", %s of %d at most", count(s.Flows.Active, "udp"), s.Limits.MaxFlows)
	}
	fmt.Fprintln(w)
}

// serviceState is draining, or how many of the backends take new flows.
func serviceState(s admin.Service) string {
	up := 0
	for _, b := range s.Backends {
		if b.TakesFlows() {
			up++
		}
	}
	state := "up"
	switch {
	case s.Draining:
		state = "draining"
	case !takesFlows(s):
		state = "down"
	}
	if len(s.Backends) == 0 {
		return state
	}
	return fmt.Sprintf("%s, %d of %d", state, up, len(s.Backends))
}

// listen is where a service listens, in a cell: port ranges are long.
func listen(s admin.Service) string {
	const room = 2
	if more := len(s.Listen) - room; more > 0 {
		return strings.Join(s.Listen[:room], " ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(s.Listen, " ")
}
