package admission

// A Verdict is what becomes of a new flow.
type Verdict uint8

const (
	// Admitted is to let it in, and to call Done when it ends.
	Admitted Verdict = iota
	// Denied is an address that the lists refuse.
	Denied
	// TooMany is a client that has as many flows as it may have.
	TooMany
	// TooFast is a client that opens flows faster than it may.
	TooFast
	// TableFull is to let it in. There was no room to remember the client, so the
	// flow does not count, and Done must not be called for it.
	TableFull
)

// OK says whether the flow may be opened.
func (v Verdict) OK() bool { return v == Admitted || v == TableFull }

func (v Verdict) String() string {
	switch v {
	case Admitted:
		return "admitted"
	case Denied:
		return "denied"
	case TooMany:
		return "too-many"
	case TooFast:
		return "too-fast"
	case TableFull:
		return "table-full"
	}
	return "unknown"
}
