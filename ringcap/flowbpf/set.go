package flowbpf

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/ringcap"
)

// everything is a snap length beyond any packet.
const everything = 262144

// Set is a map of flows and the program that reads it.
type Set struct {
	flows   *ebpf.Map
	program *ebpf.Program
}

// key is the map's key as the program builds it: both addresses as 16 bytes,
// both ports, the protocol, padding.
type key [keyLen]byte

const (
	keyLen      = 40
	keyAddrs    = 0
	keyPorts    = 32
	keyProtocol = 36
)

// New loads a program with room for the given number of flows.
func New(flows int) (*Set, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "tap_flows", Type: ebpf.Hash, KeySize: keyLen, ValueSize: 4,
		MaxEntries: uint32(2 * flows), // one for each direction
		Flags:      unix.BPF_F_NO_PREALLOC,
	})
	if err != nil {
		return nil, explain("make map of flows", err)
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "tap_filter", Type: ebpf.SocketFilter, License: "Apache-2.0", Instructions: instructions(m.FD()),
	})
	if err != nil {
		return nil, errors.Join(explain("load filter of flows", err), m.Close())
	}
	return &Set{flows: m, program: p}, nil
}

func explain(doing string, err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%s: %w (it needs CAP_BPF; without, ringcap.FlowSet does the same in user space)", doing, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// Close gives up the set. A ring that has it as its filter keeps the program.
func (s *Set) Close() error { return errors.Join(s.program.Close(), s.flows.Close()) }

// Attach makes the set the filter of a ring.
func (s *Set) Attach(r *ringcap.Ring) error { return r.SetProgram(s.program.FD()) }

// Set enters or changes a flow. A snap length of 0 captures all of it.
func (s *Set) Set(k ringcap.FlowKey, snap uint32) error {
	if snap == 0 {
		snap = everything
	}
	for _, key := range keys(k) {
		if err := s.flows.Put(key[:], snap); err != nil {
			return fmt.Errorf("enter flow %v: %w", k, err)
		}
	}
	return nil
}

// Delete takes a flow out; it need not be there.
func (s *Set) Delete(k ringcap.FlowKey) error {
	for _, key := range keys(k) {
		if err := s.flows.Delete(key[:]); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete flow %v: %w", k, err)
		}
	}
	return nil
}

// keys are those of both directions.
func keys(k ringcap.FlowKey) [2]key {
	var out [2]key
	from, to := k.A, k.B
	for i := range out {
		src, dst := from.Addr().As16(), to.Addr().As16()
		copy(out[i][keyAddrs:], src[:])
		copy(out[i][keyAddrs+16:], dst[:])
		binary.BigEndian.PutUint16(out[i][keyPorts:], from.Port())
		binary.BigEndian.PutUint16(out[i][keyPorts+2:], to.Port())
		out[i][keyProtocol] = k.Protocol
		from, to = to, from
	}
	return out
}
