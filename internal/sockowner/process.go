package sockowner

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Process is one that has a socket open.
type Process struct {
	PID  int
	Name string // /proc/PID/comm; empty if the process has ended meanwhile
}

// processes returns the processes that have sockets open, by the sockets'
// inode, lowest pid first. Whatever cannot be seen is left out: processes end,
// and those of others may be hidden.
func processes(inodes map[uint64]bool) map[uint64][]Process {
	found := map[uint64][]Process{}
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return found
	}
	var pids []int
	for _, dir := range dirs {
		if pid, err := strconv.Atoi(dir.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	for _, pid := range pids {
		var name string
		for inode := range openSockets(pid, inodes) {
			if name == "" {
				name = processName(pid)
			}
			found[inode] = append(found[inode], Process{PID: pid, Name: name})
		}
	}
	return found
}

// openSockets returns those of inodes that the process has open.
func openSockets(pid int, inodes map[uint64]bool) map[uint64]bool {
	open := map[uint64]bool{}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		return open // it is another user's, or has ended
	}
	for _, fd := range fds {
		// Closed meanwhile if this fails, and then it reads as no socket.
		target, _ := os.Readlink(filepath.Join(dir, fd.Name()))
		number, isSocket := strings.CutPrefix(strings.TrimSuffix(target, "]"), "socket:[")
		if inode, err := strconv.ParseUint(number, 10, 64); isSocket && err == nil && inodes[inode] {
			open[inode] = true
		}
	}
	return open
}

// processName is the name of a process, fit for a message of one line: it may
// be any 15 bytes (prctl(2), PR_SET_NAME).
func processName(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	quoted := strconv.QuoteToGraphic(strings.TrimSuffix(string(text), "\n"))
	return quoted[1 : len(quoted)-1]
}
