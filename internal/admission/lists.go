package admission

import (
	"fmt"
	"net/netip"

	"github.com/gaissmai/bart"
)

// lists are the allow and the deny list in one trie, whose values say whether
// the prefix admits. It is only read once it is made.
type lists struct {
	table     bart.Fast[bool]
	size      int
	otherwise bool // for addresses that no prefix matches
}

func newLists(allow, deny []netip.Prefix) (*lists, error) {
	l := &lists{otherwise: len(allow) == 0}
	if err := l.insert("allow", allow, true); err != nil {
		return nil, err
	}
	if err := l.insert("deny", deny, false); err != nil { // second: it overrules
		return nil, err
	}
	l.size = l.table.Size()
	return l, nil
}

func (l *lists) insert(list string, prefixes []netip.Prefix, admits bool) error {
	for i, p := range prefixes {
		if !p.IsValid() {
			return fmt.Errorf("%s list: prefix %d is not valid", list, i)
		}
		l.table.Insert(canonical(p), admits)
	}
	return nil
}

// admits says whether the lists let a in, which has neither zone nor mapping.
func (l *lists) admits(a netip.Addr) bool {
	if l.size == 0 {
		return l.otherwise
	}
	if admits, ok := l.table.Lookup(a); ok {
		return admits
	}
	return l.otherwise
}

// canonical is p without host bits, and as an IPv4 prefix if it is a mapped one.
func canonical(p netip.Prefix) netip.Prefix {
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked()
}
