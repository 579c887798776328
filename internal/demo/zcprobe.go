package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// probedMethods are those that zcprobe has to say something of.
var probedMethods = []string{"ring", "mmsg", "gso", "splice-udp", "splice-raw"}

// probed is what zcprobe --json prints.
type probed struct {
	Methods []probedMethod `json:"methods"`
}

type probedMethod struct {
	Method string `json:"method"`
	Result string `json:"result"`
	Detail string `json:"detail"`
}

// zcprobe has the program find out which ways of sending copy on this kernel.
func (d *demo) zcprobe(ctx context.Context) {
	d.out.step("Which ways of sending copy on this kernel")
	p, err := d.probe(ctx)
	var results []string
	for _, m := range p.Methods {
		d.out.say("%-10s  %-13s  %s", m.Method, m.Result, m.Detail)
		results = append(results, m.Method+" "+m.Result)
	}
	if err == nil {
		err = p.judge()
	}
	d.out.check("zcprobe", err == nil, "%s%s", strings.Join(results, ", "), because(err))
}

// probe runs zcprobe in the proxy. It makes a veth pair and removes it.
func (d *demo) probe(ctx context.Context) (p probed, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.step)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := d.lab.Proxy.Command(ctx, d.cfg.Exe, "zcprobe", "--json")
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return p, fmt.Errorf("%w: %s", err, bytes.TrimSpace(errs.Bytes()))
	}
	return p, json.Unmarshal(out.Bytes(), &p)
}

// judge wants each method tried. A kernel need not have all of them; that
// sendmmsg copies holds on all.
func (p probed) judge() error {
	var names []string
	for _, m := range p.Methods {
		names = append(names, m.Method)
		switch {
		case m.Result == "copied":
		case m.Method == "mmsg":
			return errors.New("sendmmsg(2) copies, which the probe does not see")
		case m.Result != "by-reference" && m.Result != "not-supported":
			return fmt.Errorf("%s: %q is no verdict", m.Method, m.Result)
		}
	}
	slices.Sort(names)
	if want := slices.Sorted(slices.Values(probedMethods)); !slices.Equal(names, want) {
		return fmt.Errorf("verdicts on %v, want %v", names, want)
	}
	return nil
}
