package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseOptions(t *testing.T) {
	o, err := parseOptions([]string{
		"--json", "--rounds", "5", "--work", "tcp_connect_64, tcp_bulk_up,tcp_connect_64",
		"--subjects", "haproxy,tproxyd", "--duration", "2s", "--haproxy", "/opt/haproxy", "--source", "client",
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var works []string
	for _, w := range o.works {
		works = append(works, w.name)
	}
	if diff := cmp.Diff([]string{"tcp_connect_64", "tcp_bulk_up"}, works); diff != "" {
		t.Errorf("works (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"haproxy", "tproxyd"}, o.subjects); diff != "" {
		t.Errorf("subjects (-want +got):\n%s", diff)
	}
	if !o.json || o.rounds != 5 || o.duration != 2*time.Second || o.haproxy != "/opt/haproxy" || o.source != "client" {
		t.Errorf("options = %+v", o)
	}
	if o, err = parseOptions(nil, io.Discard); err != nil {
		t.Fatal(err)
	}
	if len(o.works) != 22 || len(o.subjects) != 23 || o.source != "client-ip" || o.idleFlows != 3000 || o.checkTime < 10*time.Second {
		t.Errorf("defaults = %+v, want all works and subjects but other, client-ip, 3000 idle flows, at least 10 s of checks", o)
	}
	if o, err = parseOptions([]string{"--other", "/opt/tproxyd"}, io.Discard); err != nil {
		t.Fatal(err)
	}
	if !o.wants(theOther) || len(o.subjects) != 24 {
		t.Errorf("subjects with --other = %v, want all", o.subjects)
	}
}

func TestParseOptionsRefuses(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"--work tcp_bulk", "tcp_bulk_up"}, // names what there is
		{"--subjects envoy", "haproxy"},
		{"--subjects ,", "must name"},
		{"--subjects tproxyd,other", "--other PATH"},
		{"--rounds 0", "--rounds"},
		{"--duration 1ms", "--duration"},
		{"--source host", "client-ip"},
		{"extra", "extra"},
		{"--unknown", "unknown"},
	} {
		if _, err := parseOptions(strings.Fields(tt.args), io.Discard); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("parseOptions(%q) = %v, want an error with %q", tt.args, err, tt.want)
		}
	}
}

func TestUsage(t *testing.T) {
	var stderr bytes.Buffer
	if code := run([]string{"--rounds", "0"}, io.Discard, &stderr); code != exitUsage {
		t.Errorf("exit code = %d, want %d; %s", code, exitUsage, &stderr)
	}
	if code := run([]string{"-h"}, io.Discard, &stderr); code != exitOK {
		t.Errorf("exit code of -h = %d, want %d", code, exitOK)
	}
	if _, err := parseOptions([]string{"-h"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("parseOptions(-h) = %v, want ErrHelp", err)
	}
}
