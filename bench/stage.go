package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/bench/procstat"
	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/rules"
)

// clientAddresses is how many addresses the clients use in turn. With 28,000
// ephemeral ports each, a port comes back only after its TIME_WAIT has long
// begun, and never while it is in use.
const clientAddresses = 32

// stage is where all subjects are measured: the lab, and who has which
// processor.
type stage struct {
	opts      *options
	lab       *lab.Lab
	dir       string // for configuration files
	clients   []netip.Addr
	proxyCPU  int
	clientCPU int
	ksoftirqd int // process of proxyCPU; 0 if it is not to be seen
	rates     rates
}

func newStage(opts *options) (s *stage, err error) {
	s = &stage{opts: opts, rates: rates{}}
	if err := s.splitCPUs(); err != nil {
		return nil, err
	}
	// Inside a container ksoftirqd cannot be seen: then its metric is left out.
	s.ksoftirqd, _ = procstat.Proc.Ksoftirqd(s.proxyCPU)
	first, err := netip.ParsePrefix(lab.ClientRange4)
	if err != nil {
		return nil, err
	}
	addr := first.Addr()
	for range clientAddresses {
		addr = addr.Next()
		s.clients = append(s.clients, addr)
	}
	if s.dir, err = os.MkdirTemp("", "tproxyd-bench-"); err != nil {
		return nil, err
	}
	if s.lab, err = lab.New(lab.Config{}); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if err := s.lab.Proxy.Do(s.deliver); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *stage) close() error {
	var err error
	if s.lab != nil {
		err = errors.Join(s.onVIP((*netlink.Handle).AddrDel), s.lab.Close())
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// deliver brings the virtual address and the backend's answers to the proxy.
// The address is put on the loopback interface, as keepalived would put it on
// some interface, because nginx can listen on it in no other way.
func (s *stage) deliver() error {
	if err := s.onVIP((*netlink.Handle).AddrAdd); err != nil {
		return err
	}
	return rules.Apply(rules.Plan{})
}

func (s *stage) onVIP(change func(*netlink.Handle, netlink.Link, *netlink.Addr) error) error {
	nl, err := s.lab.Proxy.Netlink()
	if err != nil {
		return err
	}
	defer nl.Close()
	lo, err := nl.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find link lo: %w", err)
	}
	vip, err := netlink.ParseAddr(lab.VIP4 + "/32")
	if err != nil {
		return err
	}
	if err := change(nl, lo, vip); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("change address %s of lo: %w", vip, err)
	}
	return nil
}

// splitCPUs gives the proxy the last processor that this process may use, and
// everything else, this process included, the first.
func (s *stage) splitCPUs() error {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return os.NewSyscallError("sched_getaffinity", err)
	}
	s.clientCPU = -1
	for cpu := range len(allowed) * 64 {
		if !allowed.IsSet(cpu) {
			continue
		}
		if s.clientCPU < 0 {
			s.clientCPU = cpu
		}
		s.proxyCPU = cpu
	}
	return nil
}

// startBackend starts the backend of TCP in the server.
func (s *stage) startBackend(ctx context.Context) (*process, error) {
	args := []string{partBackend, lab.ServerIP4}
	for _, svc := range tcpServices {
		args = append(args, fmt.Sprint(svc.port))
	}
	return startPart(ctx, s.lab.Server, s.clientCPU, append(args, formatAddrs(s.clients))...)
}

// target is where the clients of a subject connect to.
func (s *stage) target(sub subject, svc service) string {
	if sub.command == nil {
		return fmt.Sprintf("%s:%d", lab.ServerIP4, svc.port)
	}
	return fmt.Sprintf("%s:%d", lab.VIP4, svc.port)
}
