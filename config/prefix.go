package config

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// What bounds a file of prefixes.
const (
	maxListSize  = 32 << 20
	maxListLines = 1_000_000
)

// entry is a prefix and where it stands: in a list file if file is not "".
type entry struct {
	prefix netip.Prefix
	file   string
	line   int
}

func (e entry) where() string {
	if e.file == "" {
		return fmt.Sprintf("line %d", e.line)
	}
	return fmt.Sprintf("%s:%d", e.file, e.line)
}

// parsePrefix reads a prefix, or an address as the prefix of itself. Bits
// beyond the length are cleared.
func parsePrefix(s string) (netip.Prefix, *mistake) {
	const remedy = `write a prefix such as "203.0.113.0/24" or "2001:db8::/32", or an address`
	p, err := netip.ParsePrefix(s)
	if err != nil && !strings.Contains(s, "/") {
		var a netip.Addr
		if a, err = netip.ParseAddr(s); err == nil && a.Zone() == "" {
			p = netip.PrefixFrom(a, a.BitLen())
		}
	}
	switch {
	case err != nil:
		return p, &mistake{quote(s) + " is no prefix and no IP address", remedy}
	case !p.IsValid():
		return p, &mistake{quote(s) + " has a zone", "write it without"}
	case p.Addr().Is4In6():
		return p, &mistake{quote(s) + " is IPv4 in the form of IPv6", `write it as IPv4, such as "203.0.113.0/24"`}
	}
	return p.Masked(), nil
}

// prefixes gives the entries of an array of prefixes.
func (t table) prefixes(key string) []entry {
	if _, given := t.values[key]; !given {
		return nil
	}
	items, _ := t.list(key)
	var out []entry
	for _, item := range items {
		p, bad := parsePrefix(item.text)
		if bad != nil {
			t.r.failf(item.at, bad.remedy, "%s", bad.msg)
			continue
		}
		out = append(out, entry{prefix: p, line: item.at.line})
	}
	return out
}

// unique sorts entries and gives their prefixes, each once; nil for none.
func unique(entries []entry) []netip.Prefix {
	slices.SortStableFunc(entries, func(a, b entry) int { return a.prefix.Compare(b.prefix) })
	var out []netip.Prefix
	for _, e := range entries {
		if len(out) == 0 || out[len(out)-1] != e.prefix {
			out = append(out, e.prefix)
		}
	}
	return out
}

// listFile reads a file of prefixes that a key names. It gives the absolute
// path, "" for no file.
func (t table) listFile(key string) (path string, out []entry) {
	s, _, ok := t.text(key)
	if !ok || s == "" {
		return "", nil
	}
	at := t.at(key)
	path = s
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(t.r.file), path)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		t.r.failf(at, "write an absolute path", "cannot find %s: %v", quote(s), err)
		return "", nil
	}
	data, err := readList(abs)
	if err != nil {
		remedy := `write the path of a file with one prefix a line, from the directory of the configuration, or ""`
		if errors.Is(err, os.ErrPermission) {
			remedy = "let the user that tproxyd runs as read it, and enter its directories"
		}
		t.r.errs = append(t.r.errs, Error{
			File: t.r.file, Line: at.line, Key: at.key, Err: err, Remedy: remedy,
			Msg: fmt.Sprintf("cannot read %s: %v", quote(abs), reason(err)),
		})
		return abs, nil
	}
	if len(data) > maxListSize {
		t.r.failf(at, "write shorter prefixes in place of many long ones", "%s is larger than %d bytes", quote(abs), maxListSize)
		return abs, nil
	}
	return abs, t.parseList(abs, data)
}

var errNotRegular = errors.New("it is no regular file")

// readList reads a list file, but no more than tells that it is too large. What
// is no regular file could be endless, or make opening it wait.
func readList(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errNotRegular
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	return io.ReadAll(io.LimitReader(f, maxListSize+1))
}

// parseList reads one prefix a line. It stops after as many mistakes as are
// shown.
func (t table) parseList(path string, data []byte) []entry {
	var out []entry
	failed := 0
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, math.MaxInt32) // data is bounded
	for n := 1; lines.Scan() && failed < maxErrors; n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		fail := func(remedy, msg string) {
			failed++
			t.r.errs = append(t.r.errs, Error{File: path, Line: n, Msg: msg, Remedy: remedy})
		}
		if n > maxListLines {
			fail("write shorter prefixes in place of many long ones", fmt.Sprintf("the file has more than %d lines", maxListLines))
			break
		}
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		p, bad := parsePrefix(text)
		if bad != nil {
			fail("write one prefix or address a line, such as 203.0.113.0/24, and # before comments", bad.msg)
			continue
		}
		out = append(out, entry{prefix: p, file: path, line: n})
	}
	return out
}
