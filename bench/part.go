package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/bench/load"
)

// The parts that this program plays in processes of their own: it runs itself
// with one of these as its first argument.
const (
	partPin     = "bench-pin"     // CPU PROGRAM ARGUMENT...
	partClient  = "bench-client"  // MODE TARGET FLOWS SOURCES
	partProbe   = "bench-probe"   // TARGET SOURCE TIMEOUT
	partBackend = "bench-backend" // ADDRESS EXCHANGE SINK SOURCE CLIENTS
	partGoCopy  = "bench-gocopy"  // LISTEN=BACKEND...
	partShadow  = "bench-shadow"  // ADDRESS PORT
	partChecked = "bench-checked" // ADDRESS PORT COUNT

	partDatagramClient  = "bench-datagram-client"  // TARGET SOURCES FLOWS SIZE BURST; 0 flows ask
	partDatagramBackend = "bench-datagram-backend" // LISTEN SOURCES SIZE
	partGoDatagrams     = "bench-godatagrams"      // LISTEN BACKEND RESPONSES

	partFrames   = "bench-frames"   // INTERFACE METHOD SIZE SEGMENTS RATE
	partPlain    = "bench-plain"    // INTERFACE CALL SIZE
	partRingcap  = "bench-ringcap"  // ENCODING INTERFACE DIRECTORY FILE-BYTES
	partGopacket = "bench-gopacket" // INTERFACE DIRECTORY
	partParse    = "bench-parse"
)

// part plays the part that the arguments ask for, if they ask for one.
func part(args []string) (code int, ok bool) {
	if len(args) == 0 {
		return 0, false
	}
	var err error
	switch args[0] {
	case partPin:
		err = pin(args[1:])
	case partClient:
		err = runClient(args[1:])
	case partProbe:
		err = runProbe(args[1:])
	case partBackend:
		err = runBackend(args[1:])
	case partGoCopy:
		err = runGoCopy(args[1:])
	case partChecked:
		err = runChecked(args[1:])
	case partShadow:
		err = runShadow(args[1:])
	case partDatagramClient:
		err = runDatagramClient(args[1:])
	case partDatagramBackend:
		err = runDatagramBackend(args[1:])
	case partGoDatagrams:
		err = runGoDatagrams(args[1:])
	case partFrames:
		err = runFrames(args[1:])
	case partPlain:
		err = runPlain(args[1:])
	case partRingcap:
		err = runRingcap(args[1:])
	case partGopacket:
		err = runGopacket(args[1:])
	case partParse:
		err = runParse(args[1:])
	default:
		return 0, false
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", args[0], err)
		return exitFailed, true
	}
	return exitOK, true
}

var errArguments = errors.New("wrong arguments")

// pin becomes another program, on one processor and with as many descriptors
// as are allowed. The affinity of the thread that calls execve(2) stays.
func pin(args []string) error {
	if len(args) < 2 {
		return errArguments
	}
	cpu, err := strconv.Atoi(args[0])
	if err != nil {
		return errArguments
	}
	path, err := exec.LookPath(args[1])
	if err != nil {
		return err
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return os.NewSyscallError("getrlimit(RLIMIT_NOFILE)", err)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return os.NewSyscallError("setrlimit(RLIMIT_NOFILE)", err)
	}
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return os.NewSyscallError("sched_setaffinity", err)
	}
	return os.NewSyscallError("execve", syscall.Exec(path, args[1:], os.Environ()))
}

func runClient(args []string) error {
	if len(args) != 4 {
		return errArguments
	}
	target, err1 := netip.ParseAddrPort(args[1])
	flows, err2 := strconv.Atoi(args[2])
	sources, err3 := parseAddrs(args[3])
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	cfg := load.ClientConfig{Mode: load.Mode(args[0]), Target: target, Flows: flows, Sources: sources}
	c, err := load.NewClient(cfg, load.Streams{In: os.Stdin, Out: os.Stdout})
	if err != nil {
		return err
	}
	return c.Run()
}

func runBackend(args []string) error {
	if len(args) != 5 {
		return errArguments
	}
	addr, err := netip.ParseAddr(args[0])
	if err != nil {
		return err
	}
	var ports [3]uint16
	for i, s := range args[1:4] {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			return err
		}
		ports[i] = uint16(n)
	}
	clients, err := parseAddrs(args[4])
	if err != nil {
		return err
	}
	b, err := load.NewBackend(load.BackendConfig{
		Address: addr,
		Ports:   load.Services{Exchange: ports[0], Sink: ports[1], Source: ports[2]},
		Clients: clients,
	}, load.Streams{In: os.Stdin, Out: os.Stdout})
	if err != nil {
		return err
	}
	return b.Run()
}

func parseAddrs(list string) ([]netip.Addr, error) {
	var out []netip.Addr
	for s := range strings.SplitSeq(list, ",") {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

func formatAddrs(addrs []netip.Addr) string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a.String()
	}
	return strings.Join(out, ",")
}

func runProbe(args []string) error {
	if len(args) != 3 {
		return errArguments
	}
	target, err1 := netip.ParseAddrPort(args[0])
	source, err2 := netip.ParseAddr(args[1])
	timeout, err3 := time.ParseDuration(args[2])
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	return load.Probe(target, source, timeout)
}

func runDatagramClient(args []string) error {
	if len(args) != 5 {
		return errArguments
	}
	target, err1 := netip.ParseAddrPort(args[0])
	sources, err2 := netip.ParsePrefix(args[1])
	var n [3]int
	errs := []error{err1, err2}
	for i, s := range args[2:] {
		var err error
		n[i], err = strconv.Atoi(s)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	c, err := load.NewDatagramClient(load.DatagramConfig{
		Target: target, Sources: sources, Flows: n[0], Size: n[1], Burst: n[2], Ask: n[0] == 0,
	}, load.Streams{In: os.Stdin, Out: os.Stdout})
	if err != nil {
		return err
	}
	return c.Run()
}

func runDatagramBackend(args []string) error {
	if len(args) != 3 {
		return errArguments
	}
	listen, err1 := netip.ParseAddrPort(args[0])
	clients, err2 := netip.ParsePrefix(args[1])
	size, err3 := strconv.Atoi(args[2])
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	b, err := load.NewDatagramBackend(load.DatagramBackendConfig{
		Listen: []netip.AddrPort{listen}, Clients: clients, Size: size,
	}, load.Streams{In: os.Stdin, Out: os.Stdout})
	if err != nil {
		return err
	}
	return b.Run()
}
