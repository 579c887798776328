package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// maxSize bounds the file.
const maxSize = 1 << 20

// Load reads a file. The error is of type Errors.
func Load(path string) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, Errors{unreadable(path, err)}
	}
	return Parse(path, data)
}

// reason is what is wrong with a file whose path is in the line already.
func reason(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}

// unreadable says why a file could not be read.
func unreadable(path string, err error) Error {
	e := Error{File: path, Msg: "cannot read the file: " + reason(err).Error(), Err: err}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Remedy = "give the right path with --config, or start from tproxyd.toml.example"
	case errors.Is(err, fs.ErrPermission):
		e.Remedy = "let the user that tproxyd runs as read it, and enter its directories"
	case errors.Is(err, errDirectory):
		e.Remedy = "give the file in it with --config"
	default:
		e.Remedy = "check the path given with --config and its file system"
	}
	return e
}

var errDirectory = errors.New("it is a directory")

// readFile reads a file, but no more than tells that it is too long.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return nil, errDirectory
	}
	return io.ReadAll(io.LimitReader(f, maxSize+1))
}

// Parse reads a configuration; name is the file in its messages, and files that it
// names are looked for in the directory of name. The error is of type Errors.
func Parse(name string, data []byte) (*Config, error) {
	r := &reader{file: name}
	root, ok := r.decode(string(data))
	if !ok {
		return nil, r.errs
	}
	cfg := r.config(root)
	if len(r.errs) > 0 {
		return nil, r.sorted(r.errs)
	}
	for _, w := range r.sorted(r.warnings) {
		cfg.Warnings = append(cfg.Warnings, w.Error())
	}
	return cfg, nil
}

// decode reads the TOML. It notes one mistake at most.
func (r *reader) decode(text string) (table, bool) {
	top := place{line: 1}
	switch {
	case len(text) > maxSize:
		r.failf(place{}, "check that this is the right file", "the file is larger than %d bytes", maxSize)
		return table{}, false
	case !utf8.ValidString(text):
		at := place{line: 1 + strings.Count(text[:firstInvalid(text)], "\n")}
		r.failf(at, "save the file as UTF-8", "the file is not UTF-8")
		return table{}, false
	case strings.TrimSpace(text) == "":
		r.failf(top, "start from tproxyd.toml.example, and look for what emptied it", "the file is empty")
		return table{}, false
	}
	s := scanner{src: text}
	root, _ := s.scan()
	if s.deep > 0 {
		r.failf(place{line: s.deep}, "remove them, no key of tproxyd is as deep", "values or keys are nested deeper than %d", maxDepth)
		return table{}, false
	}
	values := make(map[string]any)
	if err := decodeTOML(text, &values); err != nil {
		r.syntax(err, text, s.duplicate)
		return table{}, false
	}
	return table{r: r, kind: kindRoot, values: values, node: root}, true
}

func firstInvalid(text string) int {
	i := 0
	for i < len(text) {
		r, size := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		i += size
	}
	return i
}

// decodeTOML makes an error of a panic in the TOML library: a reload must not
// end the daemon.
func decodeTOML(text string, values any) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the TOML library stopped: %v", p)
		}
	}()
	_, err = toml.Decode(text, values)
	return err
}

// syntax notes what the TOML library says.
func (r *reader) syntax(err error, text string, duplicate map[int]int) {
	at := place{line: 1}
	msg, remedy := err.Error(), "correct this line or the one before, and see whether the file is complete"
	if pe, ok := errors.AsType[toml.ParseError](err); ok {
		end := 1 + strings.Count(strings.TrimRight(text, " \t\r\n"), "\n")
		at.line = min(max(pe.Position.Line, 1), end)
		msg = strings.TrimSuffix(pe.Message, ".")
	}
	switch first := duplicate[at.line]; {
	case strings.Contains(msg, "has already been defined"):
		remedy = "remove one of the two, or write a table that repeats with double brackets, such as [[service]]"
		if first > 0 {
			msg += fmt.Sprintf(" at line %d", first)
		}
	case strings.Contains(msg, "was already created"):
		remedy = "write a table that repeats with double brackets every time, such as [[service]]"
	case strings.Contains(msg, "expected value but found") || strings.Contains(msg, "expected a top-level item to end") || strings.Contains(msg, "Invalid float"):
		remedy = `put text, addresses and durations in quotes, such as name = "web" or idle_timeout = "10m"`
	}
	msg = strings.NewReplacer(`'\x00'`, "end of file", "EOF", "end of file", "; ", ", ", "\n", " ", "\r", " ").Replace(msg)
	r.failf(at, remedy, "TOML syntax: %s", msg)
}

// config reads the tables of the file.
func (r *reader) config(root table) *Config {
	root.checkKeys()
	daemon, log, admin := root.table(kindDaemon), root.table(kindLog), root.table(kindAdmin)
	cfg := &Config{
		Daemon: Daemon{
			Workers:        int(daemon.integer("workers", 256)),
			MaxConnections: int(daemon.integer("max_connections", maxNumber)),
			MaxFlows:       int(daemon.integer("max_flows", maxNumber)),
			DrainTimeout:   daemon.duration("drain_timeout", span{zero: true, least: time.Millisecond, most: year}),
			Mark:           uint32(daemon.integer("mark", math.MaxUint32)),
		},
		Log: Log{
			Level:  choice(log, "level", "debug", "info", "warn", "error"),
			Format: choice(log, "format", FormatJSON, FormatConsole),
			Access: choice(log, "access", AccessJSON, AccessHAProxy, AccessOff),
		},
		Admin:    admin.readAdmin(),
		Resolver: root.table(kindResolver).readResolver(),
	}
	cfg.Services = r.services(root)
	cfg.Mirrors = r.readMirrors(root, cfg.Services)
	cfg.Tap = root.readTap(cfg.Services)
	r.checkOverlaps()
	r.checkLoops()
	r.checkAdmin(cfg.Admin.Listen, admin.at("listen"))
	return cfg
}
