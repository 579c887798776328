package eventloop

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// check wants the heap to be one, and its members to know their places.
func check(t *testing.T, h *timers) {
	t.Helper()
	for i, tm := range h.heap {
		if int(tm.pos) != i+1 {
			t.Fatalf("timer %d is at %d and believes %d", tm.Slot, i, tm.pos-1)
		}
		if parent := h.heap[(i-1)/2]; i > 0 && parent.when > tm.when {
			t.Fatalf("%d at %d is under %d", tm.when, i, parent.when)
		}
	}
}

// TestTimersAgainstModel does as it likes with timers, and the same with a map.
func TestTimersAgainstModel(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		var l Loop
		all := make([]Timer, 60)
		model := map[*Timer]int64{}
		now := int64(0)
		for range 4000 {
			tm := &all[r.IntN(len(all))]
			tm.Slot = 1
			switch r.IntN(5) {
			case 0, 1, 2:
				at := now + r.Int64N(50) - 5
				l.Schedule(tm, at)
				model[tm] = at
			case 3:
				l.Cancel(tm)
				delete(model, tm)
			case 4:
				now += r.Int64N(10)
				expire(t, &l, model, now)
			}
			check(t, &l.timers)
			if _, ok := model[tm]; ok != tm.Scheduled() || len(model) != len(l.timers.heap) {
				t.Fatalf("seed %d: %d timers, want %d; scheduled %v, want %v", seed, len(l.timers.heap), len(model), tm.Scheduled(), ok)
			}
		}
		expire(t, &l, model, math.MaxInt64)
		if len(model) != 0 || len(l.timers.heap) != 0 {
			t.Fatalf("seed %d: left %d, in the model %d", seed, len(l.timers.heap), len(model))
		}
	}
}

// expire takes out what is due, in its order.
func expire(t *testing.T, l *Loop, model map[*Timer]int64, now int64) {
	t.Helper()
	var want, got []int64
	for _, at := range model {
		if at <= now {
			want = append(want, at)
		}
	}
	slices.Sort(want)
	for tm := l.timers.due(now); tm != nil; tm = l.timers.due(now) {
		if tm.Scheduled() || model[tm] != tm.when {
			t.Fatalf("expired at %d, still scheduled %v, want %d", tm.when, tm.Scheduled(), model[tm])
		}
		got = append(got, tm.when)
		delete(model, tm)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("at %d: expired %v, want %v", now, got, want)
	}
}

func TestTimersWait(t *testing.T) {
	ms := int64(time.Millisecond)
	for _, tt := range []struct {
		when []int64
		now  int64
		want int
	}{
		{nil, 0, -1},
		{[]int64{5 * ms}, 0, 5},
		{[]int64{5 * ms}, 1, 5},         // rounded up: never too early
		{[]int64{5*ms + 1}, 0, 6},       //
		{[]int64{5 * ms}, 5 * ms, 0},    // due
		{[]int64{5 * ms}, 9 * ms, 0},    // overdue
		{[]int64{9 * ms, 2 * ms}, 0, 2}, // the first counts
		{[]int64{math.MaxInt64}, 0, math.MaxInt32},
		{[]int64{math.MaxInt64 - 1}, ms, math.MaxInt32},
	} {
		var l Loop
		for _, at := range tt.when {
			l.Schedule(&Timer{}, at)
		}
		if got := l.timers.wait(tt.now); got != tt.want {
			t.Errorf("timers %v at %d: %d, want %d", tt.when, tt.now, got, tt.want)
		}
	}
}

func TestTimersAllocations(t *testing.T) {
	var l Loop
	all := make([]Timer, 100)
	for i := range all {
		l.Schedule(&all[i], int64(i))
	}
	if n := testing.AllocsPerRun(100, func() {
		for i := range all {
			l.Schedule(&all[i], int64(i*7%100))
		}
		for i := range all[:50] {
			l.Cancel(&all[i])
			l.Schedule(&all[i], int64(i))
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSchedule(b *testing.B) {
	var l Loop
	all := make([]Timer, 10_000)
	for i := range all {
		l.Schedule(&all[i], int64(i))
	}
	for i := 0; b.Loop(); i++ {
		l.Schedule(&all[i%len(all)], int64(i))
	}
}
