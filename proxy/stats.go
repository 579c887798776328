package proxy

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tproxyd/tproxyd/internal/admission"
	"github.com/tproxyd/tproxyd/internal/balance"
)

// The relay paths, by which bytes are counted.
const (
	pathCopy = iota
	pathSplice
	pathCount
)

var (
	pathNames      = [pathCount]string{"copy", "splice"}
	legNames       = [2]string{client: "client", upstream: "upstream"}
	directionNames = [2]string{client: "in", upstream: "out"} // in: from the client to the upstream
)

// result is how a try to connect to a backend ended.
type result uint8

const (
	resultOK result = iota
	resultRefused
	resultTimeout
	resultUnreachable
	resultConflict
	resultError
	resultCount
)

var resultNames = [resultCount]string{"ok", "refused", "timeout", "unreachable", "conflict", "error"}

// histogram counts durations in fixed buckets. It has one writer.
type histogram struct {
	bounds []time.Duration // upper bounds, ascending
	counts []atomic.Uint64 // one more than bounds
	sum    atomic.Int64    // nanoseconds
}

var (
	connectBounds = []time.Duration{
		50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
		time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
		25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
		500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
	}
	durationBounds = []time.Duration{
		time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond,
		500 * time.Millisecond, time.Second, 5 * time.Second, 15 * time.Second, time.Minute,
		5 * time.Minute, 15 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour,
	}
)

// rttBounds reach from neighbours on a link to a satellite and a full buffer.
var rttBounds = []time.Duration{
	25 * time.Microsecond, 50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond,
}

func newHistogram(bounds []time.Duration) histogram {
	return histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

func (h *histogram) observe(d time.Duration) {
	i := 0
	for i < len(h.bounds) && d > h.bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

// shard is one worker's counters of a service. The worker writes, others read.
type shard struct {
	accepted  atomic.Uint64
	conflicts atomic.Uint64
	unlimited atomic.Uint64 // flows admitted beyond the table of clients
	closed    [reasonCount]atomic.Uint64
	bytes     [2][pathCount]atomic.Uint64
	duration  histogram
	queueWait histogram
	legs      [2]legShard
	udp       udpShard
	shadow    shadowShard
}

// legShard is what the kernel has told of one leg of TCP flows.
type legShard struct {
	rtt         histogram
	retransmits atomic.Uint64
}

// serviceStats are a service's counters. They live as long as the process: a
// reload that changes or brings back the service goes on with them.
type serviceStats struct {
	name     string
	shadowed atomic.Bool    // it ever had a shadow
	seen     [2]atomic.Bool // by protocol: whether the service ever was of it
	active   atomic.Int64   // TCP flows, shared by the workers, for the limit
	flows    atomic.Int64   // the same of UDP flows
	tickets  atomic.Uint64  // given to flows that have to wait
	queued   atomic.Int64   // TCP flows that wait for a backend with room
	shards   []*shard       // by worker

	admission *admission.Control // the latest; of the control plane

	mu       sync.Mutex
	backends map[string]*backendTotals
	queues   map[queueKey]*queueTotals
}

func newServiceStats(name string, workers int) *serviceStats {
	s := &serviceStats{name: name, backends: map[string]*backendTotals{}, queues: map[queueKey]*queueTotals{}}
	for range workers {
		s.shards = append(s.shards, &shard{
			duration:  newHistogram(durationBounds),
			queueWait: newHistogram(connectBounds),
			legs:      [2]legShard{{rtt: newHistogram(rttBounds)}, {rtt: newHistogram(rttBounds)}},
			udp:       udpShard{duration: newHistogram(durationBounds)},
		})
	}
	return s
}

// backendTotals are a backend's counters, by worker.
type backendTotals struct {
	load   balance.Load // flows of all workers, for the choice
	shards []*backendStats

	failures  atomic.Int64 // of flows in a row, if the service ejects
	proving   atomic.Bool  // it was ejected: its next success is news
	ejections [failureCount]atomic.Uint64
}

// backendStats is one worker's counters of a backend.
type backendStats struct {
	name    string
	totals  *backendTotals
	active  atomic.Int64
	results [resultCount]atomic.Uint64
	connect histogram
}

// backend returns the counters of the backend called name, making them at
// first use.
func (s *serviceStats) backend(name string) *backendTotals {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.backends[name]
	if t == nil {
		t = &backendTotals{}
		for range s.shards {
			t.shards = append(t.shards, &backendStats{name: name, totals: t, connect: newHistogram(connectBounds)})
		}
		s.backends[name] = t
	}
	return t
}

// queue returns what the workers share of the queues for key.
func (s *serviceStats) queue(key queueKey) *queueTotals {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.queues[key]
	if t == nil {
		t = newQueueTotals(len(s.shards))
		s.queues[key] = t
	}
	return t
}

// forget drops the counters of backends that came by name and are gone, once
// they have no flows: names may stand for ever new addresses.
func (s *serviceStats) forget(stay []Backend, discovered bool) {
	if !discovered {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, t := range s.backends {
		if t.load.Active() == 0 && !slices.ContainsFunc(stay, func(b Backend) bool { return b.Name == name }) {
			delete(s.backends, name)
		}
	}
}

// snapshot returns the backends there are now. A worker may wait for the lock,
// so it is not held while they are read.
func (s *serviceStats) snapshot() map[string]*backendTotals {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.backends)
}

// total adds up f over the workers.
func (s *serviceStats) total(f func(*shard) uint64) uint64 {
	var n uint64
	for _, sh := range s.shards {
		n += f(sh)
	}
	return n
}

// bytes is what was read from leg side of all flows.
func (s *serviceStats) bytes(side int) uint64 {
	return s.total(func(sh *shard) uint64 {
		n := sh.udp.bytes[side].Load()
		for path := range sh.bytes[side] {
			n += sh.bytes[side][path].Load()
		}
		return n
	})
}

// rejected is the number of flows refused for a cause on our side.
func (s *serviceStats) rejected() uint64 {
	return s.total(func(sh *shard) uint64 {
		var n uint64
		for r := range reasonCount {
			if r.Rejected() {
				n += sh.closed[r].Load()
			}
		}
		for d := dropTableFull; d < dropCount; d++ {
			n += sh.udp.dropped[d].Load() // datagrams that got no flow
		}
		return n
	})
}

// workerStats are a worker's counters that belong to no service.
type workerStats struct {
	pauses      [pauseCount]atomic.Uint64
	paused      atomic.Bool
	flows       atomic.Int64
	pipesIdle   atomic.Int64
	pipesLent   atomic.Int64
	bufferBytes atomic.Int64
	flowSockets atomic.Int64  // of UDP flows
	refusedRuns atomic.Uint64 // UDP_SEGMENT sends that the kernel refused
}

// pause is why a worker stopped accepting for a while.
type pause uint8

const (
	pauseConnections pause = iota // max_connections of the process
	pauseService                  // max_connections of the service
	pauseDescriptors              // EMFILE, ENFILE
	pauseMemory                   // ENOBUFS, ENOMEM
	pauseCount
)

var pauseNames = [pauseCount]string{"max_connections", "service_max_connections", "descriptors", "memory"}
