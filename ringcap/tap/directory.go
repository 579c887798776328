package tap

import (
	"strings"
	"sync"

	"github.com/tproxyd/tproxyd/ringcap/pcapng"
)

// directory numbers the interfaces, for good, and knows what stands in front of
// each file.
type directory struct {
	application string

	mu         sync.Mutex
	interfaces []string
	names      []pcapng.Name
}

// number is the number of an interface, from 0. In a file it is the first of
// two, one for each leg.
func (d *directory) number(name string) uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, n := range d.interfaces {
		if n == name {
			return uint32(i)
		}
	}
	d.interfaces = append(d.interfaces, name)
	return uint32(len(d.interfaces) - 1)
}

func (d *directory) setNames(names []pcapng.Name) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names = names
}

// sectionLimit is how long the list of selected things in a header may be.
const sectionLimit = 1000

// header appends what begins a file, and returns how many interfaces are in it.
func (d *directory) header(dst []byte, sel *selector) ([]byte, int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dst = pcapng.AppendSection(dst, pcapng.Section{Application: d.application, OS: "Linux", Comment: sel.comment()})
	dst = appendInterfaces(dst, d.interfaces, sel)
	if len(d.names) > 0 {
		dst = pcapng.AppendNames(dst, d.names)
	}
	return dst, len(d.interfaces)
}

// more appends the interfaces from number have on.
func (d *directory) more(dst []byte, sel *selector, have int) ([]byte, int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return appendInterfaces(dst, d.interfaces[have:], sel), len(d.interfaces)
}

func appendInterfaces(dst []byte, names []string, sel *selector) []byte {
	for _, name := range names {
		for _, side := range sideNames {
			dst = pcapng.AppendInterface(dst, pcapng.Interface{
				Name: name + ":" + side, Description: "the " + side + " leg of flows on " + name,
				Filter: sel.Filter, Snap: uint32(max(sel.Snap, 0)),
			})
		}
	}
	return dst
}

// comment says what was selected.
func (x *selector) comment() string {
	var parts []string
	if len(x.Services) > 0 {
		parts = append(parts, "services "+strings.Join(x.Services, ", "))
	}
	if len(x.Backends) > 0 {
		parts = append(parts, "backends "+strings.Join(x.Backends, ", "))
	}
	s := strings.Join(parts, "; ")
	return s[:min(len(s), sectionLimit)]
}
