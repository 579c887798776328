package golden_test

import (
	"os"
	"strings"
	"testing"

	"github.com/tproxyd/tproxyd/internal/golden"
)

// recorder is a test that only notes how it fails.
type recorder struct {
	testing.TB
	failed string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) { r.failed = format }

func Example() {
	// In a test this is its testing.T.
	t := &recorder{}
	golden.Compare(t, "greeting.golden", "hello\n")
	_, _ = os.Stdout.WriteString("failed: " + t.failed + "\n")
	// Output: failed:
}

// TestCompare fails for a text that is not the file's.
func TestCompare(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("testdata", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("testdata/greeting.golden", []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &recorder{TB: t}
	golden.Compare(r, "greeting.golden", "hello\n")
	if r.failed != "" {
		t.Errorf("the same text fails: %s", r.failed)
	}
	golden.Compare(r, "greeting.golden", "hello")
	if !strings.Contains(r.failed, "-want +got") {
		t.Errorf("another text does not fail: %q", r.failed)
	}
}
