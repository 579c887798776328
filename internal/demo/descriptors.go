package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// descriptors counts those of a process by kind. Raw sockets, by which the
// workers send replies and ICMP errors of UDP flows and receive nothing, stay, as
// do the packet sockets of mirrors.
type descriptors struct {
	listeners, raw, packet, sockets, pipes int // sockets are all others
}

func (dm *daemon) descriptors() (open descriptors, err error) {
	proc := fmt.Sprintf("/proc/%d", dm.pid())
	listening, err := listeners(proc)
	if err != nil {
		return open, err
	}
	raw, err := rawSockets(proc)
	if err != nil {
		return open, err
	}
	packets, err := packetSockets(proc)
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
		id = strings.Trim(id, "[]")
		_, listens := listening[id]
		_, isRaw := raw[id]
		_, isPacket := packets[id]
		switch {
		case kind == "socket" && listens:
			open.listeners++
		case kind == "socket" && isRaw:
			open.raw++
		case kind == "socket" && isPacket:
			open.packet++
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
	return inState(proc, map[string]string{
		"net/tcp": listening, "net/tcp6": listening, "net/udp": anybody, "net/udp6": anybody,
	})
}

// rawSockets is the same for raw sockets.
func rawSockets(proc string) (map[string]string, error) {
	return inState(proc, map[string]string{"net/raw": anybody, "net/raw6": anybody})
}

// packetSockets are the inodes of packet(7) sockets.
func packetSockets(proc string) (map[string]struct{}, error) {
	const inode = 8 // column
	text, err := os.ReadFile(filepath.Join(proc, "net/packet"))
	if err != nil {
		return nil, err
	}
	found := map[string]struct{}{}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > inode {
			found[f[inode]] = struct{}{}
		}
	}
	return found, nil
}

const (
	listening = "0A" // TCP_LISTEN
	anybody   = "07" // TCP_CLOSE
)

// inState returns the sockets in files that have the state there.
func inState(proc string, files map[string]string) (map[string]string, error) {
	const address, state, inode = 1, 3, 9 // columns
	found := map[string]string{}
	for file, want := range files {
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
