package config

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// lines flattens a tree to path and line.
func lines(n *node, path string, out map[string]int) map[string]int {
	if path != "" {
		out[path] = n.line
	}
	for key, c := range n.keys {
		lines(c, strings.TrimPrefix(path+"."+key, "."), out)
	}
	for i, c := range n.items {
		lines(c, fmt.Sprintf("%s[%d]", path, i), out)
	}
	return out
}

func TestPositions(t *testing.T) {
	tests := map[string]struct {
		text string
		want map[string]int
	}{
		"nothing":  {"", map[string]int{}},
		"comments": {"# a = 1\n # b\n\n#", map[string]int{}},
		"tables": {
			"a = 1\n[t] # [u]\nb = \"x # y\"\n\n[t.s]\nc = 'z'\n",
			map[string]int{"a": 1, "t": 2, "t.b": 3, "t.s": 5, "t.s.c": 6},
		},
		"arrays of tables": {
			"[[s]]\na = 1\n[[s.b]]\nx = 1\n[[s.b]]\nx = 2\n[[s]]\n[[s.b]]\nx = 3\n[s.t]\ny = 4",
			map[string]int{
				"s": 1, "s[0]": 1, "s[0].a": 2, "s[0].b": 3, "s[0].b[0]": 3, "s[0].b[0].x": 4, "s[0].b[1]": 5, "s[0].b[1].x": 6,
				"s[1]": 7, "s[1].b": 8, "s[1].b[0]": 8, "s[1].b[0].x": 9, "s[1].t": 10, "s[1].t.y": 11,
			},
		},
		"arrays of tables in two levels": {
			"[[s]]\n[[s.r]]\n[[s.r.b]]\nx = 1\n[[s.r.b]]\n[[s.r]]\n[s.h]\n[[s.r.b]]\nx = 2",
			map[string]int{
				"s": 1, "s[0]": 1, "s[0].r": 2, "s[0].r[0]": 2, "s[0].r[0].b": 3, "s[0].r[0].b[0]": 3, "s[0].r[0].b[0].x": 4,
				"s[0].r[0].b[1]": 5, "s[0].r[1]": 6, "s[0].h": 7, "s[0].r[1].b": 8, "s[0].r[1].b[0]": 8, "s[0].r[1].b[0].x": 9,
			},
		},
		"dotted and quoted keys": {
			"a . \"b c\" .'d' = 1\n\"\\u0065\" = 2\n'\\e' = 3\n\"\\e\\xe9\" = 4\n[ \"x.y\" . z ]\n",
			map[string]int{"a": 1, "a.b c": 1, "a.b c.d": 1, "e": 2, `\e`: 3, "\x1b\u00e9": 4, "x.y": 5, "x.y.z": 5},
		},
		"arrays": {
			"a = [\n  # no element\n  1, [ 2,\n 3 ], # \"\n 'x',\n]\nb = []\n",
			map[string]int{"a": 1, "a[0]": 3, "a[1]": 3, "a[1][0]": 3, "a[1][1]": 4, "a[2]": 5, "b": 7},
		},
		"inline tables": {
			"a = { b = 1, c.d = { e = [1] } }\nf = [\n{ g = 1 },\n{ g = 2,\n# h\nh = 3, }]\n",
			map[string]int{
				"a": 1, "a.b": 1, "a.c": 1, "a.c.d": 1, "a.c.d.e": 1, "a.c.d.e[0]": 1,
				"f": 2, "f[0]": 3, "f[0].g": 3, "f[1]": 4, "f[1].g": 4, "f[1].h": 6,
			},
		},
		"long strings": {
			"a = \"\"\"\n[x]\n\\\"\"\" \"\" \\\n \\\\\"\"\"\"\"\nb = '''\n'' \\'''\nc = ''''a'''''\nd = \"\"\nf = \"\"\"\"\"\"\ne = 1979-05-27 07:32:00 # x\n",
			map[string]int{"a": 1, "b": 5, "c": 7, "d": 8, "f": 9, "e": 10},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := scanner{src: tt.text}
			root, complete := s.scan()
			if !complete || s.deep != 0 || len(s.duplicate) != 0 {
				t.Errorf("complete %t, deep %d, duplicate %v", complete, s.deep, s.duplicate)
			}
			if diff := cmp.Diff(tt.want, lines(root, "", map[string]int{})); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
			checkPositions(t, tt.text)
		})
	}
}

// checkPositions holds that the scanner reads all that the TOML library reads,
// and finds a place for every key and element.
func checkPositions(t *testing.T, text string) {
	t.Helper()
	s := scanner{src: text}
	root, complete := s.scan()
	if s.deep > 0 || !utf8.ValidString(text) {
		return // decode stops before the TOML library
	}
	values := make(map[string]any)
	if err := decodeTOML(text, &values); err != nil {
		return
	}
	if !complete {
		t.Errorf("the scanner stopped at line %d of a valid file:\n%s", s.line, text)
	}
	if want := 1 + strings.Count(text, "\n"); s.line != want {
		t.Errorf("the scanner counted %d lines of %d", s.line, want)
	}
	missing(t, root, values, "")
}

// missing looks for values without a node.
func missing(t *testing.T, n *node, v any, path string) {
	t.Helper()
	if n == nil {
		t.Errorf("no line for %q", path)
		return
	}
	switch v := v.(type) {
	case map[string]any:
		for key, e := range v {
			missing(t, n.keys[key], e, path+"."+key)
		}
		if len(n.keys) != len(v) {
			t.Errorf("%d keys with a line of %d in %q", len(n.keys), len(v), path)
		}
	case []map[string]any:
		for i, e := range v {
			missing(t, n.item(i), e, fmt.Sprintf("%s[%d]", path, i))
		}
	case []any:
		if len(n.items) != len(v) {
			t.Errorf("%d elements with a line of %d in %q", len(n.items), len(v), path)
		}
		for i, e := range v {
			missing(t, n.item(i), e, fmt.Sprintf("%s[%d]", path, i))
		}
	}
}

func TestPositionsOfBrokenFiles(t *testing.T) {
	for _, text := range []string{
		"a", "a =", "a = ", "a = [", "a = [1", "a = {", "a = {b", "a = {b = 1", "[a", "[[a]", "[", "[]", "[[]]",
		"= 1", "a. = 1", ".a = 1", "a = \"x", "a = \"x\\", "a = \"\"\"x", "a = \"\"\"\\", "a = 'x\n'", "\"a", "\"a\nb\" = 1", "a = 1 ]", "a = \n1", "a = ,",
	} {
		s := scanner{src: text}
		if _, complete := s.scan(); complete {
			t.Errorf("%q was read to its end", text)
		}
	}
}

func TestPositionsFallBack(t *testing.T) {
	n := &node{line: 7}
	if got := n.child("none").item(3).line; got != 7 {
		t.Errorf("line %d of an unknown key, want that of its table, 7", got)
	}
}

func TestPositionsOfDuplicates(t *testing.T) {
	s := scanner{src: "a = 1\n[t]\na = 1\na = 2\n[t]\n"}
	s.scan()
	if diff := cmp.Diff(map[int]int{4: 3, 5: 2}, s.duplicate); diff != "" {
		t.Errorf("duplicates (-want +got):\n%s", diff)
	}
}
