package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
)

// record is what the demo reads of an access record.
type record struct {
	FlowID       string `json:"flow_id"`
	Protocol     string `json:"protocol"`
	BytesIn      uint64 `json:"bytes_in"`
	BytesOut     uint64 `json:"bytes_out"`
	DatagramsIn  uint64 `json:"datagrams_in"`
	DatagramsOut uint64 `json:"datagrams_out"`
}

// records takes the access log. The command writes to it.
type records struct {
	mu      sync.Mutex
	partial []byte
	lines   [][]byte
}

// Write implements [io.Writer].
func (r *records) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.partial = append(r.partial, b...)
	for {
		line, rest, found := bytes.Cut(r.partial, []byte("\n"))
		if !found {
			return len(b), nil
		}
		r.lines = append(r.lines, bytes.Clone(line))
		r.partial = rest
	}
}

// all returns the records so far.
func (r *records) all() ([]record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]record, len(r.lines))
	for i, line := range r.lines {
		if err := json.Unmarshal(line, &out[i]); err != nil {
			return nil, fmt.Errorf("parse access record %q: %w", line, err)
		}
		if out[i].FlowID == "" {
			return nil, fmt.Errorf("access record %q has no flow_id", line)
		}
	}
	return out, nil
}

// last is the newest record, as the daemon wrote it.
func (r *records) last() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lines) == 0 {
		return "none"
	}
	return string(r.lines[len(r.lines)-1])
}

// tail keeps the end of the daemon's log.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// Write implements [io.Writer].
func (t *tail) Write(b []byte) (int, error) {
	const keep = 2000
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if extra := len(t.text) - keep; extra > 0 {
		t.text = append(t.text[:0], t.text[extra:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.text))
}
