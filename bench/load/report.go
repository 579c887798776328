package load

// ClientReport is what the client answers to every command. Counters run from
// the start of the process; the quantiles from the last begin.
type ClientReport struct {
	TimeNS     int64  `json:"time_ns"` // monotonic, since the start of the process
	Flows      int    `json:"flows"`   // that have finished an exchange or carried bytes
	Operations uint64 `json:"operations"`
	Bytes      uint64 `json:"bytes"` // of streams, received
	P50NS      int64  `json:"p50_ns"`
	P99NS      int64  `json:"p99_ns"`
	Errors     uint64 `json:"errors"`
	FirstError string `json:"first_error,omitempty"`
}

// BackendReport is what the backend answers to stat. Counters run from the
// start of the process.
type BackendReport struct {
	TimeNS      int64  `json:"time_ns"` // monotonic, since the start of the process
	Accepted    uint64 `json:"accepted"`
	Foreign     uint64 `json:"foreign"` // accepted from an address that is no client's
	ForeignPeer string `json:"foreign_peer,omitempty"`
	Bytes       uint64 `json:"bytes"` // of streams, received
	Errors      uint64 `json:"errors"`
	FirstError  string `json:"first_error,omitempty"`
}

// DatagramReport is what both ends answer about datagrams. Its counters run from
// the last start; the errors from the start of the process. Times are those of
// CLOCK_MONOTONIC, the same for all processes.
type DatagramReport struct {
	TimeNS int64  `json:"time_ns"`
	Epoch  uint32 `json:"epoch"`

	Sent        uint64 `json:"sent"`
	FirstSentNS int64  `json:"first_sent_ns"`
	LastSentNS  int64  `json:"last_sent_ns"`

	Received        uint64 `json:"received"` // each counts once
	Duplicates      uint64 `json:"duplicates"`
	Reordered       uint64 `json:"reordered"` // came behind one with a higher number
	Flows           int    `json:"flows"`     // of which at least one came
	FirstReceivedNS int64  `json:"first_received_ns"`
	LastReceivedNS  int64  `json:"last_received_ns"`
	Overflow        uint64 `json:"overflow"` // lost by the queue of this end (SO_RXQ_OVFL)

	Foreign     uint64 `json:"foreign"` // not from the address and port of its sender
	ForeignPeer string `json:"foreign_peer,omitempty"`
	Errors      uint64 `json:"errors"`
	FirstError  string `json:"first_error,omitempty"`
}
