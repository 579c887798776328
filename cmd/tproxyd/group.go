package main

import (
	"context"
	"fmt"
	"strings"
)

// group is a command that has commands of its own.
type group struct {
	name     string
	commands []command
}

// run runs one of them.
func (g group) run(ctx context.Context, e env, args []string) error {
	var known []string
	for _, c := range g.commands {
		if len(args) > 0 && args[0] == c.name {
			return c.run(ctx, e, args[1:])
		}
		known = append(known, c.name)
	}
	if len(args) > 0 && (args[0] == "--help" || args[0] == "-help" || args[0] == "-h") {
		fmt.Fprintf(e.stdout, "Usage: tproxyd %s COMMAND [FLAGS]\n", g.name)
		for _, c := range g.commands {
			fmt.Fprintf(e.stdout, "  %-6s %s\n", c.name, c.summary)
		}
		return nil
	}
	return usageError{fmt.Errorf("%s: want one of the commands %s; see tproxyd %s --help", g.name, strings.Join(known, ", "), g.name)}
}
