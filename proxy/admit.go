package proxy

import (
	"github.com/tproxyd/tproxyd/internal/admission"
)

// denials are the reasons and drops for what admission does not admit.
var denials = map[admission.Verdict]struct {
	reason Reason
	drop   drop
}{
	admission.Denied:  {Denied, dropRefused},
	admission.TooMany: {ClientLimit, dropClientLimit},
	admission.TooFast: {ClientRate, dropClientRate},
}

// consult asks whether a client may open a flow of pt's service. If the flow
// counts, it is told where.
func (w *worker) consult(pt *part, client endpoint) (admission.Verdict, *admission.Control) {
	c := pt.svc.admission
	if c == nil {
		return admission.Admitted, nil
	}
	v := c.Admit(client.addrPort().Addr(), w.loop.Now())
	switch v {
	case admission.Admitted:
		return v, c
	case admission.TableFull:
		pt.shard.unlimited.Add(1)
	case admission.Denied, admission.TooMany, admission.TooFast:
	}
	return v, nil
}

// admitClient ends f if its client may not open it, and reports whether it may.
func (w *worker) admitClient(f *flow) bool {
	v, counted := w.consult(f.part, f.client)
	f.admission = counted
	if !v.OK() {
		w.end(f, denials[v].reason)
		return false
	}
	f.admitted = true
	w.tapOpened(f)
	return true
}

// dismiss takes back what consult has counted.
func (f *head) dismiss() {
	if f.admission != nil {
		f.admission.Done(f.client.addrPort().Addr())
		f.admission = nil
	}
}
