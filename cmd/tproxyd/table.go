package main

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/tproxyd/tproxyd/internal/admin"
)

// table aligns cells for a person.
type table struct{ rows [][]string }

func newTable(head ...string) *table { return &table{rows: [][]string{head}} }

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// write prints the table; the last cell of a line has no blanks behind it.
func (t *table) write(w io.Writer) error {
	var aligned bytes.Buffer
	tabs := tabwriter.NewWriter(&aligned, 0, 0, 2, ' ', 0)
	for _, row := range t.rows {
		for i, cell := range row {
			row[i] = clean(cell)
			if cell == "" {
				row[i] = "-"
			}
		}
		if _, err := io.WriteString(tabs, strings.Join(row, "\t")+"\n"); err != nil {
			return err
		}
	}
	if err := tabs.Flush(); err != nil {
		return err
	}
	_, err := aligned.WriteTo(w)
	return err
}

// clean takes out of a text from elsewhere what a terminal would obey.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == ' ' || unicode.IsGraphic(r) {
			return r
		}
		return '\ufffd'
	}, s)
}

// count returns a number of flows of a protocol.
func count[N int | uint64](n N, protocol string) string {
	unit := " connection"
	if protocol == "udp" {
		unit = " flow"
	}
	if n != 1 {
		unit += "s"
	}
	return strconv.FormatUint(uint64(n), 10) + unit
}

func age(milliseconds int64) string {
	return admin.FormatAge(time.Duration(milliseconds) * time.Millisecond)
}
