package tap

import (
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/tpacket"
	"github.com/tproxyd/tproxyd/ringcap"
	"github.com/tproxyd/tproxyd/ringcap/filter"
)

// headersSnap is what the headers of a packet have at most, with two VLAN tags.
const headersSnap = 144

// selector decides for packets. It has no state, so that anybody may ask.
type selector struct {
	Selection
	vm     *bpf.VM
	vlan   bool // the filter looks for tags
	length bool // the filter looks at the length
	byFlow bool // something of flows is selected
}

var vlanWord = regexp.MustCompile(`\bvlan\b`)

func newSelector(s Selection) (*selector, error) {
	x := &selector{Selection: s, vlan: vlanWord.MatchString(s.Filter)}
	x.byFlow = s.Flow != 0 || len(s.Services)+len(s.Backends)+len(s.Clients) > 0 || s.Sample != 0 && s.Sample != 100
	switch {
	case s.Sample < 0 || s.Sample > 100:
		return nil, fmt.Errorf("check selection: sample %d is no percentage", s.Sample)
	case s.Snap < SnapHeaders:
		return nil, fmt.Errorf("check selection: snap length %d", s.Snap)
	case s.Protocol != 0 && s.Protocol != unix.IPPROTO_TCP && s.Protocol != unix.IPPROTO_UDP:
		return nil, fmt.Errorf("check selection: protocol %d is neither TCP nor UDP", s.Protocol)
	case s.Direction > ringcap.Out:
		return nil, fmt.Errorf("check selection: direction %d", s.Direction)
	case s.Filter == "":
		return x, nil
	}
	raw, err := filter.Compile(s.Filter, filter.Options{})
	if err != nil {
		return nil, fmt.Errorf("compile filter: %w", err)
	}
	for _, i := range raw {
		x.length = x.length || i.Op&^uint16(unix.BPF_LDX) == unix.BPF_LEN
	}
	program, _ := bpf.Disassemble(raw)
	if x.vm, err = bpf.NewVM(program); err != nil {
		return nil, fmt.Errorf("load filter: %w", err)
	}
	return x, nil
}

// snapLen is how much of packets the ring has to capture, 0 for all.
func (x *selector) snapLen() int {
	switch {
	case x.Snap == 0 || x.length: // the machine knows no length but that of what it has
		return 0
	case x.Snap == SnapHeaders:
		return headersSnap
	}
	return max(x.Snap, headersSnap) // headers are looked at
}

// takesFlow decides what does not depend on the packet.
func (x *selector) takesFlow(f *Flow) bool {
	switch {
	case x.Flow != 0 && x.Flow != f.ID,
		x.Protocol != 0 && x.Protocol != f.Protocol,
		len(x.Services) > 0 && !slices.Contains(x.Services, f.Service),
		len(x.Backends) > 0 && !slices.Contains(x.Backends, f.Backend),
		len(x.Clients) > 0 && !x.takesClient(f.Client.Addr()),
		x.Sample != 0 && x.Sample < 100 && !sampled(f.ID, x.Sample):
		return false
	}
	return true
}

func (x *selector) takesClient(a netip.Addr) bool {
	a = a.Unmap()
	return slices.ContainsFunc(x.Clients, func(p netip.Prefix) bool { return p.Contains(a) })
}

// sampled says whether a flow is among so many of a hundred.
func sampled(id uint64, percent int) bool {
	// The finalizer of SplitMix64: ids count up.
	id = (id ^ id>>30) * 0xbf58476d1ce4e5b9
	id = (id ^ id>>27) * 0x94d049bb133111eb
	id ^= id >> 31
	return id < math.MaxUint64/100*uint64(percent)
}

// takesStray decides about packets of no flow.
func (x *selector) takesStray() bool { return x.Strays && !x.byFlow }

// takesFrame decides what does not depend on the flow.
func (x *selector) takesFrame(f tpacket.Frame) bool {
	if x.Direction != ringcap.Both && f.Outgoing() != (x.Direction == ringcap.Out) {
		return false
	}
	if x.vm == nil {
		return true
	}
	data := f.Data()
	if v, ok := f.VLAN(); ok && x.vlan && len(data) >= 12 {
		tagged := make([]byte, 0, len(data)+4)
		tagged = append(tagged, data[:12]...)
		tagged = append(tagged, byte(v.TPID>>8), byte(v.TPID), byte(v.TCI>>8), byte(v.TCI))
		data = append(tagged, data[12:]...)
	}
	n, err := x.vm.Run(data)
	return err == nil && n > 0
}

// takes decides about a packet whose leg is l.
func (x *selector) takes(l *leg, f tpacket.Frame) bool {
	switch l {
	case repeated:
		return false
	case nil:
		return x.takesStray() && x.takesFrame(f)
	}
	return x.takesFlow(l.flow.info.Load()) && x.takesFrame(f)
}

// count is how many packets of a batch are taken.
func (x *selector) count(b *batch) (n uint64) {
	view, i := b.view(), 0
	for f := range view.Frames() {
		if x.takes(b.legs[i], f) {
			n++
		}
		i++
	}
	return n
}

// cut is the snap length of a packet.
func (x *selector) cut(f tpacket.Frame) int {
	if x.Snap != SnapHeaders {
		return x.Snap
	}
	var s segment
	if !s.parse(f) {
		return headersSnap
	}
	return s.header
}

// takesEvent decides about an event.
func (x *selector) takesEvent(e *Event) bool {
	return (x.Flow == 0 || x.Flow == e.Flow) &&
		(len(x.Services) == 0 || e.Service == "" || slices.Contains(x.Services, e.Service)) &&
		(len(x.Backends) == 0 || e.Backend == "" || slices.Contains(x.Backends, e.Backend)) &&
		(len(x.Clients) == 0 || !e.Client.IsValid() || x.takesClient(e.Client.Addr()))
}
