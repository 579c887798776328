package proxy

import (
	"bytes"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/proxyproto"
	"github.com/tproxyd/tproxyd/internal/sys"
)

func TestReasonsAreComplete(t *testing.T) {
	names := map[string]Reason{}
	for r := range reasonCount {
		if r.String() == "" {
			t.Errorf("reason %d has no name", r)
		}
		if other, ok := names[r.String()]; ok {
			t.Errorf("reasons %d and %d are both called %s", other, r, r)
		}
		names[r.String()] = r
		if len(r.Term()) != 2 {
			t.Errorf("reason %s has the termination state %q, want two letters", r, r.Term())
		}
	}
	for r, want := range map[Reason]bool{ClientClose: false, ConnectRefused: false, ConnectFailed: false, SourceConflict: true, ResourcesExhausted: true} {
		if r.Rejected() != want {
			t.Errorf("%s.Rejected() = %v, want %v", r, !want, want)
		}
	}
	for i, tables := range [][]string{pathNames[:], resultNames[:], pauseNames[:], eventTexts[:], directionNames[:]} {
		for j, name := range tables {
			if name == "" {
				t.Errorf("entry %d of table %d is empty", j, i)
			}
		}
	}
	for _, s := range []Source{Client, ClientIP, PreferClient, Host} {
		if s.String() == "" {
			t.Errorf("source policy %d has no name", s)
		}
	}
}

func TestSlabReusesSlots(t *testing.T) {
	var s slab[flow, *flow]
	flows := map[uint32]*flow{}
	for range slabSize + 1 {
		f := s.take()
		f.part = &part{}
		if flows[f.timer.Slot] != nil {
			t.Fatalf("slot %d is lent twice", f.timer.Slot)
		}
		flows[f.timer.Slot] = f
	}
	if len(s.chunks) != 2 || s.live != slabSize+1 {
		t.Errorf("%d chunks and %d live, want 2 and %d", len(s.chunks), s.live, slabSize+1)
	}
	for slot, f := range flows {
		if s.at(slot) != f {
			t.Errorf("slot %d is not where it was", slot)
		}
	}
	old := flows[5]
	tag := old.tag(upstream)
	if tag.Slot>>1 != 5 || tag.Slot&1 != upstream {
		t.Errorf("tag %+v does not name leg %d of slot 5", tag, upstream)
	}
	old.id, old.guarded, old.ready = 99, true, true
	s.give(old)
	n := 0
	s.all(func(f *flow) {
		n++
		if f == old {
			t.Error("a free flow is visited")
		}
	})
	if n != slabSize || s.live != slabSize {
		t.Errorf("%d visited and %d live, want %d", n, s.live, slabSize)
	}
	again := s.take()
	if again != old || again.tag(upstream).Slot != tag.Slot {
		t.Errorf("slot %d is taken, want the one given back", again.timer.Slot)
	}
	if again.tag(upstream).Gen == tag.Gen {
		t.Error("an old tag matches the slot's next user")
	}
	if again.id != 0 || again.guarded || again.ready || again.part != nil {
		t.Errorf("flow is not clear: %+v", again)
	}
}

func TestBufferPool(t *testing.T) {
	p := bufferPool{stats: &workerStats{}}
	content := noiseAt(1, 0)
	content = append(bytes.Clone(content), content...)[:bufferSize]
	for c, size := range bufferClasses {
		smallest := 1
		if c > 0 {
			smallest = bufferClasses[c-1] + 1
		}
		for _, n := range []int{smallest, size} {
			b := p.hold(content[:n])
			if !bytes.Equal(b.rest(), content[:n]) {
				t.Errorf("%d bytes are not held", n)
			}
			if got := p.stats.bufferBytes.Load(); got != int64(size) {
				t.Errorf("%d bytes held count as %d, want %d", n, got, size)
			}
			b.from = n
			p.release(b)
		}
		if len(p.idle[c]) != 1 {
			t.Errorf("class %d has %d idle buffers, want the one that was used twice", size, len(p.idle[c]))
		}
	}
	var lent []*buffer
	for range idleBuffers[0] + 10 {
		lent = append(lent, p.hold(content[:1]))
	}
	for _, b := range lent {
		p.release(b)
	}
	if len(p.idle[0]) != idleBuffers[0] {
		t.Errorf("%d buffers are kept, want %d", len(p.idle[0]), idleBuffers[0])
	}
	if n := p.stats.bufferBytes.Load(); n != 0 {
		t.Errorf("%d bytes count as lent, want none", n)
	}
	// Of what a client sends in its greeting, the largest piece comes last.
	all := p.hold(content[:bufferClasses[0]])
	for len(all.rest()) < greetingSize {
		all = p.join(all, content[:min(1000, greetingSize-len(all.rest()))])
	}
	all = p.join(all, content[:proxyproto.MaxHeader])
	if want := bufferClasses[len(bufferClasses)-1]; len(all.rest()) != want || len(all.data) != want {
		t.Errorf("%d bytes in memory of %d, want the largest class, %d", len(all.rest()), len(all.data), want)
	}
	p.release(all)
	if n := p.stats.bufferBytes.Load(); n != 0 {
		t.Errorf("%d bytes count as lent, want none", n)
	}
}

// TestPipesTooSmall has a kernel that gives pipes of two pages, as it does to a
// user who has spent fs.pipe-user-pages-soft.
func TestPipesTooSmall(t *testing.T) {
	before := descriptors(t)
	opened, size := 0, pipeLeast
	p := pipePool{max: 10, stats: &workerStats{}, open: func(asked int) (sys.Pipe, error) {
		opened++
		k, err := sys.NewPipe(asked)
		k.Size = size
		return k, err
	}}
	q := p.get()
	if q == nil {
		t.Fatal("no pipe though it is large enough")
	}
	size = 8 << 10
	for range 2 {
		if p.get() != nil {
			t.Error("a small pipe is lent")
		}
	}
	if opened != 2 {
		t.Errorf("%d pipes opened, want 2: no more is tried until one comes back", opened)
	}
	p.put(q)
	if p.get() != q {
		t.Error("the pipe that came back is not lent")
	}
	p.put(q)
	p.trim()
	if n := openedSince(t, before); n != 0 {
		t.Errorf("%d descriptors left", n)
	}
}

func TestPipePool(t *testing.T) {
	before := descriptors(t)
	const most = idlePipes + 4
	p := pipePool{open: sys.NewPipe, max: most, stats: &workerStats{}}
	var lent []*pipe
	for range most {
		q := p.get()
		if q == nil || q.held != 0 || q.Size <= 0 {
			t.Fatalf("pipe %d of %d is %+v", len(lent), most, q)
		}
		lent = append(lent, q)
	}
	if p.get() != nil {
		t.Errorf("more than %d pipes are lent", most)
	}
	// A pipe with bytes in it is not lent to another flow.
	dirty := lent[0]
	dirty.held = 1
	p.put(dirty)
	for _, q := range lent[1:] {
		p.put(q)
	}
	if len(p.idle) != idlePipes || p.lent != 0 {
		t.Errorf("%d idle and %d lent, want %d and 0", len(p.idle), p.lent, idlePipes)
	}
	for _, q := range p.idle {
		if q == dirty {
			t.Error("a pipe with bytes in it is kept")
		}
	}
	if n := openedSince(t, before); n != 2*idlePipes {
		t.Errorf("%d descriptors open, want %d", n, 2*idlePipes)
	}
	kept := p.idle[idlePipes-1]
	if q := p.get(); q != kept {
		t.Error("a new pipe is made while others are idle")
	} else {
		p.put(q)
	}
	p.trim()
	if n := openedSince(t, before); n != 0 || p.stats.pipesIdle.Load() != 0 || p.stats.pipesLent.Load() != 0 {
		t.Errorf("%d descriptors, %d idle and %d lent after trim, want none",
			n, p.stats.pipesIdle.Load(), p.stats.pipesLent.Load())
	}
}

func TestHistogram(t *testing.T) {
	h := newHistogram([]time.Duration{time.Millisecond, time.Second})
	for _, d := range []time.Duration{0, time.Millisecond, time.Millisecond + 1, time.Second, time.Hour} {
		h.observe(d)
	}
	for i, want := range []uint64{2, 2, 1} {
		if n := h.counts[i].Load(); n != want {
			t.Errorf("bucket %d holds %d, want %d", i, n, want)
		}
	}
	if sum := time.Duration(h.sum.Load()); sum != time.Hour+time.Second+2*time.Millisecond+1 {
		t.Errorf("sum is %v", sum)
	}
	for _, bounds := range [][]time.Duration{connectBounds, durationBounds} {
		for i := 1; i < len(bounds); i++ {
			if bounds[i] <= bounds[i-1] {
				t.Errorf("bounds %v do not ascend", bounds)
			}
		}
	}
}
