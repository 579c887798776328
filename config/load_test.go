package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tproxyd.toml")
	if err := os.WriteFile(path, []byte(minimal), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := Load(path)
	if err != nil || cfg.Services[0].Name != "web" {
		t.Fatalf("load: %+v, %v", cfg, err)
	}
}

func TestLoadUnreadable(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct{ path, want string }{
		"missing":        {filepath.Join(dir, "none"), ": cannot read the file: no such file or directory; give the right path with --config, or start from tproxyd.toml.example"},
		"directory":      {dir, ": cannot read the file: it is a directory; give the file in it with --config"},
		"below a file":   {filepath.Join(file, "x"), ": cannot read the file: not a directory; check the path given with --config and its file system"},
		"endless device": {"/dev/zero", ": the file is larger than 1048576 bytes; check that this is the right file"},
		"bad content":    {file, ":1: TOML syntax: "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cfg, err := Load(tt.path)
			var errs Errors
			if cfg != nil || !errors.As(err, &errs) || len(errs) != 1 {
				t.Fatalf("got %+v, %v, want one error", cfg, err)
			}
			if !strings.HasPrefix(err.Error(), tt.path+tt.want) {
				t.Errorf("got %q, want %q", err, tt.path+tt.want)
			}
		})
	}
	if _, err := Load(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v is not fs.ErrNotExist", err)
	}
}

// TestUnreadablePermission goes without a file: root may read every one.
func TestUnreadablePermission(t *testing.T) {
	got := unreadable("f", &fs.PathError{Op: "open", Path: "f", Err: os.ErrPermission}).Error()
	want := "f: cannot read the file: permission denied; let the user that tproxyd runs as read it, and enter its directories"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
