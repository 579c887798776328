package config

import (
	"fmt"
	"strings"
	"time"
)

// span is what a duration may be: from least to most, or 0s where that is
// allowed.
type span struct {
	zero        bool
	least, most time.Duration
}

// year bounds durations, so that a sum with the time of day cannot overflow.
const year = 365 * 24 * time.Hour

func (s span) String() string {
	text := fmt.Sprintf("from %s to %s", formatDuration(s.least), formatDuration(s.most))
	if s.zero {
		return "0s, or " + text
	}
	return text
}

func (s span) contains(d time.Duration) bool {
	return d == 0 && s.zero || d >= s.least && d <= s.most
}

// duration gives a duration, 0 for a wrong one: no check that follows shall find
// a second mistake in it. A number alone is refused: its unit would be a guess.
func (t table) duration(key string, allowed span) time.Duration {
	v, given := t.values[key]
	if !given {
		return t.field(key).value.(time.Duration)
	}
	s, ok := v.(string)
	if !ok {
		remedy := "write " + t.field(key).example()
		if n, isInt := v.(int64); isInt && n >= 0 {
			remedy = fmt.Sprintf(`write %s = "%ds" if seconds are meant`, key, n)
		}
		t.wrongType(t.at(key), remedy, "a duration in quotes", v)
		return 0
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil && isNumber(s):
		t.r.failf(t.at(key), fmt.Sprintf(`write %s = "%ss" if seconds are meant`, key, s), "%s has no unit", quote(s))
	case err != nil:
		t.r.failf(t.at(key), `write it like "1m30s", with the units ms, s, m and h`, "%s is no duration", quote(s))
	case d < 0:
		t.r.failf(t.at(key), "write a duration of "+allowed.String(), "%s is negative", quote(s))
	case !allowed.contains(d):
		t.r.failf(t.at(key), "write a duration of "+allowed.String(), "%s is out of range", quote(s))
	default:
		return d
	}
	return 0
}

func isNumber(s string) bool {
	return s != "" && len(s) < 10 && strings.Trim(s, "0123456789") == ""
}

// formatDuration writes a duration as a person would: 10m, not 10m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
