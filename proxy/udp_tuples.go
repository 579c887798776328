package proxy

import "sync"

const tupleShards = 64

// tupleSet holds the addresses and ports of the upstream sockets of all
// workers' UDP flows. The kernel refuses no second UDP socket on a 4-tuple, and
// the newer one would get the older one's replies. Only the beginning and the
// end of a flow come here.
type tupleSet [tupleShards]struct {
	mu  sync.Mutex
	set map[addrPair]struct{}
}

func (s *tupleSet) shard(p addrPair) int {
	return int(p.from.port^p.from.port>>8^uint16(p.from.ip[15])^uint16(p.to.ip[15])) % tupleShards
}

// claim takes p, or reports false if it is taken.
func (s *tupleSet) claim(p addrPair) bool {
	sh := &s[s.shard(p)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.set == nil {
		sh.set = map[addrPair]struct{}{}
	}
	before := len(sh.set)
	sh.set[p] = struct{}{}
	return len(sh.set) > before
}

// release gives p back.
func (s *tupleSet) release(p addrPair) {
	sh := &s[s.shard(p)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	delete(sh.set, p)
}

// has reports whether p is taken.
func (s *tupleSet) has(p addrPair) bool {
	sh := &s[s.shard(p)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	_, taken := sh.set[p]
	return taken
}
