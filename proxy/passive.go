package proxy

// failed books that f's backend failed it. As many in a row as its service
// allows are told to the governor.
func (w *worker) failed(f *head, kind failure) {
	most := f.part.svc.Health.Failures
	if most == 0 || f.part.svc.original() {
		return
	}
	t := f.backend.totals
	if t.failures.Add(1) < int64(most) {
		return
	}
	t.failures.Store(0)
	if !w.proxy.governor.offer(fault{f.part.svc.Name, f.backend.name, kind}) {
		t.failures.Store(int64(most) - 1) // the next one is told
	}
}

// succeeded books that f's backend serves. Mostly there is nothing to book.
func (w *worker) succeeded(f *head) {
	t := f.backend.totals
	if t.failures.Load() != 0 {
		t.failures.Store(0)
	}
	if t.proving.Load() && w.proxy.governor.offer(fault{f.part.svc.Name, f.backend.name, failureNone}) {
		t.proving.Store(false)
	}
}

// offer hands f over without waiting.
func (g *governor) offer(f fault) bool {
	select {
	case g.faults <- f:
		return true
	default:
		return false
	}
}

// judge books what the end of f says of its backend: one that resets a
// connection before its first byte has failed, one that said something or that
// was left in order serves.
func (w *worker) judge(f *flow, why Reason) {
	if f.connected == 0 {
		return
	}
	switch silent := f.dirs[upstream].bytes() == 0; {
	case silent && why == UpstreamReset:
		w.failed(&f.head, failureReset)
	case !silent, why == ClientClose, why == UpstreamClose:
		w.succeeded(&f.head)
	}
}

// failureOf is the kind of failure that the error of a connect is, if it is one
// of the backend's.
func failureOf(r Reason) failure {
	switch r {
	case ConnectRefused, ConnectTimeout:
		return failureConnect
	case ConnectUnreachable:
		return failureUnreachable
	default:
		return failureNone
	}
}
