package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxErrors bounds how many mistakes of one file are shown.
const maxErrors = 100

// Error is one mistake in a file.
type Error struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"` // from 1; 0 when the file could not be read
	Key    string `json:"key,omitempty"`  // such as daemon.workers or service "web" listen[1]
	Msg    string `json:"message"`        // what is wrong
	Remedy string `json:"remedy"`
	Err    error  `json:"-"` // the cause, for errors.Is; often nil
}

// Error is the mistake in one line, "file:line: key: what is wrong; remedy".
func (e Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		b.WriteString(":" + strconv.Itoa(e.Line))
	}
	if e.Key != "" {
		b.WriteString(": " + e.Key)
	}
	b.WriteString(": " + e.Msg)
	if e.Remedy != "" {
		b.WriteString("; " + e.Remedy)
	}
	return b.String()
}

// Unwrap gives the cause.
func (e Error) Unwrap() error { return e.Err }

// Errors are the mistakes of a file in the order of its lines; never empty when
// returned.
type Errors []Error

// Error gives the mistakes one per line.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the single mistakes to errors.Is and errors.As.
func (es Errors) Unwrap() []error {
	out := make([]error, len(es))
	for i, e := range es {
		out[i] = e
	}
	return out
}

// place is where in the file something stands.
type place struct {
	line int
	key  string
}

// reader collects what is wrong while a file is read.
type reader struct {
	file     string
	errs     Errors
	warnings Errors

	// What the checks across services look at.
	listeners []listener
	expanded  int // addresses in listeners
	backends  []upstream
}

// failf notes a mistake.
func (r *reader) failf(at place, remedy, format string, args ...any) {
	r.errs = append(r.errs, r.problem(at, remedy, format, args...))
}

// warnf notes a mistake that leaves the configuration usable.
func (r *reader) warnf(at place, remedy, format string, args ...any) {
	r.warnings = append(r.warnings, r.problem(at, remedy, format, args...))
}

func (r *reader) problem(at place, remedy, format string, args ...any) Error {
	return Error{File: r.file, Line: at.line, Key: at.key, Msg: fmt.Sprintf(format, args...), Remedy: remedy}
}

// sorted puts mistakes in the order of lines, those of the file itself before those
// of files that it names, and bounds their number.
func (r *reader) sorted(es Errors) Errors {
	slices.SortStableFunc(es, func(a, b Error) int {
		if (a.File == r.file) != (b.File == r.file) {
			if a.File == r.file {
				return -1
			}
			return 1
		}
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	if len(es) <= maxErrors {
		return es
	}
	rest := Error{
		File:   es[maxErrors].File,
		Line:   es[maxErrors].Line,
		Msg:    fmt.Sprintf("%d more from here on are not shown", len(es)-maxErrors),
		Remedy: "correct those above first",
	}
	return append(es[:maxErrors:maxErrors], rest)
}

// quote shows a value of the file on one line, shortened where it is long.
func quote(s string) string {
	const most = 80
	if len(s) <= most {
		return strconv.Quote(s)
	}
	cut := most
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strconv.Quote(s[:cut]) + "..."
}

// quoteAll lists allowed values.
func quoteAll[T ~string](values []T) string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = strconv.Quote(string(v))
	}
	return strings.Join(out, ", ")
}
