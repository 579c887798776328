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
