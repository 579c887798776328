package proxy

import "sync/atomic"

// evictAtOnce bounds how many flows make room for one: more than one do when a
// limit was lowered.
const evictAtOnce = 64

// admit counts a flow to come. If that would pass a limit, the flow that is
// missed least makes room for it.
func (u *udpWorker) admit(l *udpListener) bool {
	stats := l.part.svc.stats
	if most := int64(l.part.svc.MaxFlows); most > 0 {
		if !u.reserve(&stats.flows, most, l.table, evictService) {
			u.ask(stats, evictService)
			return false
		}
	} else {
		stats.flows.Add(1)
	}
	if !u.reserve(&u.proxy.flows, u.proxy.maxFlows.Load(), nil, evictProcess) {
		stats.flows.Add(-1)
		u.ask(stats, evictProcess)
		return false
	}
	return true
}

// reserve adds one to n, which never gets beyond most. Flows of t make room; of
// any table if t is nil.
func (u *udpWorker) reserve(n *atomic.Int64, most int64, t *udpTable, why eviction) bool {
	share := most / int64(len(u.proxy.workers))
	for evicted := 0; ; {
		now := n.Load()
		if now < most {
			if n.CompareAndSwap(now, now+1) {
				return true
			}
			continue
		}
		from, size := t, int64(u.flows.live)
		if t == nil {
			from = u.fullest()
		} else {
			size = int64(t.size)
		}
		if evicted == evictAtOnce || from == nil || !from.mayGive(size > share) {
			return false
		}
		u.evict(from, why)
		evicted++
	}
}

// mayGive reports whether t has a flow to give up: a confirmed one only if its
// worker has more than its share, as others may have unconfirmed ones.
func (t *udpTable) mayGive(confirmedToo bool) bool {
	f := t.oldest()
	return f != nil && (confirmedToo || !f.confirmed)
}

// ask has another worker, each in turn, make room for the client's next try.
func (u *udpWorker) ask(stats *serviceStats, why eviction) {
	others := len(u.proxy.workers) - 1
	if u.asking || others == 0 {
		return
	}
	u.asking = true
	u.asked++
	other := u.proxy.workers[(u.id+1+u.asked%others)%len(u.proxy.workers)]
	other.loop.Post(func() {
		if why == evictService {
			other.udp.evict(other.udp.tables[stats], why)
		} else {
			other.udp.evict(other.udp.fullest(), why)
		}
		u.loop.Post(func() { u.asking = false })
	})
}

// evict ends the flow of t that is missed least, if it has one.
func (u *udpWorker) evict(t *udpTable, why eviction) bool {
	if t == nil {
		return false
	}
	f := t.oldest()
	if f == nil {
		return false
	}
	f.part.shard.udp.evicted[why].Add(1)
	u.end(f, Evicted)
	return true
}

// fullest is the table that is to give up a flow for another service: the one
// whose candidate has been quiet for the longest, unconfirmed ones before all
// others.
func (u *udpWorker) fullest() *udpTable {
	var best *udpTable
	for _, t := range u.tables {
		f := t.oldest()
		if f == nil {
			continue
		}
		if best == nil {
			best = t
			continue
		}
		b := best.oldest()
		if f.confirmed != b.confirmed {
			if b.confirmed {
				best = t
			}
		} else if f.lastActive < b.lastActive {
			best = t
		}
	}
	return best
}
