package proxy

import (
	"net/netip"
	"sync"
	"time"
)

// cutBackend ends all flows to a backend of a service.
func (p *Proxy) cutBackend(stats *serviceStats, backend string) {
	for _, w := range p.workers {
		w.loop.Post(func() { w.cutBackend(stats, backend) })
	}
}

func (w *worker) cutBackend(stats *serviceStats, backend string) {
	of := func(f *head) bool {
		return f.part.svc.stats == stats && f.counted && f.backend.name == backend
	}
	w.flows.all(func(f *flow) {
		// One that is connecting meets its end by itself, and may try another
		// backend.
		if f.state == relaying && of(&f.head) {
			w.end(f, BackendDown)
		}
	})
	w.udp.flows.all(func(f *udpFlow) {
		if of(&f.head) {
			w.udp.end(f, BackendDown)
		}
	})
}

// FlowInfo is a flow at one moment.
type FlowInfo struct {
	ID                      uint64
	Service, BackendName    string
	Protocol                Protocol
	Client, Destination     netip.AddrPort
	Backend, UpstreamSource netip.AddrPort // zero: none yet
	State                   string
	Age, Idle               time.Duration
	BytesIn, BytesOut       uint64
	PathIn, PathOut         string
	Worker                  int
}

// flowsAtOnce is how many slots of flows a worker looks at before others have
// their turn.
const flowsAtOnce = 16 // chunks

// EachFlow shows all flows. of returns, for each worker, the function that gets
// its flows; that is called on the worker's thread and must be quick, and keeps
// no pointer. Flows that come and go meanwhile may be missed.
func (p *Proxy) EachFlow(of func(worker int) func(*FlowInfo)) {
	var wait sync.WaitGroup
	for _, w := range p.workers {
		see := of(w.id)
		wait.Go(func() {
			w.inTurns(func(from int) bool {
				return w.flows.some(from, flowsAtOnce, func(f *flow) {
					info := w.describe(f)
					see(&info)
				})
			})
			w.inTurns(func(from int) bool {
				return w.udp.flows.some(from, flowsAtOnce, func(f *udpFlow) {
					info := w.describeUDP(f)
					see(&info)
				})
			})
		})
	}
	wait.Wait()
}

// inTurns calls do on w's thread, from 0 on in steps of flowsAtOnce until it
// returns false, with the thread free in between.
func (w *worker) inTurns(do func(from int) bool) {
	more := make(chan bool, 1)
	for from := 0; ; from += flowsAtOnce {
		if !w.loop.Post(func() { more <- do(from) }) || !<-more {
			return
		}
	}
}

// describeHead has what TCP and UDP flows have in common.
func (w *worker) describeHead(f *head) FlowInfo {
	now := w.loop.Now()
	info := FlowInfo{
		ID: f.id, Service: f.part.svc.Name, Protocol: f.part.svc.Protocol, Worker: w.id,
		Client: f.client.addrPort(), Destination: f.dest.addrPort(), UpstreamSource: f.source.addrPort(),
		Age: time.Duration(now - f.accepted), Idle: time.Duration(now - f.lastActive),
	}
	if f.backend != nil {
		info.Backend, info.BackendName = f.target(), f.backend.name
	}
	return info
}

var stateNames = [...]string{
	greeting: "greeting", queued: "queued", waiting: "connecting", connecting: "connecting",
	relaying: "relaying", resetting: "resetting",
}

func (w *worker) describe(f *flow) FlowInfo {
	info := w.describeHead(&f.head)
	info.State = stateNames[f.state]
	if f.state == relaying && f.halfClosed() {
		info.State = "waiting"
	}
	info.BytesIn, info.BytesOut = f.dirs[client].bytes(), f.dirs[upstream].bytes()
	info.PathIn, info.PathOut = f.dirs[client].path(), f.dirs[upstream].path()
	return info
}

func (w *worker) describeUDP(f *udpFlow) FlowInfo {
	info := w.describeHead(&f.head)
	info.State = "active"
	info.BytesIn, info.BytesOut = f.bytes[client], f.bytes[upstream]
	info.PathIn, info.PathOut = udpPath(f.datagrams[client]), udpPath(f.datagrams[upstream])
	return info
}

// CutFlow ends the flow with an id, by RST on both sides of a TCP flow, and
// reports whether there was one.
func (p *Proxy) CutFlow(id uint64) (found bool) {
	p.each(func(w *worker) {
		if id>>workerShift != uint64(w.id) {
			return
		}
		w.flows.all(func(f *flow) {
			if f.id == id {
				w.end(f, Killed)
				found = true
			}
		})
		w.udp.flows.all(func(f *udpFlow) {
			if f.id == id {
				w.udp.end(f, Killed)
				found = true
			}
		})
	})
	return found
}
