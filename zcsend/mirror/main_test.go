package mirror_test

import (
	"testing"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }
