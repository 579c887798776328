package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/packet"
	"github.com/tproxyd/tproxyd/ringcap"
	"github.com/tproxyd/tproxyd/ringcap/filter"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The two ends of a mirror port of the proxy.
const (
	mirrorPort = "lab-mirror"
	mirrorFar  = "lab-probe"
)

const spanMirror = `
[[mirror]]
name = "span"
interfaces = ["lab-client", "lab-server"]
to_interface = "lab-mirror"
services = ["web"]
`

// ofWeb is what spanMirror takes, said in another way.
const ofWeb = "tcp port 80 and (host " + lab.VIP4 + " or host " + lab.ServerIP4 + " or host " + lab.VIP6 + " or host " + lab.ServerIP6 + ")"

// addMirrorPort makes the port, and keeps IPv6 from talking there.
func (b *bed) addMirrorPort() {
	b.t.Helper()
	a := netlink.NewLinkAttrs()
	a.Name = mirrorPort
	v := &netlink.Veth{LinkAttrs: a, PeerName: mirrorFar}
	if err := netlink.LinkAdd(v); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = netlink.LinkDel(v) })
	for _, name := range []string{mirrorPort, mirrorFar} {
		if err := b.Proxy.LinkUp(name); err != nil {
			b.t.Fatal(err)
		}
	}
}

// tapped is what was seen on interfaces.
type tapped struct {
	mu     sync.Mutex
	frames []string
	stop   context.CancelFunc
	wg     sync.WaitGroup
}

func (b *bed) tap(expression string, direction ringcap.Direction, links ...string) *tapped {
	b.t.Helper()
	program, err := filter.Compile(expression, filter.Options{Metadata: true})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &tapped{stop: cancel}
	for _, link := range links {
		ring, err := ringcap.Open(ringcap.Config{Interface: link, Filter: program, Direction: direction, BlockSize: 256 << 10, Blocks: 16})
		if err != nil {
			b.t.Fatal(err)
		}
		p.wg.Go(func() { p.read(ctx, ring) })
		b.t.Cleanup(func() { cancel(); p.wg.Wait(); _ = ring.Close() })
	}
	return p
}

func (p *tapped) read(ctx context.Context, ring *ringcap.Ring) {
	for block, err := range ring.Blocks(ctx) {
		if err != nil {
			return // and what was not seen is missed
		}
		p.mu.Lock()
		for f := range block.Packets() {
			b := slices.Clone(f.Data())
			if l, ok := packet.Parse(b); ok {
				l.SetChecksums(b) // as a card would
			}
			p.frames = append(p.frames, string(b))
		}
		p.mu.Unlock()
	}
}

func (p *tapped) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.frames)
}

// end returns all frames, sorted.
func (p *tapped) end() []string {
	p.stop()
	p.wg.Wait()
	slices.Sort(p.frames)
	return p.frames
}

func (b *bed) visit(n int, targets ...string) {
	b.t.Helper()
	for range n {
		for _, target := range targets {
			if err := b.talk(target); err != nil {
				b.t.Fatal(err)
			}
		}
	}
}

// TestMirror: what leaves by the port is what taps on both sides of the proxy
// saw of the service, and of nothing else.
func TestMirror(t *testing.T) {
	b := newBed(t)
	b.addMirrorPort()
	near, far := b.tap(ofWeb, ringcap.Both, lab.ClientLink, lab.ServerLink), b.tap("tcp", ringcap.In, mirrorFar)
	d := b.start(configuration("", "")+spanMirror, options{})
	b.visit(5, targets["vip4"], targets["vip6"], targets["intercept4"])
	netnstest.Eventually(t, patience, func() bool {
		return int(d.metrics().sum("tproxyd_mirror_frames_total", "mirror=span")) >= near.count() && near.count() > 0
	}, "everything is mirrored")
	if code := d.terminate(); code != exitOK {
		t.Fatalf("exit code %d\n%s", code, &d.stderr)
	}
	want := near.end()
	netnstest.Eventually(t, patience, func() bool { return far.count() >= len(want) }, fmt.Sprintf("%d frames arrive", len(want)))
	if got := far.end(); !slices.Equal(got, want) {
		t.Errorf("%d frames arrived, %d were seen, or they differ", len(got), len(want))
	}
}

// TestMirrorReload: a mirror that stays goes on counting, a new one begins and
// one that is gone ends; one that cannot be is refused with everything else.
func TestMirrorReload(t *testing.T) {
	b := newBed(t)
	b.addMirrorPort()
	d := b.start(configuration("", "")+spanMirror, options{})
	frames := func(name string) float64 {
		return d.metrics().sum("tproxyd_mirror_frames_total", "mirror="+name)
	}
	b.visit(1, targets["vip4"])
	netnstest.Eventually(t, patience, func() bool { return frames("span") > 0 }, "the service is mirrored")
	before := frames("span")
	far := "\n[[mirror]]\nname = \"far\"\ninterfaces = [\"lab-client\"]\ncollector = \"" + lab.ServerIP4 + "\"\nencapsulation = \"gre\"\nfilter = \"tcp\"\n"
	d.configure(configuration("", "") + spanMirror + far)
	d.signal(unix.SIGHUP)
	netnstest.Eventually(t, patience, func() bool { return strings.Contains(d.stderr.String(), `"mirror":"far"`) }, "the new one runs")
	b.visit(1, targets["vip4"])
	netnstest.Eventually(t, patience, func() bool { return frames("far") > 0 && frames("span") > before }, "both mirror")

	d.configure(configuration("", "") + spanMirror + far + "\n[[mirror]]\nname = \"bad\"\ninterfaces = [\"nowhere\"]\nto_interface = \"lab-mirror\"\n")
	d.signal(unix.SIGHUP)
	netnstest.Eventually(t, patience, func() bool { return strings.Contains(d.stderr.String(), "nowhere") }, "it is refused")
	b.visit(1, targets["vip4"])

	d.configure(configuration("", "") + far)
	d.signal(unix.SIGHUP)
	netnstest.Eventually(t, patience, func() bool { return frames("span") == 0 && frames("far") > 0 }, "one has ended")
}

// TestMirrorKernel: the kernel mirrors while the daemon runs, and only then. It
// takes CAP_NET_ADMIN, and the error says so.
func TestMirrorKernel(t *testing.T) {
	b := newBed(t)
	b.addMirrorPort()
	text := configuration("", "") + spanMirror + "engine = \"kernel\"\n"
	d := b.launch(text, options{confinement: confinement{Without: 1 << unix.CAP_NET_ADMIN}})
	if code := d.exit(); code != exitFailed || !strings.Contains(d.stderr.String(), "CAP_NET_ADMIN") {
		t.Errorf("exit code %d without the capability\n%s", code, &d.stderr)
	}
	far := b.tap("tcp", ringcap.In, mirrorFar)
	d = b.start(text, options{})
	b.visit(3, targets["vip4"], targets["vip6"])
	frames := d.metrics().sum("tproxyd_mirror_frames_total", "mirror=span")
	if frames == 0 {
		t.Error("the metric says nothing is mirrored")
	}
	netnstest.Eventually(t, patience, func() bool { return far.count() >= int(frames) }, "frames arrive")
	d.terminate()
	links, err := netlink.LinkByName(lab.ClientLink)
	if err != nil {
		t.Fatal(err)
	}
	qdiscs, err := netlink.QdiscList(links)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range qdiscs {
		if q.Type() == "clsact" {
			t.Error("the qdisc is left")
		}
	}
}

func TestCheckMirrorFilter(t *testing.T) {
	code, _, stderr := cli(t, "check", "--config", write(t, configuration("", "")+spanMirror+"filter = \"tcp) or (udp\"\n"))
	if code != exitUsage || !strings.Contains(stderr, `mirror "span" filter`) {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}
