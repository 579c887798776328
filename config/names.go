package config

import (
	"fmt"
	"regexp"
	"strings"
)

// maxName is the length of a name in DNS, RFC 1035, section 2.3.4, as text
// without the last dot.
const maxName = 253

var (
	hostLabel    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	serviceLabel = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)
)

// hostName gives a host name, RFC 1123, section 2.1, in lower case and without
// the last dot.
func hostName(s string) (string, *mistake) {
	name, bad := domainName(s, hostLabel)
	if bad == nil && strings.Trim(name[strings.LastIndexByte(name, '.')+1:], "0123456789") == "" {
		bad = &mistake{quote(s) + " is neither a host name nor an IP address", `write one such as "web.example" or "203.0.113.10"`}
	}
	return name, bad
}

// serviceName is hostName for the names of records that are no hosts, which
// may have underscores, RFC 2782 and RFC 8552.
func serviceName(s string) (string, *mistake) { return domainName(s, serviceLabel) }

func domainName(s string, label *regexp.Regexp) (string, *mistake) {
	name := strings.ToLower(strings.TrimSuffix(s, "."))
	switch {
	case name == "":
		return "", &mistake{quote(s) + " is no name", `write one such as "web.example"`}
	case strings.ContainsFunc(name, func(r rune) bool { return r > '~' }):
		return "", &mistake{quote(s) + " is not in ASCII", `write the name as DNS has it, each such label beginning with "xn--"`}
	case len(name) > maxName:
		return "", &mistake{fmt.Sprintf("%s has %d bytes, more than %d", quote(s), len(name), maxName), "write the name as DNS has it"}
	}
	for part := range strings.SplitSeq(name, ".") {
		if !label.MatchString(part) {
			return "", &mistake{
				fmt.Sprintf("%s is no name because of %s", quote(s), quote(part)),
				"write labels of 1 to 63 letters, digits and hyphens between dots",
			}
		}
	}
	return name, nil
}

// sniPattern gives a name that a ClientHello may have, RFC 6066, section 3, or
// "*." before one, which stands for all names below.
func sniPattern(s string) (string, *mistake) {
	base, wild := strings.CutPrefix(s, "*.")
	if strings.Contains(base, "*") {
		remedy := `write "*." once, at the front, such as "*.example.org"`
		if s == "*" {
			remedy = "give the service a [[service.backend]] for the flows that no route takes, or remove sni"
		}
		return "", &mistake{quote(s) + " is no pattern", remedy}
	}
	name, bad := hostName(base)
	if bad != nil || !wild {
		return name, bad
	}
	if len(name)+len("*.") > maxName {
		return "", &mistake{quote(s) + " is longer than any name", "write a shorter one"}
	}
	return "*." + name, nil
}

// alpnName checks the name of a protocol, RFC 7301, section 3.1.
func alpnName(s string) *mistake {
	if s == "" || len(s) > 255 {
		return &mistake{fmt.Sprintf("%s has %d bytes", quote(s), len(s)), `write a protocol of 1 to 255 bytes, such as "h2" or "http/1.1"`}
	}
	return nil
}
