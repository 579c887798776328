package proxy

// admit counts a flow to come, and makes room for it if that passes a limit.
func (u *udpWorker) admit(l *udpListener) bool {
	p, stats := u.proxy, l.part.svc.stats
	p.flows.Add(1)
	stats.flows.Add(1)
	// Two at a time, so that a limit that was lowered is reached.
	for range 2 {
		if most := l.part.svc.MaxFlows; most > 0 && stats.flows.Load() > int64(most) && !u.evict(l.table, evictService) {
			return u.refuse(l, evictService)
		}
		if p.flows.Load() > p.maxFlows.Load() && !u.evict(u.fullest(), evictProcess) {
			return u.refuse(l, evictProcess)
		}
	}
	return true
}

// refuse takes back admit's count. All flows are other workers': one of them is
// asked to make room for the client's next try.
func (u *udpWorker) refuse(l *udpListener, why eviction) bool {
	u.proxy.flows.Add(-1)
	stats := l.part.svc.stats
	stats.flows.Add(-1)
	if u.asking || len(u.proxy.workers) == 1 {
		return false
	}
	u.asking = true
	u.asked++
	other := u.proxy.workers[(u.id+1+u.asked%(len(u.proxy.workers)-1))%len(u.proxy.workers)]
	other.loop.Post(func() {
		if why == evictService {
			other.udp.evict(other.udp.tables[stats], why)
		} else {
			other.udp.evict(other.udp.fullest(), why)
		}
		u.loop.Post(func() { u.asking = false })
	})
	return false
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
