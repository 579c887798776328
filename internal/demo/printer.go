package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Check is something that was looked at, and what came out.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// printer tells the story, and keeps the checks for the end of it.
type printer struct {
	w        io.Writer
	json     bool
	terminal bool
	steps    int
	checks   []Check
}

func newPrinter(cfg Config) *printer {
	return &printer{w: cfg.Out, json: cfg.JSON, terminal: !cfg.JSON && isTerminal(cfg.Out)}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func (p *printer) printf(format string, args ...any) {
	if !p.json {
		// Where the output has gone away there is nobody left to tell.
		_, _ = fmt.Fprintf(p.w, format, args...)
	}
}

// step begins a chapter.
func (p *printer) step(title string) {
	p.steps++
	p.printf("\n%d. %s\n", p.steps, title)
}

// say tells a line.
func (p *printer) say(format string, args ...any) {
	p.printf("   "+format+"\n", args...)
}

// check notes a check, and tells at once if it is bad.
func (p *printer) check(name string, ok bool, format string, args ...any) {
	c := Check{Name: name, OK: ok, Detail: fmt.Sprintf(format, args...)}
	p.checks = append(p.checks, c)
	if !ok {
		p.say("FAILED %s: %s", name, c.Detail)
	}
}

// outcome tells how something went, and notes it as a check.
func (p *printer) outcome(name, detail string, err error) {
	if err != nil {
		p.check(name, false, "%v", err)
		return
	}
	p.say("%s", detail)
	p.check(name, true, "%s", detail)
}

func (p *printer) allGood() bool {
	for _, c := range p.checks {
		if !c.OK {
			return false
		}
	}
	return len(p.checks) > 0
}

// end prints all checks.
func (p *printer) end() error {
	if p.json {
		enc := json.NewEncoder(p.w)
		enc.SetEscapeHTML(false)
		err := enc.Encode(struct {
			OK     bool    `json:"ok"`
			Checks []Check `json:"checks"`
		}{p.allGood(), p.checks})
		if err != nil {
			return fmt.Errorf("print checks: %w", err)
		}
		return nil
	}
	p.step("Checks")
	good := 0
	for _, c := range p.checks {
		verdict := "FAILED"
		if c.OK {
			verdict = "ok"
			good++
		}
		p.say("%-6s %-34s %s", verdict, c.Name, c.Detail)
	}
	p.printf("\n%d of %d checks are good.\n", good, len(p.checks))
	return nil
}

// bar is the progress of one transfer, drawn on a terminal only.
type bar struct {
	p     *printer
	label string
	total int64
	drawn int
}

func (p *printer) bar(label string, total int64) *bar {
	return &bar{p: p, label: label, total: total}
}

// set draws the bar for n bytes, when it has grown by a character.
func (b *bar) set(n int64) {
	const width = 40
	filled := int(min(n, b.total) * width / max(b.total, 1))
	if !b.p.terminal || filled == b.drawn {
		return
	}
	b.drawn = filled
	b.p.printf("\r   %-8s [%s%s] %4d MiB", b.label,
		strings.Repeat("#", filled), strings.Repeat(".", width-filled), n>>20)
}

// clear removes the bar, for the line that tells the result.
func (b *bar) clear() {
	if b.p.terminal {
		b.p.printf("\r\x1b[K")
	}
}
