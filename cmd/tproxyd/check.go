package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/tproxyd/tproxyd/config"
)

// cmdCheck validates a configuration and prints what it comes to.
func cmdCheck(_ context.Context, e env, args []string) error {
	fs := flag.NewFlagSet("check", flag.ContinueOnError)
	path := fs.String("config", defaultConfig, "configuration `file`")
	asJSON := fs.Bool("json", false, "print JSON instead of TOML")
	quiet := fs.Bool("quiet", false, "print only errors and warnings")
	if err := parse(e, fs, args); err != nil {
		return err
	}
	c, err := loadConfig(*path)
	if invalid := (config.Errors{}); *asJSON && errors.As(err, &invalid) {
		if err := printJSON(e.stdout, map[string]config.Errors{"errors": invalid}); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	for _, w := range c.Warnings {
		fmt.Fprintln(e.stderr, "warning:", w)
	}
	switch {
	case *quiet:
		return nil
	case *asJSON:
		return printJSON(e.stdout, c)
	}
	return c.WriteTOML(e.stdout)
}

// loadConfig reads a configuration, and checks the filters in it, which package
// config cannot.
func loadConfig(path string) (*config.Config, error) {
	c, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	var wrong config.Errors
	check := func(key string, err error) {
		if err != nil {
			wrong = append(wrong, config.Error{
				File: path, Key: key, Msg: err.Error(), Err: err,
				Remedy: `write it as for tcpdump, such as "tcp port 443", with addresses and ports as numbers`,
			})
		}
	}
	if c.Tap != nil {
		for _, capture := range c.Tap.Captures {
			check(fmt.Sprintf("capture %q filter", capture.Name), checkFilter(capture.Filter))
		}
	}
	for _, m := range c.Mirrors {
		_, err := programOf(m, m.Filter)
		check(fmt.Sprintf("mirror %q filter", m.Name), err)
	}
	if wrong != nil {
		return nil, wrong
	}
	return c, nil
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
