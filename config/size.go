package config

import (
	"fmt"
	"regexp"
	"strconv"
)

// size is a number of bytes, as the value of a key in the schema.
type size int64

// sizes is what a size may be: from least to most, or 0B where that is allowed.
type sizes struct {
	zero        bool
	least, most int64
}

func (s sizes) String() string {
	text := fmt.Sprintf("from %s to %s", formatSize(s.least), formatSize(s.most))
	if s.zero {
		return "0B, or " + text
	}
	return text
}

func (s sizes) contains(n int64) bool { return n == 0 && s.zero || n >= s.least && n <= s.most }

// sizeText is a whole number and a unit. Those with a decimal meaning are left out:
// what a ring or a disk makes of them is never quite what was meant.
var sizeText = regexp.MustCompile(`^([0-9]{1,15}) ?(B|KiB|MiB|GiB|TiB)$`)

// sizeUnits are the shifts of the units, the largest last.
var sizeUnits = []struct {
	name  string
	shift int
}{{"B", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}}

// size gives a number of bytes, 0 for a wrong one. As with durations a number alone
// is refused.
func (t table) size(key string, allowed sizes) int64 {
	v, given := t.values[key]
	if !given {
		return int64(t.field(key).value.(size))
	}
	s, ok := v.(string)
	if !ok {
		remedy := "write " + t.field(key).example()
		if n, isInt := v.(int64); isInt && n >= 0 {
			remedy = fmt.Sprintf(`write %s = "%dB" if bytes are meant`, key, n)
		}
		t.wrongType(t.at(key), remedy, "a size in quotes", v)
		return 0
	}
	n, ok := parseSize(s)
	switch {
	case !ok:
		t.r.failf(t.at(key), `write it like "64MiB", with one of the units B, KiB, MiB, GiB and TiB`, "%s is no size", quote(s))
	case !allowed.contains(n):
		t.r.failf(t.at(key), "write a size of "+allowed.String(), "%s is out of range", quote(s))
	default:
		return n
	}
	return 0
}

func parseSize(s string) (n int64, ok bool) {
	m := sizeText.FindStringSubmatch(s)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0, false
	}
	for _, u := range sizeUnits {
		if u.name == m[2] {
			return n << u.shift, n<<u.shift>>u.shift == n
		}
	}
	return 0, false
}

// formatSize writes a size in the largest unit that leaves no fraction.
func formatSize(n int64) string {
	unit := sizeUnits[0]
	for _, u := range sizeUnits {
		if n != 0 && n&(1<<u.shift-1) == 0 {
			unit = u
		}
	}
	return strconv.FormatInt(n>>unit.shift, 10) + unit.name
}
