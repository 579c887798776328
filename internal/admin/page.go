package admin

import (
	_ "embed"
	"html/template"
	"strconv"
	"time"
)

//go:embed page.html
var pageText string

// pageTemplate is parsed once; the text is part of the program.
var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"bytes":  FormatBytes,
	"count":  formatCount,
	"time":   formatTime,
	"unit":   formatUnit,
	"uptime": formatUptime,
}).Parse(pageText))

// FormatBytes returns n with a binary prefix and one decimal.
func FormatBytes(n uint64) string {
	const prefixes = "KMGTPE"
	if n < 1024 {
		return strconv.FormatUint(n, 10) + " B"
	}
	v, i := float64(n)/1024, 0
	// 1023.95 would be shown as 1024.0.
	for v >= 1023.95 && i < len(prefixes)-1 {
		v /= 1024
		i++
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + " " + prefixes[i:i+1] + "iB"
}

// formatCount returns an integer with its digits in groups of three.
func formatCount(v any) string {
	var s string
	switch n := v.(type) {
	case int:
		s = strconv.Itoa(n)
	case uint64:
		s = strconv.FormatUint(n, 10)
	}
	first := 0
	if s != "" && s[0] == '-' {
		first = 1
	}
	for i := len(s) - 3; i > first; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

// formatUnit returns what follows a number of a service's flows. Those of UDP are
// no connections, which is what the page is about where it says nothing.
func formatUnit(protocol string) string {
	if protocol == "udp" {
		return " flows"
	}
	return ""
}

func formatTime(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Format("2006-01-02 15:04:05 MST")
}

// formatUptime returns a duration in seconds.
func formatUptime(seconds float64) string {
	return FormatAge(time.Duration(seconds) * time.Second)
}

// FormatAge returns the two largest units of a duration, and below a second the
// milliseconds.
func FormatAge(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d > 0 && d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d >= day:
		return strconv.Itoa(int(d/day)) + " d " + strconv.Itoa(int(d%day/time.Hour)) + " h"
	case d >= time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + " h " + strconv.Itoa(int(d%time.Hour/time.Minute)) + " min"
	case d >= time.Minute:
		return strconv.Itoa(int(d/time.Minute)) + " min " + strconv.Itoa(int(d%time.Minute/time.Second)) + " s"
	default:
		return strconv.Itoa(int(d/time.Second)) + " s"
	}
}
