package mirror_test

import (
	"errors"
	"math"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/ringcap"
	"github.com/tproxyd/tproxyd/ringcap/filter"
	"github.com/tproxyd/tproxyd/zcsend/mirror"
)

// tc runs tc in the proxy.
func tc(t *testing.T, line string, more ...string) string {
	t.Helper()
	args := append(strings.Fields(line), more...)
	out, err := exec.CommandContext(t.Context(), netnstest.Need(t, "tc", "iproute2"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("tc %s: %v: %s", line, err, out)
	}
	return string(out)
}

func program(t testing.TB, expression string) []bpf.RawInstruction {
	t.Helper()
	p, err := filter.Compile(expression, filter.Options{Snap: math.MaxUint32, Metadata: true})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func install(t testing.TB, expression string) *mirror.Kernel {
	t.Helper()
	k, err := mirror.Install(mirror.KernelConfig{
		Name: "test", Interfaces: []string{lab.ClientLink}, To: portLink, Filter: program(t, expression),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// TestKernel: the kernel mirrors what a tap sees, and nothing of it is left when
// the mirror is closed.
func TestKernel(t *testing.T) {
	l := netnstest.New(t)
	addPort(t, 1500)
	before := tc(t, "qdisc show dev "+lab.ClientLink)
	k := install(t, traffic)
	near, far := newTap(t, l.Proxy, lab.ClientLink, ringcap.Both), newTap(t, l.Proxy, farLink, ringcap.In)
	exchange(t, l, 100, 1<<20)
	want := near.end()
	same(t, await(t, far, len(want)), want)
	s := k.Stats()
	if s.Frames == 0 || s.Bytes == 0 || s.Drops() != 0 || s.Frames > uint64(len(want)) {
		t.Errorf("%+v for %d frames", s, len(want))
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if after := tc(t, "qdisc show dev "+lab.ClientLink); after != before {
		t.Errorf("left behind:\n%sbefore:\n%s", after, before)
	}
	if k.Stats() != s {
		t.Errorf("%+v after closing, %+v before", k.Stats(), s)
	}
}

// TestKernelTwo: two mirrors of one interface each get everything.
func TestKernelTwo(t *testing.T) {
	l := netnstest.New(t)
	addPort(t, 1500)
	first, second := install(t, "udp port 5001"), install(t, "udp port 5001 and ip6")
	exchange(t, l, 10, 0)
	if a, b := first.Stats(), second.Stats(); a.Frames != 20 || b.Frames != 10 {
		t.Errorf("%d and %d frames, want 20 and 10", a.Frames, b.Frames)
	}
}

// TestKernelNeighbours: what others have on the interface stays and works.
func TestKernelNeighbours(t *testing.T) {
	l := netnstest.New(t)
	addPort(t, 1500)
	tc(t, "qdisc add dev "+lab.ClientLink+" clsact")
	tc(t, "filter add dev "+lab.ClientLink+" ingress pref 50000 protocol all bpf bytecode", "1,6 0 0 4294967295", "action", "mirred", "egress", "mirror", "dev", farLink)
	k := install(t, "udp port 5001")
	exchange(t, l, 10, 0)
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if got := tc(t, "-s filter show dev "+lab.ClientLink+" ingress"); !strings.Contains(got, "pref 50000") || strings.Contains(got, "Sent 0 bytes") {
		t.Errorf("their filter is gone, or has seen nothing:\n%s", got)
	}
}

// TestKernelConflict: an ingress qdisc is somebody's, and is left alone.
func TestKernelConflict(t *testing.T) {
	netnstest.New(t)
	addPort(t, 1500)
	tc(t, "qdisc add dev "+lab.ServerLink+" ingress")
	_, err := mirror.Install(mirror.KernelConfig{
		Name: "test", Interfaces: []string{lab.ClientLink, lab.ServerLink}, To: portLink, Filter: program(t, ""),
	})
	if !errors.Is(err, mirror.ErrConflict) || !strings.Contains(err.Error(), lab.ServerLink) {
		t.Errorf("got %v, want a conflict on %s", err, lab.ServerLink)
	}
	for _, link := range []string{lab.ClientLink, lab.ServerLink} {
		if got := tc(t, "qdisc show dev "+link); strings.Contains(got, "clsact") {
			t.Errorf("left on %s: %s", link, got)
		}
	}
}

// TestSweep: what a daemon left that did not close is removed by the next one.
func TestSweep(t *testing.T) {
	netnstest.New(t)
	addPort(t, 1500)
	install(t, "udp port 5001")
	if got := tc(t, "filter show dev "+lab.ClientLink+" egress"); !strings.Contains(got, "mirred") {
		t.Fatalf("not installed: %s", got)
	}
	if err := mirror.Sweep(); err != nil {
		t.Fatal(err)
	}
	if got := tc(t, "qdisc show dev "+lab.ClientLink); strings.Contains(got, "clsact") {
		t.Errorf("left behind: %s", got)
	}
}
