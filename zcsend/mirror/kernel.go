package mirror

import (
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Preference is the place of our filters among those of tc(8). It is how they
// are known as ours, also after a crash: nobody else should have it.
const Preference = 0x7470

// ErrConflict is tc configuration of somebody else that a kernel mirror would
// have to touch.
var ErrConflict = errors.New("somebody else has it configured")

// KernelConfig of a mirror in the kernel.
type KernelConfig struct {
	Name       string
	Interfaces []string // that are mirrored, both directions
	To         string
	// Filter is a program of classic BPF that returns 0xffffffff for what is to
	// be mirrored and 0 for the rest, as ringcap/filter makes it with Snap
	// 0xffffffff and Metadata. It must not be empty.
	Filter []bpf.RawInstruction
}

// Kernel is a mirror that the kernel runs: at the ends of a clsact qdisc a
// filter (cls_bpf) with the action mirred. Packets go on as if it were not there,
// to the filters of others, too.
type Kernel struct {
	cfg KernelConfig

	mu      sync.Mutex
	filters []installed
	last    Stats // of what has been removed
}

// installed is one filter of ours.
type installed struct {
	link   int
	parent uint32
	handle uint32
}

// The two ends of a clsact qdisc.
var parents = []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS}

// Install makes the kernel mirror, in the network namespace of the calling
// thread, or changes nothing. It needs CAP_NET_ADMIN.
func Install(cfg KernelConfig) (*Kernel, error) {
	k := &Kernel{cfg: cfg}
	if err := k.install(); err != nil {
		return nil, errors.Join(fmt.Errorf("install mirror %q: %w", cfg.Name, err), k.Close())
	}
	return k, nil
}

func (k *Kernel) install() error {
	to, err := netlink.LinkByName(k.cfg.To)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", k.cfg.To, err)
	}
	for _, name := range k.cfg.Interfaces {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find interface %s: %w", name, err)
		}
		if err := addClsact(link); err != nil {
			return err
		}
		for _, parent := range parents {
			f := installed{link: link.Attrs().Index, parent: parent}
			if err := f.add(k.cfg.Filter, to.Attrs().Index); err != nil {
				return errors.Join(fmt.Errorf("mirror %s: %w", name, err), removeEmpty(link))
			}
			k.filters = append(k.filters, f)
		}
	}
	return nil
}

// addClsact makes the qdisc that filters hang on, if it is not there. An ingress
// qdisc is in the same place and has no egress.
func addClsact(link netlink.Link) error {
	name := link.Attrs().Name
	qdiscs, err := netlink.QdiscList(link)
	if err != nil {
		return fmt.Errorf("list qdiscs of %s: %w", name, err)
	}
	for _, q := range qdiscs {
		if q.Attrs().Parent != netlink.HANDLE_CLSACT {
			continue
		}
		if q.Type() == "clsact" {
			return nil
		}
		return fmt.Errorf("%s has a qdisc of type %s, and clsact cannot be beside it: %w", name, q.Type(), ErrConflict)
	}
	if err := netlink.QdiscAdd(clsact(link)); err != nil {
		return fmt.Errorf("add qdisc clsact to %s: %w", name, err)
	}
	return nil
}

func clsact(link netlink.Link) netlink.Qdisc {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}

// removeEmpty removes a clsact qdisc that nobody has a filter on: whoever made
// it, it does nothing.
func removeEmpty(link netlink.Link) error {
	for _, parent := range parents {
		filters, err := list(link.Attrs().Index, parent)
		if err != nil || len(filters) > 0 {
			return err
		}
	}
	err := netlink.QdiscDel(clsact(link))
	if err != nil && !gone(err) {
		return fmt.Errorf("remove qdisc clsact of %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// gone says whether there is nothing any more to remove.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL)
}

// Name is the mirror's.
func (k *Kernel) Name() string { return k.cfg.Name }

// Stats asks the kernel what it has mirrored. A super-frame is one frame; what
// the port did not take is an Overload.
func (k *Kernel) Stats() Stats {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.last
	for _, f := range k.filters {
		found, err := list(f.link, f.parent)
		if err != nil {
			continue // the interface is gone, and its counts
		}
		for _, c := range found {
			if c.ours() && c.handle == f.handle {
				s.add(c)
			}
		}
	}
	return s
}

func (s *Stats) add(c listed) {
	s.Seen += c.packets
	s.Frames += c.packets - min(c.packets, c.drops)
	s.Bytes += c.bytes
	s.Dropped[Overload] += c.drops
}

// Close takes the mirror out of the kernel.
func (k *Kernel) Close() error {
	last := k.Stats()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.last = last
	var errs []error
	links := make(map[int]struct{})
	for _, f := range k.filters {
		if err := f.remove(); err != nil && !gone(err) {
			errs = append(errs, fmt.Errorf("remove mirror %q: %w", k.cfg.Name, err))
		}
		links[f.link] = struct{}{}
	}
	for index := range links {
		if link, err := netlink.LinkByIndex(index); err == nil {
			errs = append(errs, removeEmpty(link))
		}
	}
	k.filters = nil
	return errors.Join(errs...)
}

// Sweep removes what a daemon that crashed has left behind, on all interfaces:
// two daemons with kernel mirrors cannot share a network namespace.
func Sweep() error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	var errs []error
	for _, link := range links {
		n := 0
		for _, parent := range parents {
			found, err := list(link.Attrs().Index, parent)
			if err != nil {
				continue // no clsact
			}
			for _, c := range found {
				if c.ours() {
					n++
					errs = append(errs, c.remove())
				}
			}
		}
		if n > 0 {
			errs = append(errs, removeEmpty(link))
		}
	}
	return errors.Join(errs...)
}
