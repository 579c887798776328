package config

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// table is a table of the file with getters that give the value of a key or its
// default, and note what is wrong.
type table struct {
	r      *reader
	kind   string // its keys in schema
	name   string // for messages, such as service "web"
	values map[string]any
	node   *node

	protocol Protocol // of the service; "" for tables of none, and if the file does not say it rightly
	ofRoute  bool     // a backend of a route
}

// at is the place of a key of the table.
func (t table) at(key string) place {
	name := key
	switch {
	case t.kind == kindService || t.kind == kindRoute || t.kind == kindCapture:
		name = t.name + " " + key
	case t.kind != kindRoot:
		name = t.name + "." + key
	}
	return place{line: t.node.child(key).line, key: name}
}

// here is the place of the table itself.
func (t table) here() place { return place{line: t.node.line, key: t.name} }

// field gives a key of the schema. Asking for another is a programmer's mistake.
func (t table) field(key string) field {
	f, ok := lookup(t.kind, key)
	if !ok {
		panic("config: no key " + key + " in table " + t.kind)
	}
	if def, ok := udpDefaults[key]; ok && t.protocol == ProtocolUDP {
		f.value = def
	}
	return f
}

// bareKey is a key that needs no quotes.
var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// checkKeys notes the keys that do not belong in the table.
func (t table) checkKeys() {
	for _, key := range slices.Sorted(maps.Keys(t.values)) {
		if _, ok := lookup(t.kind, key); ok {
			t.checkProtocol(key)
			continue
		}
		at := t.at(key)
		if !bareKey.MatchString(key) {
			at.key = t.at(quote(key)).key
		}
		t.r.failf(at, t.suggest(key), "unknown key")
	}
}

// wrongType notes a value of another type than wanted.
func (t table) wrongType(at place, remedy, want string, v any) {
	t.r.failf(at, remedy, "expected %s, got %s", want, describe(v))
}

// describe names the type of a TOML value, and the value where it is short.
func describe(v any) string {
	switch v := v.(type) {
	case string:
		return "the string " + quote(v)
	case int64:
		return fmt.Sprintf("the integer %d", v)
	case float64:
		return fmt.Sprintf("the float %v", v)
	case bool:
		return fmt.Sprintf("the boolean %t", v)
	case time.Time:
		return "a date or time"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "an array of tables"
	}
	return "an array"
}

// integer gives a number from 0 to most.
func (t table) integer(key string, most int64) int64 { return t.between(key, 0, most) }

// between gives a number from least to most.
func (t table) between(key string, least, most int64) int64 {
	f := t.field(key)
	def := int64(f.value.(int))
	v, given := t.values[key]
	if !given {
		return def
	}
	n, ok := v.(int64)
	if !ok {
		remedy := "write it without quotes and fraction, such as " + f.example()
		if s, isText := v.(string); isText {
			if _, err := strconv.Atoi(s); err == nil {
				remedy = fmt.Sprintf("write %s = %s", key, s)
			}
		}
		t.wrongType(t.at(key), remedy, "an integer", v)
		return def
	}
	if n < least || n > most {
		t.r.failf(t.at(key), fmt.Sprintf("write a number from %d to %d", least, most), "%d is out of range", n)
		return def
	}
	return n
}

// number gives a number with or without a fraction: 0, or from least to most.
func (t table) number(key string, least, most float64) float64 {
	f := t.field(key)
	def := f.value.(float64)
	v, given := t.values[key]
	if !given {
		return def
	}
	n, ok := v.(float64)
	if i, isInt := v.(int64); isInt {
		n, ok = float64(i), true
	}
	if !ok {
		t.wrongType(t.at(key), "write it without quotes, such as "+key+" = 10", "a number", v)
		return def
	}
	if n != 0 && !(n >= least && n <= most) { // NaN too
		t.r.failf(t.at(key), fmt.Sprintf("write 0, or a number from %v to %.0f", least, most), "%v is out of range", n)
		return def
	}
	return math.Abs(n) // of -0
}

// boolean gives true or false.
func (t table) boolean(key string) bool {
	f := t.field(key)
	def := f.value.(bool)
	v, given := t.values[key]
	if !given {
		return def
	}
	b, ok := v.(bool)
	if !ok {
		t.wrongType(t.at(key), fmt.Sprintf("write %s = true or %s = false, without quotes", key, key), "true or false", v)
		return def
	}
	return b
}

// text gives a string.
func (t table) text(key string) (s string, given, ok bool) {
	f := t.field(key)
	v, given := t.values[key]
	if !given {
		return "", false, true
	}
	s, ok = v.(string)
	if !ok {
		t.wrongType(t.at(key), "write it in quotes, such as "+f.example(), "a string", v)
	}
	return s, true, ok
}

// string gives a string or its default.
func (t table) string(key string) string {
	s, given, ok := t.text(key)
	if !given || !ok {
		return t.field(key).value.(string)
	}
	return s
}

// refuse notes a key that would do nothing.
func (t table) refuse(key, remedy, format string, args ...any) {
	if _, given := t.values[key]; given {
		t.r.failf(t.at(key), remedy, format, args...)
	}
}

// idle warns of a key that does nothing here, unless it has its default, which is
// how [Config.WriteTOML] writes it.
func (t table) idle(key, remedy, msg string) {
	v, given := t.values[key]
	if f := t.field(key); given && (field{key, v}).example() != f.example() {
		t.r.warnf(t.at(key), remedy, "%s", msg)
	}
}

// choice gives one of the allowed values.
func choice[T ~string](t table, key string, allowed ...T) T {
	def := T(t.field(key).value.(string))
	s, given, ok := t.text(key)
	if !given || !ok {
		return def
	}
	if !slices.Contains(allowed, T(s)) {
		t.r.failf(t.at(key), "write one of "+quoteAll(allowed), "%s is not known", quote(s))
		return def
	}
	return T(s)
}

// listItem is an element of an array of strings.
type listItem struct {
	text string
	at   place
}

// list gives the strings of an array. Elements of another type are noted and
// left out.
func (t table) list(key string) (items []listItem, ok bool) {
	f := t.field(key)
	at := t.at(key)
	values, ok := t.values[key].([]any)
	if !ok {
		remedy := "write " + f.example()
		if s, isText := t.values[key].(string); isText {
			remedy = fmt.Sprintf("put it in brackets: %s = [%s]", key, quote(s))
		}
		t.wrongType(at, remedy, "an array of strings", t.values[key])
		return nil, false
	}
	ok = true
	for i, v := range values {
		at := place{line: t.node.child(key).item(i).line, key: fmt.Sprintf("%s[%d]", at.key, i)}
		s, isText := v.(string)
		if !isText {
			t.wrongType(at, "write it in quotes, such as "+f.example(), "a string", v)
			ok = false
			continue
		}
		items = append(items, listItem{text: s, at: at})
	}
	return items, ok
}

// table gives a table of the root; a missing one is empty.
func (t table) table(kind string) table {
	sub, _ := t.nested(kind)
	return sub
}

// nested gives a table in this one, and reports whether there is one.
func (t table) nested(kind string) (table, bool) {
	sub := table{r: t.r, kind: kind, name: t.at(kind).key, node: t.node.child(kind), protocol: t.protocol}
	v, given := t.values[kind]
	if !given {
		return sub, false
	}
	values, ok := v.(map[string]any)
	if !ok {
		t.wrongType(t.at(kind), fmt.Sprintf("write it as a table, %s", headers[kind]), "a table", v)
		return sub, false
	}
	sub.values = values
	sub.checkKeys()
	return sub, true
}

// tables gives an array of tables, [[kind]] in the file. The caller names them.
func (t table) tables(kind string) []table {
	v, given := t.values[kind]
	if !given {
		return nil
	}
	var out []table
	add := func(i int, values map[string]any) {
		out = append(out, table{
			r: t.r, kind: kind, name: fmt.Sprintf("%s[%d]", t.at(kind).key, i),
			values: values, node: t.node.child(kind).item(i), protocol: t.protocol, ofRoute: t.kind == kindRoute,
		})
	}
	remedy := fmt.Sprintf("write %s with double brackets above each", t.headerOf(kind))
	switch v := v.(type) {
	case []map[string]any:
		for i, values := range v {
			add(i, values)
		}
	case []any:
		for i, e := range v {
			values, ok := e.(map[string]any)
			if !ok {
				at := place{line: t.node.child(kind).item(i).line, key: fmt.Sprintf("%s[%d]", t.at(kind).key, i)}
				t.wrongType(at, remedy, "a table", e)
				continue
			}
			add(i, values)
		}
	default:
		t.wrongType(t.at(kind), remedy, "an array of tables", v)
	}
	return out
}
