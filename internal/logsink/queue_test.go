package logsink_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tproxyd/tproxyd/internal/logsink"
)

func TestQueueKeepsOrder(t *testing.T) {
	var got []int
	q := logsink.NewQueue(8, func(v int) { got = append(got, v) }, func(int) {})
	for v := range 8 {
		if !q.Offer(v) {
			t.Fatalf("Offer(%d) refused by an empty queue", v)
		}
	}
	if q.Offer(8) {
		t.Error("Offer accepted more than the depth")
	}
	q.Start()
	if !q.Close(time.Minute) {
		t.Fatal("Close gave up")
	}
	if diff := cmp.Diff([]int{0, 1, 2, 3, 4, 5, 6, 7}, got); diff != "" {
		t.Errorf("handled (-want +got):\n%s", diff)
	}
	if q.Offer(9) {
		t.Error("Offer accepted by a closed queue")
	}
	if !q.Close(time.Minute) {
		t.Error("second Close gave up")
	}
}

func TestQueueCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unblock := make(chan struct{})
		var handled, discarded []int
		q := logsink.NewQueue(4, func(v int) {
			<-unblock
			handled = append(handled, v)
		}, func(v int) { discarded = append(discarded, v) })
		q.Start()
		q.Offer(0)
		synctest.Wait() // 0 is in handle and hangs there
		for v := 1; v <= 4; v++ {
			if !q.Offer(v) {
				t.Fatalf("Offer(%d) refused with room in the queue", v)
			}
		}
		start := time.Now()
		if q.Close(3 * time.Second) {
			t.Error("Close reports that a value was handled that hangs")
		}
		if got := time.Since(start); got != 3*time.Second {
			t.Errorf("Close took %v of a limit of 3s", got)
		}
		if diff := cmp.Diff([]int{1, 2, 3, 4}, discarded); diff != "" {
			t.Errorf("discarded (-want +got):\n%s", diff)
		}
		close(unblock)
		synctest.Wait()
		if diff := cmp.Diff([]int{0}, handled); diff != "" {
			t.Errorf("handled (-want +got):\n%s", diff)
		}
	})
}

// Every value is refused, handled or discarded, exactly once, also when it is
// offered while the queue closes.
func TestQueueLosesNothingUncounted(t *testing.T) {
	const senders, each = 8, 5000
	var accepted, refused, handled, discarded atomic.Int64
	q := logsink.NewQueue(16,
		func(int) { handled.Add(1) },
		func(int) { discarded.Add(1) })
	q.Start()
	var wg sync.WaitGroup
	half := make(chan struct{})
	for range senders {
		wg.Go(func() {
			for v := range each {
				if v == each/2 {
					half <- struct{}{}
				}
				if q.Offer(v) {
					accepted.Add(1)
				} else {
					refused.Add(1)
				}
			}
		})
	}
	for range senders / 2 {
		<-half
	}
	go func() { // let the other half go on while Close runs
		for range senders / 2 {
			<-half
		}
	}()
	if !q.Close(time.Minute) {
		t.Error("Close gave up")
	}
	wg.Wait()
	if got := accepted.Load() + refused.Load(); got != senders*each {
		t.Errorf("accepted+refused = %d, offered %d", got, senders*each)
	}
	if accepted.Load() != handled.Load()+discarded.Load() {
		t.Errorf("accepted %d, handled %d, discarded %d", accepted.Load(), handled.Load(), discarded.Load())
	}
	if refused.Load() == 0 || handled.Load() == 0 {
		t.Errorf("refused %d, handled %d: the test did not reach both", refused.Load(), handled.Load())
	}
}
