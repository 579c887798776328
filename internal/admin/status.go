package admin

import (
	"encoding/json"
	"time"
)

// Status is the state of the daemon at one moment, as /api/v1/status gives it.
type Status struct {
	Version       string    `json:"version"`
	Started       time.Time `json:"started"`
	UptimeSeconds float64   `json:"uptime_seconds"`
	PID           int       `json:"pid"`
	Ready         bool      `json:"ready"`
	// ReadyReason tells why it is not ready; empty if it is.
	ReadyReason string         `json:"ready_reason"`
	Config      ConfigStatus   `json:"config"`
	Limits      Limits         `json:"limits"`
	Connections Flows          `json:"connections"` // of TCP
	Flows       Flows          `json:"flows"`       // of UDP
	Services    array[Service] `json:"services"`
	Workers     array[Worker]  `json:"workers"`
}

// ConfigStatus is the configuration file and what became of the last attempt
// to load it.
type ConfigStatus struct {
	Path              string    `json:"path"`
	LastReloadSuccess bool      `json:"last_reload_success"`
	LastReloadTime    time.Time `json:"last_reload_time"`
	// LastError is empty after a success.
	LastError string `json:"last_error"`
}

// Limits are the limits in force, after what the system allows.
type Limits struct {
	MaxConnections int    `json:"max_connections"`
	MaxFlows       int    `json:"max_flows"` // of UDP; 0 without a UDP service
	Descriptors    uint64 `json:"descriptors"`
	MaxPipes       int    `json:"max_pipes"`
}

// Flows counts the flows of one protocol in the process: those there are now,
// and those there were of the services that are configured.
type Flows struct {
	Active int    `json:"active"`
	Total  uint64 `json:"total"`
}

// Service is one service and its counters since it was configured: of connections
// if Protocol is "tcp", of flows if it is "udp".
type Service struct {
	Name     string        `json:"name"`
	Mode     string        `json:"mode"`
	Protocol string        `json:"protocol"`
	Listen   array[string] `json:"listen"`
	Source   string        `json:"source"`
	Active   int           `json:"active"`
	Total    uint64        `json:"total"`
	Rejected uint64        `json:"rejected"`
	BytesIn  uint64        `json:"bytes_in"`
	BytesOut uint64        `json:"bytes_out"`
	Draining bool          `json:"draining"`
	// QueueLength is how many flows wait for a backend with room.
	QueueLength int            `json:"queue_length"`
	Routes      array[string]  `json:"routes"` // their names, in the order of the file
	Backends    array[Backend] `json:"backends"`
	Shadow      *Shadow        `json:"shadow,omitempty"` // nil: flows are not copied
}

// Shadow is the server that gets copies of a service's flows.
type Shadow struct {
	Address string `json:"address"`
	Percent int    `json:"percent"` // of the flows
	Active  int    `json:"active"`
	Total   uint64 `json:"total"`  // copies that ended
	Failed  uint64 `json:"failed"` // and of these, that were given up
	// Mismatches are copies that were answered otherwise than their flow.
	Mismatches uint64 `json:"mismatches"`
	BytesSent  uint64 `json:"bytes_sent"`
}

// Backend is one backend of a service; it counts what its service does.
type Backend struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Active  int    `json:"active"`
	Total   uint64 `json:"total"`
	Failed  uint64 `json:"failed"`

	Route          string       `json:"route"`  // "": the service's own pool
	Weight         int          `json:"weight"` // in force
	Backup         bool         `json:"backup"`
	MaxConnections int          `json:"max_connections"` // 0: no limit; of flows with UDP
	State          BackendState `json:"state"`
	Reason         string       `json:"reason"` // why it is in State, for people
	AdminState     AdminState   `json:"admin_state"`
	// Override tells that the weight or the administrative state are not what
	// the configuration says.
	Override bool `json:"override"`
}

// Worker is one event loop.
type Worker struct {
	ID           int  `json:"id"`
	Connections  int  `json:"connections"`
	AcceptPaused bool `json:"accept_paused"`
}

// array is a slice that is [] in JSON also when it is nil, so that a reader can
// iterate over it without a second thought.
type array[T any] []T

// MarshalJSON implements json.Marshaler.
func (l array[T]) MarshalJSON() ([]byte, error) {
	if l == nil {
		return []byte("[]"), nil
	}
	return json.Marshal([]T(l))
}
