package zcsend

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
)

func TestParseMethod(t *testing.T) {
	for _, m := range append(Methods(), Auto) {
		if got, err := ParseMethod(m.String()); got != m || err != nil {
			t.Errorf("%s: %q, %v", m, got, err)
		}
	}
	if _, err := ParseMethod("sendfile"); err == nil || !strings.Contains(err.Error(), "want auto, ring, mmsg, gso, splice-udp, splice-raw") {
		t.Error(err)
	}
}

func TestChoose(t *testing.T) {
	for _, tt := range []struct {
		physical, super bool
		want            Method
	}{{true, false, Ring}, {true, true, Ring}, {false, true, GSO}, {false, false, MMsg}} {
		if got := choose(&device{physical: tt.physical}, tt.super); got != tt.want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}

// TestGeometry holds what packet_set_ring() asks for.
func TestGeometry(t *testing.T) {
	for _, slot := range []int{100, 1550, 2048, 9060, 65_000, maxSuper + slotHeader + vnetSize} {
		for _, total := range []int{1, 1 << 16, 4 << 20, 5_000_001} {
			r := geometry(slot, total)
			if int(r.Frame_size) < slot || r.Frame_size%unix.TPACKET_ALIGNMENT != 0 || r.Block_nr == 0 ||
				int(r.Block_size)%os.Getpagesize() != 0 || r.Block_size%r.Frame_size != 0 ||
				r.Block_size/r.Frame_size*r.Block_nr != r.Frame_nr {
				t.Errorf("slots of %d, %d bytes: %+v", slot, total, r)
			}
		}
	}
}

func TestOpenErrors(t *testing.T) {
	newBed(t)
	for want, cfg := range map[string]Config{
		"find interface nowhere0":               {Interface: "nowhere0"},
		`unknown method "carrier pigeon"`:       {Method: "carrier pigeon"},
		"batch of 1025 frames: want 1 to 1024":  {Batch: 1025},
		"ring of -1 bytes":                      {RingBytes: -1},
		"super-frames cannot bypass":            {Method: GSO, Bypass: true},
		"method splice-raw cannot bypass":       {Method: SpliceRaw, Bypass: true},
		"method mmsg cannot send super-frames":  {Method: MMsg, SuperFrames: true},
		"open sender on lab-client: ring of -2": {RingBytes: -2},
	} {
		if cfg.Interface == "" {
			cfg.Interface = lab.ClientLink
		}
		if s, err := Open(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, %v", cfg, s, err)
		}
	}
	s := mustOpen(t, Config{Interface: lab.ClientLink})
	if s.Method() != MMsg || s.Interface() != lab.ClientLink || s.MTU() != 1500 {
		t.Errorf("%s on %s, MTU %d", s.Method(), s.Interface(), s.MTU())
	}
}
