package proxy

import (
	"sync/atomic"

	"github.com/tproxyd/tproxyd/internal/sys"
)

// drop is why datagrams were not passed on.
type drop uint8

const (
	dropNone         drop = iota
	dropOverflow          // the receive queue of a socket was full (SO_RXQ_OVFL)
	dropTruncated         // longer than any datagram can be
	dropSend              // the kernel refused to send it
	dropBufferFull        // the send buffer or the queue of the device was full
	dropTooBig            // larger than the path takes, and not to be fragmented
	dropTableFull         // no room for its flow, and none to be made
	dropNoBackend         // no backend of the client's address family, or none with a weight
	dropBackendsFull      // all backends have as many flows as they may
	dropUnreachable       // no route to any backend
	dropConflict          // its source address and port are in use towards all backends
	dropDenied            // the kernel refuses the source address
	dropResources         // no descriptor or memory for its flow
	dropLoop              // its destination is the proxy itself, or it came from it
	dropRefused           // the lists of prefixes refuse its client
	dropClientLimit       // its client has as many flows as it may
	dropClientRate        // its client opens flows too fast
	dropProxyHeader       // its PROXY header is missing, wrong, or from somebody who may not send one
	dropDraining          // the service takes no new flows
	dropCount
)

var dropNames = [dropCount]string{
	"", "receive_overflow", "truncated", "send_failed", "send_buffer_full", "too_big", "table_full",
	"no_backend", "backends_full", "unreachable", "source_conflict", "source_denied", "resources", "loop",
	"denied", "client_limit", "client_rate", "proxy_header", "draining",
}

// eviction is why a flow had to make room.
type eviction uint8

const (
	evictService     eviction = iota // max_flows of the service
	evictProcess                     // max_flows of the process
	evictDescriptors                 // EMFILE, ENFILE
	evictionCount
)

var evictionNames = [evictionCount]string{"service_max_flows", "max_flows", "descriptors"}

// udpShard is one worker's counters of a UDP service, by direction where there
// are two. The worker writes, others read.
type udpShard struct {
	flows     atomic.Uint64
	closed    [reasonCount]atomic.Uint64
	evicted   [evictionCount]atomic.Uint64
	datagrams [2]atomic.Uint64 // passed on
	bytes     [2]atomic.Uint64
	segmented [2]atomic.Uint64 // datagrams that left by UDP_SEGMENT
	dropped   [dropCount]atomic.Uint64
	duration  histogram
}

// overflow books what a socket's receive queue has lost, now being what
// SO_RXQ_OVFL says in c; it is a count since the socket was made. It returns
// what is to be compared with next time.
func (s *udpShard) overflow(seen uint32, c *sys.Control) uint32 {
	if lost := c.Overflow - seen; c.Overflow != 0 && lost != 0 {
		s.dropped[dropOverflow].Add(uint64(lost))
		return c.Overflow
	}
	return seen
}

// count is the number of datagrams in a run of size bytes.
func count(size, segment int) uint64 {
	if segment <= 0 || size <= segment {
		return 1
	}
	return uint64((size + segment - 1) / segment)
}
