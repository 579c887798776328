package main

import (
	"context"
	"flag"
	"os"

	"github.com/tproxyd/tproxyd/internal/demo"
)

// cmdDemo shows this very binary at work in a lab of its own.
func cmdDemo(ctx context.Context, e env, args []string) error {
	fs := flag.NewFlagSet("demo", flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "print only the checks, as JSON")
	hold := fs.Bool("hold", false, "keep the lab until Ctrl-C, with the admin page on this host's loopback")
	if err := parse(e, fs, args); err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	ok, err := demo.Run(ctx, demo.Config{Exe: exe, JSON: *asJSON, Hold: *hold, Out: e.stdout})
	if err == nil && !ok {
		err = errReported
	}
	return err
}
