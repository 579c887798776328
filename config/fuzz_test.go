package config

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzParse holds for any input: no panic, errors of the right form, positions
// for all that the TOML library reads, and a round trip of what is valid.
func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(everything))
	f.Add([]byte(full))
	f.Add([]byte(minimalUDP))
	f.Add([]byte(everythingUDP))
	f.Add([]byte(minimal + minimalUDP))
	files, err := filepath.Glob("testdata/errors/*.toml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, "../tproxyd.toml.example") {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		checkPositions(t, string(data))
		cfg, err := Parse("f", data)
		if err != nil {
			checkErrors(t, err, string(data))
			return
		}
		checkRoundTrip(t, cfg)
	})
}
