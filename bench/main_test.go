package main

import (
	"os"
	"testing"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// The parts run this test binary as the program that they are parts of.
func TestMain(m *testing.M) {
	if code, ok := part(os.Args[1:]); ok {
		os.Exit(code)
	}
	netnstest.Main(m)
}
