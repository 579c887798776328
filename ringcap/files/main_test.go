package files_test

import (
	"testing"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// The tests mount file systems of their own.
func TestMain(m *testing.M) { netnstest.Main(m) }
