package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// built is the path of the daemon, built once for all tests. It lies where the
// repository's own build lies, because nothing runs after the last test.
var built = sync.OnceValues(func() (string, error) {
	path, err := filepath.Abs("../../bin/tproxyd-e2e-test")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "../../cmd/tproxyd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})
