package proxy

// tapOpened tells of f, which was admitted just now.
func (u *udpWorker) tapOpened(f *udpFlow) {
	if u.tap == nil {
		return
	}
	f.tapped = u.tapTurn
	t := u.tellOf(&f.head)
	t.Peer, t.Local = f.peer.AddrPort(), t.Destination
	u.tap.Opened(t)
}

// tapDialing tells that datagrams of f are about to be sent.
func (u *udpWorker) tapDialing(f *udpFlow) {
	if u.knows(&f.head) {
		u.tap.Dialing(u.tellTry(f))
	}
}

// tellTry is tellOf a flow that is dialled.
func (u *udpWorker) tellTry(f *udpFlow) *TapFlow {
	t := u.tellOf(&f.head)
	t.Retries = max(0, f.tried.Len()-1)
	t.Why = f.whyDialed(t.Retries, false)
	return t
}

// tapFailed tells that f has no upstream socket and why, which it returns.
func (u *udpWorker) tapFailed(f *udpFlow, why drop) drop {
	if u.knows(&f.head) {
		t := u.tellTry(f)
		t.UpstreamSource = f.bound()
		u.tellFailed(t, why.reason())
	}
	return why
}

// tapEnded tells of the end of f.
func (u *udpWorker) tapEnded(f *udpFlow, why Reason) {
	if !u.knows(&f.head) {
		return
	}
	t := u.tellTry(f)
	t.Reason = why
	t.BytesIn, t.BytesOut = f.bytes[client], f.bytes[upstream]
	t.DatagramsIn, t.DatagramsOut = f.datagrams[client], f.datagrams[upstream]
	u.tap.Ended(t)
}

// introduce tells a new tap of f, which is older than that.
func (u *udpWorker) introduce(f *udpFlow) {
	if u.tap == nil || u.knows(&f.head) {
		return
	}
	u.tapOpened(f)
	if f.source == (endpoint{}) {
		u.claimLocal(f, int(f.fds[upstream])) // an error leaves it unknown
	}
	u.tapDialing(f)
}

// reason is why a flow ends that cannot be made.
func (d drop) reason() Reason {
	switch d {
	case dropNoBackend:
		return NoBackend
	case dropBackendsFull:
		return QueueFull
	case dropUnreachable:
		return ConnectUnreachable
	case dropConflict:
		return SourceConflict
	case dropDenied:
		return SourceDenied
	default:
		return ResourcesExhausted
	}
}
