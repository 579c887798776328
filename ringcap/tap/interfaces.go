package tap

import (
	"fmt"
	"net"
	"path"
	"slices"
	"strings"
)

// resolve makes names of names and patterns. A name stands for itself, whether
// or not there is such an interface.
func resolve(patterns []string) ([]string, error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var names []string
	if len(patterns) == 0 {
		for _, l := range links {
			if l.Flags&net.FlagUp != 0 && l.Flags&net.FlagLoopback == 0 {
				names = append(names, l.Name)
			}
		}
	}
	for _, p := range patterns {
		if !strings.ContainsAny(p, `*?[\`) {
			names = append(names, p)
			continue
		}
		for _, l := range links {
			ok, err := path.Match(p, l.Name)
			if err != nil {
				return nil, fmt.Errorf("check interface pattern %q: %w", p, err)
			}
			if ok {
				names = append(names, l.Name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
