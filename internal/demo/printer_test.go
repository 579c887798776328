package demo

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBar(t *testing.T) {
	for _, terminal := range []bool{true, false} {
		var out bytes.Buffer
		p := &printer{w: &out, terminal: terminal}
		b := p.bar("upload", 80<<20)
		for _, n := range []int64{0, 1, 40 << 20, 40<<20 + 1, 90 << 20} {
			b.set(n)
		}
		b.clear()
		want := ""
		if terminal {
			want = "\r   upload   [####################....................]   40 MiB" +
				"\r   upload   [########################################]   90 MiB\r\x1b[K"
		}
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("terminal %v (-want +got):\n%s", terminal, diff)
		}
	}
}

func TestPrinter(t *testing.T) {
	var out bytes.Buffer
	p := newPrinter(Config{Out: &out})
	if p.allGood() {
		t.Error("no check at all is good")
	}
	p.step("Begin")
	p.outcome("first", "it went well", nil)
	if !p.allGood() {
		t.Error("one good check is not good")
	}
	p.outcome("second", "it went well", errors.New("it broke"))
	if err := p.end(); err != nil || p.allGood() {
		t.Errorf("end: %v, all good: %v", err, p.allGood())
	}
	const want = `
1. Begin
   it went well
   FAILED second: it broke

2. Checks
   ok     first                              it went well
   FAILED second                             it broke

1 of 2 checks are good.
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
}

func TestPrinterJSON(t *testing.T) {
	var out bytes.Buffer
	p := newPrinter(Config{Out: &out, JSON: true})
	p.step("Begin")
	p.outcome("first", "a->b", nil)
	if err := p.end(); err != nil {
		t.Fatal(err)
	}
	const want = `{"ok":true,"checks":[{"name":"first","ok":true,"detail":"a->b"}]}`
	if got := strings.TrimSpace(out.String()); got != want {
		t.Errorf("output %s, want %s", got, want)
	}
}
