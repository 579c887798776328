package ringcap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/tpacket"
)

// socket is the packet socket behind a ring.
type socket struct {
	fd      int
	out     bool // only what this host sends
	fanout  bool
	ifindex int
}

func openSocket(cfg Config) (*socket, error) {
	// Protocol 0 receives nothing until bind.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("socket(AF_PACKET): %w (capturing needs CAP_NET_RAW: AmbientCapabilities= in the unit, or setcap cap_net_raw+ep)", err)
	}
	if err != nil {
		return nil, os.NewSyscallError("socket(AF_PACKET)", err)
	}
	s := &socket{fd: fd, out: cfg.Direction == Out}
	if err := s.configure(cfg); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *socket) close() { _ = unix.Close(s.fd) } // a packet socket has nothing to flush

func (s *socket) set(name string, option, value int) error {
	return os.NewSyscallError("setsockopt("+name+")", unix.SetsockoptInt(s.fd, unix.SOL_PACKET, option, value))
}

// configure sets what has to be there before the ring is.
func (s *socket) configure(cfg Config) error {
	if err := s.set("PACKET_VERSION", unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return err
	}
	if err := s.set("PACKET_RESERVE", unix.PACKET_RESERVE, cfg.reserve()); err != nil {
		return err
	}
	if !cfg.NoOffload {
		if err := s.set("PACKET_VNET_HDR", unix.PACKET_VNET_HDR, 1); err != nil {
			return err
		}
	}
	if cfg.Direction == In {
		if err := s.set("PACKET_IGNORE_OUTGOING", unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return err
		}
	}
	if cfg.Timestamp == Hardware {
		if err := s.set("PACKET_TIMESTAMP", unix.PACKET_TIMESTAMP, unix.SOF_TIMESTAMPING_RAW_HARDWARE); err != nil {
			return err
		}
	}
	return s.setFilter(cfg.Filter)
}

// setRing asks for the ring, and for less while the kernel has no memory.
func (s *socket) setRing(cfg Config) (tpacket.Geometry, error) {
	geo := tpacket.Geometry{BlockSize: cfg.BlockSize, Blocks: cfg.Blocks}
	return allocate(geo, os.Getpagesize(), func(g tpacket.Geometry) error {
		req := g.Request(uint32(cfg.Retire / time.Millisecond))
		return unix.SetsockoptTpacketReq3(s.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req)
	})
}

// allocate tries smaller and smaller geometries while there is no memory.
func allocate(geo tpacket.Geometry, page int, try func(tpacket.Geometry) error) (tpacket.Geometry, error) {
	asked := geo
	for {
		err := try(geo)
		if err == nil {
			return geo, nil
		}
		smaller, ok := geo.Halve(page)
		if !ok || !errors.Is(err, unix.ENOMEM) {
			return geo, fmt.Errorf("allocate %d blocks of %d bytes, tried down to %d of %d: %w",
				asked.Blocks, asked.BlockSize, geo.Blocks, geo.BlockSize, os.NewSyscallError("setsockopt(PACKET_RX_RING)", err))
		}
		geo = smaller
	}
}

// index looks the interface up in the socket's own network namespace.
func (s *socket) index(name string) (int, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(s.fd, unix.SIOCGIFINDEX, req); err != nil {
		return 0, fmt.Errorf("find interface %s: %w", name, os.NewSyscallError("ioctl(SIOCGIFINDEX)", err))
	}
	return int(req.Uint32()), nil
}

// up says whether the interface is up.
func (s *socket) up(name string) (bool, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return false, err
	}
	err = unix.IoctlIfreq(s.fd, unix.SIOCGIFFLAGS, req)
	return err == nil && req.Uint16()&unix.IFF_UP != 0, os.NewSyscallError("ioctl(SIOCGIFFLAGS)", err)
}

// bind starts receiving from the interface, and joins the fanout group, which
// only a bound socket can.
func (s *socket) bind(cfg Config) error {
	index, err := s.index(cfg.Interface)
	if err != nil {
		return err
	}
	all := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL}) // network byte order
	if err := unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}); err != nil {
		return os.NewSyscallError("bind(AF_PACKET)", err)
	}
	s.ifindex = index
	if cfg.Fanout == nil || s.fanout {
		return nil
	}
	mode := unix.PACKET_FANOUT_HASH | unix.PACKET_FANOUT_FLAG_DEFRAG
	if cfg.Fanout.Mode == FanoutCPU {
		mode = unix.PACKET_FANOUT_CPU
	}
	s.fanout = true
	return s.set("PACKET_FANOUT", unix.PACKET_FANOUT, int(cfg.Fanout.ID)|mode<<16)
}

// setFilter gives the kernel a program of classic BPF; none takes everything.
func (s *socket) setFilter(program []bpf.RawInstruction) error {
	if s.out {
		program = outgoing(program)
	}
	if len(program) == 0 {
		err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
		if errors.Is(err, unix.ENOENT) { // there was none
			return nil
		}
		return os.NewSyscallError("setsockopt(SO_DETACH_FILTER)", err)
	}
	filter := make([]unix.SockFilter, len(program))
	for i, ins := range program {
		filter[i] = unix.SockFilter{Code: ins.Op, Jt: ins.Jt, Jf: ins.Jf, K: ins.K}
	}
	fprog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return os.NewSyscallError("setsockopt(SO_ATTACH_FILTER)",
		unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &fprog))
}

// shut makes the kernel refuse every further packet.
func (s *socket) shut() error {
	s.out = false
	return s.setFilter([]bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K, K: 0}})
}

// addStats adds what happened since the last call: the kernel clears its
// counters as it tells them. Its packets include the drops.
func (s *socket) addStats(sum *Stats) error {
	st, err := unix.GetsockoptTpacketStatsV3(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return os.NewSyscallError("getsockopt(PACKET_STATISTICS)", err)
	}
	sum.Packets += uint64(st.Packets)
	sum.Drops += uint64(st.Drops)
	sum.Freezes += uint64(st.Freeze_q_cnt)
	return nil
}

// takeError is the pending error of the socket, such as ENETDOWN, which is
// cleared by reading it.
func (s *socket) takeError() error {
	e, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return os.NewSyscallError("getsockopt(SO_ERROR)", err)
	}
	if e != 0 {
		return unix.Errno(e)
	}
	return nil
}
