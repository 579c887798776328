package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestErrorsGolden holds every line that a wrong file prints.
func TestErrorsGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/errors/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in testdata/errors: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".toml")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := Parse(filepath.Base(file), data)
			if cfg != nil || err == nil {
				t.Fatalf("a wrong file was accepted: %+v", cfg)
			}
			checkErrors(t, err, string(data))
			got := err.Error() + "\n"
			for line := range strings.Lines(got) {
				if strings.Count(line, "; ") != 1 {
					t.Errorf("not of the form what is wrong; remedy: %s", line)
				}
			}
			golden := strings.TrimSuffix(file, ".toml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

// checkErrors holds what is true of every error of Parse.
func checkErrors(t *testing.T, err error, text string) {
	t.Helper()
	var errs Errors
	if !errors.As(err, &errs) || len(errs) == 0 {
		t.Fatalf("no Errors: %T %v", err, err)
	}
	if len(errs) > maxErrors+1 {
		t.Errorf("%d errors, more than %d", len(errs), maxErrors+1)
	}
	lines := 1 + strings.Count(text, "\n")
	last := 0
	for _, e := range errs {
		if filepath.IsAbs(e.File) { // a list that the file names
			continue
		}
		if e.Line < last || e.Line > lines || (e.Line == 0 && len(text) <= maxSize) {
			t.Errorf("line %d after line %d in a file of %d lines: %v", e.Line, last, lines, e)
		}
		last = e.Line
		if e.File == "" || e.Msg == "" || e.Remedy == "" {
			t.Errorf("file, message or remedy missing: %+v", e)
		}
		if strings.ContainsAny(e.Error(), "\r\n") {
			t.Errorf("more than one line: %q", e.Error())
		}
	}
}
