package zcsend

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// TestProbe holds what the documentation says of a veth.
func TestProbe(t *testing.T) {
	netnstest.New(t)
	addPair(t)
	defer removePair(t)
	reports, err := Probe(t.Context(), "zc0")
	if err != nil {
		t.Fatal(err)
	}
	want := map[Method]Result{
		Ring: Copied, MMsg: Copied, GSO: Copied, SpliceUDP: ByReference, SpliceRaw: Copied,
	}
	got := make(map[Method]Result)
	for _, r := range reports {
		got[r.Method] = r.Result
		t.Log(r)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestProbeByTap looks at the sending interface, as on a real one.
func TestProbeByTap(t *testing.T) {
	newBed(t)
	reports, err := Probe(t.Context(), lab.ClientLink)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range reports {
		want := map[Method]Result{Ring: Unknown, SpliceUDP: ByReference}[r.Method]
		if want == "" {
			want = Copied
		}
		if r.Result != want {
			t.Errorf("%+v, want %s", r, want)
		}
	}
}

// TestProbeHeld shows that what a ring holds reaches the driver by reference:
// a frame that waits before it in a queue changes with the ring.
func TestProbeHeld(t *testing.T) {
	newBed(t)
	release := hold(t)
	filler := mustOpen(t, Config{Interface: lab.ClientLink, Method: MMsg})
	if _, err := filler.Send(t.Context(), asFrames(sized(false, 2, 1400))); err != nil {
		t.Fatal(err)
	}
	if _, err := filler.Send(t.Context(), asFrames(sized(false, 2, 1400))); err != nil {
		t.Fatal(err)
	}
	w, err := openWitness(lab.ClientLink)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	if r := probe(t.Context(), lab.ClientLink, Ring, w, release); r.Result != ByReference {
		t.Errorf("%+v", r)
	}
	release = hold(t)
	if _, err := filler.Send(t.Context(), asFrames(sized(false, 2, 1400))); err != nil {
		t.Fatal(err)
	}
	if r := probe(t.Context(), lab.ClientLink, MMsg, w, release); r.Result != Copied {
		t.Errorf("%+v", r)
	}
}

func TestProbeErrors(t *testing.T) {
	b := newBed(t)
	if _, err := Probe(t.Context(), "nowhere0"); err == nil || !strings.Contains(err.Error(), "probe nowhere0: find interface") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Probe(ctx, lab.ClientLink); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := b.Proxy.LinkDown(lab.ClientLink); err != nil {
		t.Fatal(err)
	}
	if _, err := Probe(t.Context(), lab.ClientLink); !errors.Is(err, ErrLinkDown) {
		t.Error(err)
	}
}
