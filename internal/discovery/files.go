package discovery

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// maxFile is as much of a file as is read.
const maxFile = 1 << 20

// dnsPort is the port of servers in resolv.conf.
const dnsPort = 53

// readFile is the beginning of a file, or nothing if there is none.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return text, nil
}

// lookupHosts is the addresses of name, lower case without a dot at the end, in
// a file like /etc/hosts.
func lookupHosts(text []byte, name string) []netip.Addr {
	var found []netip.Addr
	for fields := range lines(text, "#") {
		a, err := netip.ParseAddr(fields[0])
		if err != nil || a.Zone() != "" {
			continue
		}
		for _, alias := range fields[1:] {
			if strings.TrimSuffix(strings.ToLower(alias), ".") == name {
				found = append(found, a.Unmap())
				break
			}
		}
	}
	return found
}

// A resolvConf is what /etc/resolv.conf says.
type resolvConf struct {
	servers  []netip.AddrPort
	search   []string // absolute
	ndots    int
	timeout  time.Duration
	attempts int
}

// The limits and defaults of resolv.conf(5).
const (
	maxServers      = 3
	maxSearch       = 6
	defaultTimeout  = 5 * time.Second
	defaultAttempts = 2
)

// parseResolvConf reads what it knows and passes over everything else, as the C
// library does.
func parseResolvConf(text []byte) resolvConf {
	c := resolvConf{ndots: 1, timeout: defaultTimeout, attempts: defaultAttempts}
	for fields := range lines(text, "#;") {
		switch values := fields[1:]; fields[0] {
		case "nameserver":
			if len(values) == 0 || len(c.servers) == maxServers {
				continue
			}
			if a, err := netip.ParseAddr(values[0]); err == nil {
				c.servers = append(c.servers, netip.AddrPortFrom(a, dnsPort))
			}
		case "domain", "search": // the last one counts
			c.search = nil
			for _, domain := range values[:min(len(values), maxSearch)] {
				if d := absolute(domain); d != "." {
					c.search = append(c.search, d)
				}
			}
		case "options":
			for _, option := range values {
				c.option(option)
			}
		}
	}
	if len(c.servers) == 0 {
		c.servers = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), dnsPort)}
	}
	return c
}

func (c *resolvConf) option(text string) {
	name, value, _ := strings.Cut(text, ":")
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return
	}
	switch name {
	case "ndots":
		c.ndots = min(n, 15)
	case "timeout":
		c.timeout = time.Duration(min(max(n, 1), 30)) * time.Second
	case "attempts":
		c.attempts = min(max(n, 1), 5)
	}
}

// candidates are the names that name may mean, in the order in which to ask for
// them.
func (c *resolvConf) candidates(name string) []string {
	if strings.HasSuffix(name, ".") || len(c.search) == 0 {
		return []string{absolute(name)}
	}
	var all []string
	for _, domain := range c.search {
		all = append(all, absolute(name)+domain)
	}
	if strings.Count(name, ".") >= c.ndots {
		return append([]string{absolute(name)}, all...)
	}
	return append(all, absolute(name))
}

// absolute is name in lower case and with a dot at the end.
func absolute(name string) string {
	return strings.TrimSuffix(strings.ToLower(name), ".") + "."
}

// lines are the words of each line that has any, up to a comment.
func lines(text []byte, comment string) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		s := bufio.NewScanner(bytes.NewReader(text))
		s.Buffer(nil, maxFile+1)
		for s.Scan() {
			line := s.Text()
			if i := strings.IndexAny(line, comment); i >= 0 {
				line = line[:i]
			}
			if fields := strings.Fields(line); len(fields) > 0 && !yield(fields) {
				return
			}
		}
	}
}
