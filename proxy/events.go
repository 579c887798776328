package proxy

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// eventKind is something a worker tells the operator.
type eventKind uint8

const (
	eventResources    eventKind = iota // the kernel refuses descriptors or memory
	eventAccept                        // accept fails
	eventMark                          // SO_MARK fails
	eventOption                        // another option fails
	eventReplyAddress                  // another socket has the address that replies of UDP flows come from
	eventRaw                           // there is no raw socket
	eventKinds
)

var eventTexts = [eventKinds]string{
	eventResources:    "short of descriptors or memory; accepting pauses and goes on by itself. Raise LimitNOFILE or lower max_connections",
	eventAccept:       "accepting connections fails; it is tried again",
	eventMark:         "upstream socket cannot be marked and is not used; grant CAP_NET_RAW (CAP_NET_ADMIN before kernel 5.17) or set daemon.mark = 0",
	eventOption:       "socket option refused; the flow goes on without it",
	eventReplyAddress: "the address that a UDP client spoke to belongs to another socket of this host; replies leave by a raw socket",
	eventRaw:          "no raw socket: ICMP errors are not passed on, and replies cannot leave from an address that another socket has. Grant CAP_NET_RAW",
}

// event is one message.
type event struct {
	kind    eventKind
	service string
	err     error
}

// eventEvery is the shortest time between two log lines of one kind.
const eventEvery = time.Second

// report tells the operator, without waiting: if nobody takes it, it is one of
// many.
func (p *Proxy) report(e event) {
	select {
	case p.events <- e:
	default:
	}
}

// logEvents writes the workers' messages, at most one a second of each kind.
func (p *Proxy) logEvents(stop <-chan struct{}, done *sync.WaitGroup) {
	defer done.Done()
	var last [eventKinds]time.Time
	var held [eventKinds]int
	for {
		select {
		case e := <-p.events:
			if time.Since(last[e.kind]) < eventEvery {
				held[e.kind]++
				continue
			}
			fields := []zap.Field{zap.Error(e.err)}
			if e.service != "" {
				fields = append(fields, zap.String("service", e.service))
			}
			if held[e.kind] > 0 {
				fields = append(fields, zap.Int("repeated", held[e.kind]))
			}
			p.log.Warn(eventTexts[e.kind], fields...)
			last[e.kind], held[e.kind] = time.Now(), 0
		case <-stop:
			return
		}
	}
}
