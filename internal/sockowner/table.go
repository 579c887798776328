package sockowner

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// entry is one line of /proc/net/tcp and the like.
type entry struct {
	local netip.AddrPort
	state uint8 // as in net/tcp_states.h; an unconnected UDP socket has TCP_CLOSE
	uid   uint32
	inode uint64 // 0: the socket has no file any more, or not yet
}

const listening = 10 // TCP_LISTEN

// readTable returns the entries of a file that keep wants. A kernel without
// the address family has no file, which is no error.
func readTable(file string, keep func(entry) bool) ([]entry, error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	all, err := parseTable(f, keep)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return all, nil
}

// parseTable reads all lines after the head.
func parseTable(r io.Reader, keep func(entry) bool) ([]entry, error) {
	var all []entry
	lines := bufio.NewScanner(r)
	for n := 0; lines.Scan(); n++ {
		if n == 0 {
			continue // the names of the columns
		}
		e, err := parseEntry(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		if keep(e) {
			all = append(all, e)
		}
	}
	return all, lines.Err()
}

// parseEntry reads a line: slot, local and remote address, state, the two
// queues, the timer, retransmits, uid, timeout, inode, and what we have no use
// for (tcp4_seq_show and udp4_seq_show in the kernel).
func parseEntry(line string) (entry, error) {
	fields := strings.Fields(line)
	if len(fields) < 10 {
		return entry{}, fmt.Errorf("%d fields, want at least 10", len(fields))
	}
	local, err := parseAddrPort(fields[1])
	if err != nil {
		return entry{}, err
	}
	state, err := strconv.ParseUint(fields[3], 16, 8)
	if err != nil {
		return entry{}, fmt.Errorf("state: %w", err)
	}
	uid, err := strconv.ParseUint(fields[7], 10, 32)
	if err != nil {
		return entry{}, fmt.Errorf("uid: %w", err)
	}
	inode, err := strconv.ParseUint(fields[9], 10, 64)
	if err != nil {
		return entry{}, fmt.Errorf("inode: %w", err)
	}
	return entry{local: local, state: uint8(state), uid: uint32(uid), inode: inode}, nil
}

// parseAddrPort reads an address as the kernel prints it: words of 32 bits as
// numbers of this machine, and the port.
func parseAddrPort(s string) (netip.AddrPort, error) {
	address, port, found := strings.Cut(s, ":")
	if !found {
		return netip.AddrPort{}, fmt.Errorf("address %q has no port", s)
	}
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port: %w", err)
	}
	words, err := hex.DecodeString(address)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("address: %w", err)
	}
	if len(words) != 4 && len(words) != 16 {
		return netip.AddrPort{}, fmt.Errorf("address %q has %d bytes", s, len(words))
	}
	for i := 0; i < len(words); i += 4 {
		binary.NativeEndian.PutUint32(words[i:], binary.BigEndian.Uint32(words[i:]))
	}
	ip, _ := netip.AddrFromSlice(words) // 4 or 16 bytes
	return netip.AddrPortFrom(ip, uint16(n)), nil
}
