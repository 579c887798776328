package ringcap

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/tpacket"
)

func TestAllocate(t *testing.T) {
	asked := tpacket.Geometry{BlockSize: 1 << 20, Blocks: 64}
	tries := 0
	got, err := allocate(asked, 4096, func(g tpacket.Geometry) error {
		tries++
		if g.Bytes() > 5<<20 {
			return unix.ENOMEM
		}
		return nil
	})
	if err != nil || got.Bytes() != 4<<20 || tries != 5 {
		t.Errorf("allocate = %+v, %v after %d tries, want 4 MiB after 5", got, err, tries)
	}
	if _, err := allocate(asked, 4096, func(tpacket.Geometry) error { return unix.ENOMEM }); !errors.Is(err, unix.ENOMEM) {
		t.Errorf("without memory: %v", err)
	}
	tries = 0
	if _, err := allocate(asked, 4096, func(tpacket.Geometry) error { tries++; return unix.EINVAL }); !errors.Is(err, unix.EINVAL) || tries != 1 {
		t.Errorf("another error: %v after %d tries", err, tries)
	}
}
