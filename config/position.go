package config

import "strings"

// maxDepth bounds how deep values, and how long dotted keys, may be. The TOML
// library recurses per level and copies the path per level: a megabyte of "{a="
// takes gigabytes. We need six levels.
const maxDepth = 16

// node is a place in the tree of a TOML file and the line where it starts.
type node struct {
	line  int
	keys  map[string]*node
	items []*node // elements of an array, or the tables of an array of tables
}

// child gives the node of a key. A key that the scanner did not see gets the
// line of its table.
func (n *node) child(key string) *node {
	if c := n.keys[key]; c != nil {
		return c
	}
	return &node{line: n.line}
}

// item is child for the elements of an array.
func (n *node) item(i int) *node {
	if i < len(n.items) {
		return n.items[i]
	}
	return &node{line: n.line}
}

// add gives the node of a key, and makes it where it is new.
func (n *node) add(key string, line int) (c *node, isNew bool) {
	if c := n.keys[key]; c != nil {
		return c, false
	}
	if n.keys == nil {
		n.keys = make(map[string]*node)
	}
	c = &node{line: line}
	n.keys[key] = c
	return c, true
}

// descend follows a path as a table header does: in an array of tables to the
// last table.
func (n *node) descend(path []string, line int) *node {
	for _, key := range path {
		n, _ = n.add(key, line)
		if len(n.items) > 0 {
			n = n.items[len(n.items)-1]
		}
	}
	return n
}

// scanner finds the lines of keys and values. It takes any input. Of input that
// is no TOML it reads the part before the mistake; the TOML library says what is
// wrong there.
type scanner struct {
	src  string
	pos  int
	line int

	deep      int         // line where maxDepth is passed, or 0
	duplicate map[int]int // line of a key that was set before, to the earlier line
}

// scan gives the tree of a file. It reports whether the end was reached.
func (s *scanner) scan() (root *node, complete bool) {
	root = &node{line: 1}
	s.line = 1
	s.duplicate = make(map[int]int)
	s.src = strings.TrimPrefix(s.src, "\xef\xbb\xbf")
	table := root
	for {
		s.space(true)
		if s.pos == len(s.src) {
			return root, true
		}
		ok := false
		if s.src[s.pos] == '[' {
			table, ok = s.header(root)
		} else {
			ok = s.pair(table, 0)
		}
		if !ok {
			return root, false
		}
	}
}

// header reads [a.b] or [[a.b]] and gives the table that it opens.
func (s *scanner) header(root *node) (*node, bool) {
	line := s.line
	s.skip("[")
	array := s.skip("[")
	path, ok := s.path()
	if !ok || !s.skip("]") || array && !s.skip("]") {
		return root, false
	}
	last := len(path) - 1
	n, isNew := root.descend(path[:last], line).add(path[last], line)
	if array {
		n.items = append(n.items, &node{line: line})
		return n.items[len(n.items)-1], true
	}
	if !isNew {
		s.duplicate[line] = n.line
	}
	return n, true
}

// pair reads a key, the equals sign and the value.
func (s *scanner) pair(table *node, depth int) bool {
	line := s.line
	path, ok := s.path()
	if !ok || !s.skip("=") {
		return false
	}
	last := len(path) - 1
	n, isNew := table.descend(path[:last], line).add(path[last], line)
	if !isNew {
		s.duplicate[line] = n.line
	}
	return s.value(n, depth+1)
}

// path reads a key, dotted or not, and the space around it.
func (s *scanner) path() (path []string, ok bool) {
	for {
		s.space(false)
		part, ok := s.key()
		if !ok {
			return nil, false
		}
		path = append(path, part)
		if len(path) > maxDepth {
			s.deep = s.line
			return nil, false
		}
		s.space(false)
		if !s.skip(".") {
			return path, true
		}
	}
}

// key reads one part of a key.
func (s *scanner) key() (string, bool) {
	start := s.pos
	if s.pos < len(s.src) && (s.src[s.pos] == '"' || s.src[s.pos] == '\'') {
		if !s.text() {
			return "", false
		}
		return unquote(s.src[start:s.pos]), true
	}
	for s.pos < len(s.src) && isBare(s.src[s.pos]) {
		s.pos++
	}
	return s.src[start:s.pos], s.pos > start
}

// unquote gives the text of a quoted key.
func unquote(raw string) string {
	if raw[0] == '"' && strings.Contains(raw, `\`) {
		values := make(map[string]any)
		if err := decodeTOML("k = "+raw, &values); err == nil {
			return values["k"].(string)
		}
	}
	return raw[1 : len(raw)-1]
}

func isBare(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// value reads a value of any kind.
func (s *scanner) value(n *node, depth int) bool {
	if depth > maxDepth {
		s.deep = s.line
		return false
	}
	s.space(false)
	if s.pos == len(s.src) {
		return false
	}
	switch s.src[s.pos] {
	case '[':
		return s.array(n, depth)
	case '{':
		return s.inline(n, depth)
	case '"', '\'':
		return s.text()
	}
	end := strings.IndexAny(s.src[s.pos:], ",]}#\n")
	if end < 0 {
		end = len(s.src) - s.pos
	}
	s.pos += end
	return end > 0
}

// array reads the elements of an array.
func (s *scanner) array(n *node, depth int) bool {
	s.skip("[")
	for {
		s.space(true)
		if s.skip("]") {
			return true
		}
		item := &node{line: s.line}
		if !s.value(item, depth+1) {
			return false
		}
		n.items = append(n.items, item)
		s.space(true)
		if !s.skip(",") && !s.at("]") {
			return false
		}
	}
}

// inline reads the pairs of an inline table.
func (s *scanner) inline(n *node, depth int) bool {
	s.skip("{")
	for {
		s.space(true)
		if s.skip("}") {
			return true
		}
		if !s.pair(n, depth) {
			return false
		}
		s.space(true)
		if !s.skip(",") && !s.at("}") {
			return false
		}
	}
}

// text reads a string of any of the four kinds.
func (s *scanner) text() bool {
	quote := s.src[s.pos : s.pos+1]
	if s.skip(strings.Repeat(quote, 3)) {
		return s.longText(quote)
	}
	for s.pos++; s.pos < len(s.src); s.pos++ {
		switch c := s.src[s.pos]; {
		case c == '\n':
			return false
		case c == '\\' && quote == `"`:
			s.pos++
		case c == quote[0]:
			s.pos++
			return true
		}
	}
	s.pos = len(s.src)
	return false
}

// longText reads the rest of a string that may go over several lines. Up to two
// quotes may stand right before the three that end it.
func (s *scanner) longText(quote string) bool {
	end := strings.Repeat(quote, 3)
	for s.pos < len(s.src) {
		switch {
		case s.skip(end):
			for range 2 {
				s.skip(quote)
			}
			return true
		case quote == `"` && s.skip(`\`):
			if s.pos < len(s.src) && s.src[s.pos] != '\n' {
				s.pos++
			}
		default:
			if s.src[s.pos] == '\n' {
				s.line++
			}
			s.pos++
		}
	}
	return false
}

// space skips blanks, and with lines also ends of lines and comments.
func (s *scanner) space(lines bool) {
	for s.pos < len(s.src) {
		switch c := s.src[s.pos]; {
		case c == ' ' || c == '\t' || c == '\r':
			s.pos++
		case lines && c == '\n':
			s.line++
			s.pos++
		case lines && c == '#':
			if end := strings.IndexByte(s.src[s.pos:], '\n'); end >= 0 {
				s.pos += end
			} else {
				s.pos = len(s.src)
			}
		default:
			return
		}
	}
}

func (s *scanner) at(text string) bool { return strings.HasPrefix(s.src[s.pos:], text) }

func (s *scanner) skip(text string) bool {
	if !s.at(text) {
		return false
	}
	s.pos += len(text)
	return true
}
