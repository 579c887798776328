package mirror

import (
	"encoding/binary"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// listed is a filter that the kernel has, and what its first action has done.
type listed struct {
	installed
	kind, action          string
	preference            uint16
	packets, bytes, drops uint64
}

// ours says whether we have installed it, now or before a crash.
func (c *listed) ours() bool {
	return c.preference == Preference && c.kind == kindBPF && c.action == kindMirred
}

const (
	kindBPF    = "bpf"
	kindMirred = "mirred"

	statsPackets64 = 8 // TCA_STATS_PKT64
)

func (f *installed) message(handle uint32) *nl.TcMsg {
	return &nl.TcMsg{
		Family: nl.FAMILY_ALL, Ifindex: int32(f.link), Parent: f.parent, Handle: handle,
		Info: netlink.MakeHandle(Preference, nl.Swap16(unix.ETH_P_ALL)),
	}
}

// add installs the filter, with a handle that is free.
func (f *installed) add(program []bpf.RawInstruction, to int) error {
	found, err := list(f.link, f.parent)
	if err != nil {
		return err
	}
	for _, c := range found {
		if c.preference == Preference && !c.ours() {
			return fmt.Errorf("a filter of type %s has preference %d: %w", c.kind, Preference, ErrConflict)
		}
		if c.preference == Preference {
			f.handle = max(f.handle, c.handle)
		}
	}
	f.handle++
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_BPF_OPS_LEN, binary.NativeEndian.AppendUint16(nil, uint16(len(program))))
	options.AddRtAttr(nl.TCA_BPF_OPS, operations(program))
	action := netlink.NewMirredAction(to)
	action.MirredAction = netlink.TCA_EGRESS_MIRROR
	action.Action = netlink.TC_ACT_UNSPEC // the filters behind it go on
	if err := netlink.EncodeActions(options.AddRtAttr(nl.TCA_BPF_ACT, nil), []netlink.Action{action}); err != nil {
		return err
	}
	req := nl.NewNetlinkRequest(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(f.message(f.handle))
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(kindBPF)))
	req.AddData(options)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return os.NewSyscallError("netlink(RTM_NEWTFILTER)", err)
	}
	return nil
}

// operations is a program as struct sock_filter.
func operations(program []bpf.RawInstruction) (b []byte) {
	for _, i := range program {
		b = binary.NativeEndian.AppendUint16(b, i.Op)
		b = append(b, i.Jt, i.Jf)
		b = binary.NativeEndian.AppendUint32(b, i.K)
	}
	return b
}

func (f *installed) remove() error {
	req := nl.NewNetlinkRequest(unix.RTM_DELTFILTER, unix.NLM_F_ACK)
	req.AddData(f.message(f.handle))
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(kindBPF)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return os.NewSyscallError("netlink(RTM_DELTFILTER)", err)
}

// list asks for the filters at one end of a clsact qdisc.
func list(link int, parent uint32) ([]listed, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETTFILTER, unix.NLM_F_DUMP)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(link), Parent: parent})
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWTFILTER)
	if err != nil {
		return nil, os.NewSyscallError("netlink(RTM_GETTFILTER)", err)
	}
	var out []listed
	for _, m := range messages {
		head := nl.DeserializeTcMsg(m)
		attrs, err := nl.ParseRouteAttr(m[head.Len():])
		if err != nil {
			return nil, fmt.Errorf("parse filter: %w", err)
		}
		c := listed{installed: installed{link, parent, head.Handle}, preference: uint16(head.Info >> 16)}
		var options []byte
		for _, a := range attrs {
			switch a.Attr.Type {
			case nl.TCA_KIND:
				c.kind = text(a.Value)
			case nl.TCA_OPTIONS:
				options = a.Value
			}
		}
		// The kernel also tells of the group that filters of one preference are in.
		if c.handle == 0 {
			continue
		}
		if c.kind == kindBPF {
			c.readAction(options)
		}
		out = append(out, c)
	}
	return out, nil
}

func text(b []byte) string {
	if n := len(b); n > 0 && b[n-1] == 0 {
		b = b[:n-1]
	}
	return string(b)
}

// readAction reads the first action of a filter, TCA_BPF_ACT.
func (c *listed) readAction(options []byte) {
	action := nested(nested(options, nl.TCA_BPF_ACT), 1)
	c.action = text(nested(action, nl.TCA_ACT_KIND))
	stats := nested(action, nl.TCA_ACT_STATS)
	if b := nested(stats, nl.TCA_STATS_BASIC); len(b) >= 12 {
		c.bytes, c.packets = binary.NativeEndian.Uint64(b), uint64(binary.NativeEndian.Uint32(b[8:]))
	}
	if b := nested(stats, statsPackets64); len(b) >= 8 {
		c.packets = binary.NativeEndian.Uint64(b)
	}
	if b := nested(stats, nl.TCA_STATS_QUEUE); len(b) >= 20 {
		// mirred counts what the other interface did not take as over the limit.
		c.drops = uint64(binary.NativeEndian.Uint32(b[16:]))
	}
}

// nested gives the value of an attribute among others, nil if it is not there.
func nested(b []byte, kind int) []byte {
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil
	}

	for _, a := range attrs {
		if int(a.Attr.Type)&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER) == kind {
			return a.Value
		}
	}
	return nil
}
