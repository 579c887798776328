package admission

import (
	"hash/maphash"
	"math/bits"
	"sync"
)

// A table remembers clients, in shards that are locked one at a time.
// Controls may share it: the limits come with each call.
type table struct {
	seed   maphash.Seed
	shards []shard // a power of two
}

const (
	maxShards = 64
	// perShard is how many clients a shard has at least, if there is more than
	// one: the fuller the shards, the more evenly the hash fills them.
	perShard = 256
)

func newTable(clients int) *table {
	n := 1
	for n < maxShards && clients/(2*n) >= perShard {
		n *= 2
	}
	t := &table{seed: maphash.MakeSeed(), shards: make([]shard, n)}
	for i := range t.shards {
		t.shards[i].store = newStore(t.share(i, clients))
	}
	return t
}

// share is how many of the clients shard i has room for.
func (t *table) share(i, clients int) int {
	n := clients / len(t.shards)
	if i < clients%len(t.shards) {
		n++
	}
	return n
}

// find is the shard of k, and the hash by which the shard finds it.
func (t *table) find(k client) (*shard, uint32) {
	h := maphash.Comparable(t.seed, k)
	return &t.shards[h>>32&uint64(len(t.shards)-1)], uint32(h)
}

func (t *table) admit(k client, now int64, l *limits) Verdict {
	s, h := t.find(k)
	s.mu.Lock()
	v := s.admit(k, h, now, l)
	s.mu.Unlock()
	return v
}

func (t *table) done(k client) {
	s, h := t.find(k)
	s.mu.Lock()
	if i := s.lookup(k, h); i != none && s.entries[i].flows > 0 {
		s.entries[i].flows--
	}
	s.mu.Unlock()
}

func (t *table) len() int {
	n := 0
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += s.used
		s.mu.Unlock()
	}
	return n
}

// resize gives the table room for another number of clients. It works on one
// shard after the other; flows are admitted all the while.
func (t *table) resize(clients int) {
	for i := range t.shards {
		t.shards[i].resize(t.share(i, clients))
	}
}

// A shard is a store under a lock. The size keeps the locks of two shards out
// of one cache line.
type shard struct {
	mu sync.Mutex
	store
	last int64 // latest time seen
	_    [64]byte
}

// A store is a hash table with chains, whose memory is allocated once.
type store struct {
	heads   []int32 // entries by hash; a power of two
	entries []entry
	used    int   // the first entries, which belong to a client
	hand    int32 // where the search for one to take over goes on
}

type entry struct {
	client client
	stamp  int64 // when the bucket is full
	flows  int32
	hash   uint32
	next   int32
}

const none = -1

func newStore(room int) store {
	s := store{heads: make([]int32, 1<<bits.Len(uint(max(room, 1)))), entries: make([]entry, room)}
	for i := range s.heads {
		s.heads[i] = none
	}
	return s
}

func (s *shard) admit(k client, h uint32, now int64, l *limits) Verdict {
	s.last = max(s.last, now)
	i := s.lookup(k, h)
	if i == none {
		if i = s.take(now); i == none {
			return TableFull
		}
		s.insert(i, entry{client: k, hash: h, stamp: now})
	}
	e := &s.entries[i]
	if l.flows > 0 && e.flows >= l.flows {
		return TooMany
	}
	var ok bool
	if e.stamp, ok = l.admit(e.stamp, now); !ok {
		return TooFast
	}
	if l.flows > 0 {
		e.flows++
	}
	return Admitted
}

func (s *store) lookup(k client, h uint32) int32 {
	for i := s.heads[h&uint32(len(s.heads)-1)]; i != none; i = s.entries[i].next {
		if s.entries[i].client == k {
			return i
		}
	}
	return none
}

// steps bounds the search for an entry that says nothing. When few are left it
// may miss them; the next search goes on where this one ended.
const steps = 32

// take is an entry that belongs to nobody, or did not have to: it is out of its
// chain.
func (s *store) take(now int64) int32 {
	if s.used < len(s.entries) {
		s.used++
		return int32(s.used - 1)
	}
	for range min(steps, len(s.entries)) {
		i := s.hand
		if s.hand++; int(s.hand) == len(s.entries) {
			s.hand = 0
		}
		if s.entries[i].idle(now) {
			s.unlink(i)
			return i
		}
	}
	return none
}

// idle says that the entry says nothing.
func (e *entry) idle(now int64) bool { return e.flows == 0 && e.stamp <= now }

func (s *store) insert(i int32, e entry) {
	head := &s.heads[e.hash&uint32(len(s.heads)-1)]
	e.next = *head
	s.entries[i] = e
	*head = i
}

func (s *store) unlink(i int32) {
	at := &s.heads[s.entries[i].hash&uint32(len(s.heads)-1)]
	for *at != i {
		at = &s.entries[*at].next
	}
	*at = s.entries[i].next
}

// resize moves what says something to a store of the given room, or of as
// much as it takes.
func (s *shard) resize(room int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if room == len(s.entries) {
		return
	}
	busy := 0
	for i := range s.entries[:s.used] {
		if !s.entries[i].idle(s.last) {
			busy++
		}
	}
	next := newStore(max(room, busy))
	for _, e := range s.entries[:s.used] {
		if !e.idle(s.last) {
			next.insert(int32(next.used), e)
			next.used++
		}
	}
	s.store = next
}
