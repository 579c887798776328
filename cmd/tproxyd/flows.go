package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/tproxyd/tproxyd/internal/admin"
)

// cmdFlows lists flows, or cuts one.
func cmdFlows(ctx context.Context, e env, args []string) error {
	if len(args) > 0 && args[0] == "cut" {
		return cmdFlowsCut(ctx, e, args[1:])
	}
	fs := flag.NewFlagSet("flows", flag.ContinueOnError)
	to := addClientFlags(fs)
	service := fs.String("service", "", "only those of the service of this `name`")
	backend := fs.String("backend", "", "only those to the backend of this `name`")
	client := fs.String("client", "", "only those of clients in this `prefix`, or of this address")
	protocol := fs.String("protocol", "", "only those of this `protocol`: tcp or udp")
	state := fs.String("state", "", "only those in this `state`: greeting, queued, connecting, relaying, waiting, resetting or active")
	sort := fs.String("sort", "age", "the most come first, by this `key`: age, bytes, idle; or id, smallest first")
	limit := fs.Int("limit", admin.DefaultFlowLimit, "`number` of flows to list at most")
	asJSON := fs.Bool("json", false, "print the answer of /api/v1/flows")
	err := parse(e, fs, args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(e.stdout, "tproxyd flows cut ID [FLAGS] cuts the flow of that id.")
	}
	if err != nil {
		return err
	}
	q := query("service", *service, "backend", *backend, "client", *client, "protocol", *protocol,
		"state", *state, "sort", *sort, "limit", strconv.Itoa(*limit))
	if _, err := admin.ParseFlowQuery(q.Encode()); err != nil {
		return usageError{fmt.Errorf("flows: %w", err)}
	}
	var list admin.FlowList
	if shown, err := to.show(ctx, e, *asJSON, "/api/v1/flows", q, &list); shown || err != nil {
		return err
	}
	return writeFlows(e.stdout, list)
}

func cmdFlowsCut(ctx context.Context, e env, args []string) error {
	const usage = "flows cut: want the id of one flow, as tproxyd flows lists it"
	// The id may come before the flags, where package flag would stop.
	var id string
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		id, args = args[0], args[1:]
	}
	fs := flag.NewFlagSet("flows cut ID", flag.ContinueOnError)
	to := addClientFlags(fs)
	if err := parse(e, fs, args); err != nil {
		return err
	}
	parsed, err := admin.ParseFlowID(id)
	if err != nil {
		return usageError{errors.New(usage)}
	}
	c, err := to.client()
	if err != nil {
		return err
	}
	if _, err := c.do(ctx, http.MethodDelete, "/api/v1/flows/"+parsed.String(), nil); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "flow %s is cut\n", parsed)
	return err
}

func writeFlows(w io.Writer, list admin.FlowList) error {
	t := newTable("FLOW", "SERVICE", "CLIENT", "DESTINATION", "BACKEND", "STATE", "AGE", "IDLE", "IN", "OUT", "PATH", "WORKER")
	for i := range list.Flows {
		f := &list.Flows[i]
		to := f.BackendName
		if f.Backend.IsValid() {
			to += " " + f.Backend.String()
		}
		t.row(f.ID.String(), f.Service, endpointText(f.Client), endpointText(f.Destination), to,
			f.Protocol+" "+string(f.State), age(f.AgeMS), age(f.IdleMS), admin.FormatBytes(f.BytesIn), admin.FormatBytes(f.BytesOut),
			strings.Trim(f.PathIn+"/"+f.PathOut, "/"), strconv.Itoa(f.Worker))
	}
	if err := t.write(w); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%s of %d that match, %d in all\n", count(len(list.Flows), "udp"), list.Matched, list.Total)
	return err
}

// endpointText is empty for an address that a flow does not have.
func endpointText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
