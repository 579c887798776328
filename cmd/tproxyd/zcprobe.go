package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os/signal"
	"text/tabwriter"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/zcsend"
)

// probePair is the veth pair that zcprobe makes in a namespace of its own.
const probePair, probePeer = "zcprobe0", "zcprobe1"

// probed is what zcprobe prints.
type probed struct {
	Methods []zcsend.Report `json:"methods"`
}

func cmdZCProbe(ctx context.Context, e env, args []string) error {
	fs := flag.NewFlagSet("zcprobe", flag.ContinueOnError)
	device := fs.String("interface", "", "send broadcasts by this `interface`, instead of a veth pair in a namespace of its own; needs CAP_NET_RAW")
	force := fs.Bool("force", false, "also on an interface with a default route")
	asJSON := fs.Bool("json", false, "print JSON")
	if err := parse(e, fs, args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	defer stop()
	probe := probePairOnly
	switch {
	case *device != "":
		if err := refuseDefaultRoute(*device, *force); err != nil {
			return err
		}
		probe = func(ctx context.Context) ([]zcsend.Report, error) { return zcsend.Probe(ctx, *device) }
	case !lab.InSandbox():
		// This very command once more, in a sandbox.
		code, err := lab.Reexec(ctx)
		if err == nil && code != exitOK {
			err = errReported
		}
		return err
	}
	reports, err := probe(ctx)
	if err != nil {
		return err
	}
	return printProbed(e, reports, *asJSON)
}

func printProbed(e env, reports []zcsend.Report, asJSON bool) error {
	if asJSON {
		return printJSON(e.stdout, probed{reports})
	}
	w := tabwriter.NewWriter(e.stdout, 0, 8, 2, ' ', 0)
	for _, r := range reports {
		fmt.Fprintf(w, "%s\t%s\t%s\n", r.Method, r.Result, r.Detail)
	}
	return w.Flush()
}

// probePairOnly probes a veth pair, which it makes and removes.
func probePairOnly(ctx context.Context) (reports []zcsend.Report, err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = probePair
	pair := netlink.NewVeth(attrs)
	pair.PeerName = probePeer
	if err := netlink.LinkAdd(pair); err != nil {
		return nil, fmt.Errorf("add veth pair: %w", err)
	}
	defer func() {
		if gone := netlink.LinkDel(pair); gone != nil {
			err = errors.Join(err, fmt.Errorf("remove veth pair: %w", gone))
		}
	}()
	for _, name := range []string{probePair, probePeer} {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err != nil {
			return nil, fmt.Errorf("set %s up: %w", name, err)
		}
	}
	return zcsend.Probe(ctx, probePair)
}
