package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// descriptors counts those of a process by kind.
type descriptors struct {
	listeners, sockets, pipes int // a listener is not among the sockets
}

func (dm *daemon) descriptors() (open descriptors, err error) {
	proc := fmt.Sprintf("/proc/%d", dm.pid())
	listening, err := listeners(proc)
	if err != nil {
		return open, err
	}
	dir := filepath.Join(proc, "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return open, err
	}
	for _, e := range entries {
		// One that has been closed in the meantime is of no kind.
		target, _ := os.Readlink(filepath.Join(dir, e.Name()))
		kind, id, _ := strings.Cut(target, ":")
		switch _, listens := listening[strings.Trim(id, "[]")]; {
		case kind == "socket" && listens:
			open.listeners++
		case kind == "socket":
			open.sockets++
		case kind == "pipe":
			open.pipes++
		}
	}
	return open, nil
}

// listeners returns the listening TCP sockets in the network namespace of a
// process, given by its directory, and the UDP sockets that take datagrams from
// anybody: their addresses by their inodes, both as proc_pid_net(5) shows them.
func listeners(proc string) (map[string]string, error) {
	const (
		address, state, inode = 1, 3, 9    // columns
		listening, anybody    = "0A", "07" // TCP_LISTEN, TCP_CLOSE
	)
	found := map[string]string{}
	for file, want := range map[string]string{
		"net/tcp": listening, "net/tcp6": listening, "net/udp": anybody, "net/udp6": anybody,
	} {
		text, err := os.ReadFile(filepath.Join(proc, file))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > inode && f[state] == want {
				found[f[inode]] = f[address]
			}
		}
	}
	return found, nil
}
