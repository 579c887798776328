// Package balance chooses a backend for a flow. It is pure: no sockets, no
// clock, no goroutines. A Picker belongs to one worker and is not locked.
package balance
