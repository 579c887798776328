package zcsend

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/sys"
)

// packetSocket is an AF_PACKET socket that sends and never receives: protocol
// 0 hooks it to no packets (packet(7)).
type packetSocket struct{ fd int }

func openPacketSocket(cfg *Config) (packetSocket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return packetSocket{}, os.NewSyscallError("socket(AF_PACKET)", err)
	}
	p := packetSocket{fd}
	if cfg.Bypass {
		err = p.set("PACKET_QDISC_BYPASS", unix.PACKET_QDISC_BYPASS)
	}
	if err == nil && (cfg.SuperFrames || cfg.Method == GSO) {
		err = p.set("PACKET_VNET_HDR", unix.PACKET_VNET_HDR)
	}
	if err != nil {
		sys.Close(fd)
	}
	return p, err
}

func (p packetSocket) set(name string, option int) error {
	return setOption(p.fd, name, unix.SOL_PACKET, option)
}

// setOption switches an option on.
func setOption(fd int, name string, level, option int) error {
	if e := sys.SetInt(fd, level, option, 1); e != 0 {
		return os.NewSyscallError("setsockopt("+name+")", e)
	}
	return nil
}

// buffer asks for a send buffer of n bytes; without CAP_NET_ADMIN it is
// bounded by net.core.wmem_max, and frames wait a little more often.
func (p packetSocket) buffer(n int) {
	if sys.SetInt(p.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, n) != 0 {
		_ = sys.SetInt(p.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, n)
	}
}

func (p packetSocket) rebind(index int) error {
	return os.NewSyscallError("bind(AF_PACKET)", unix.Bind(p.fd, &unix.SockaddrLinklayer{Ifindex: index}))
}

func (p packetSocket) socket() (int, bool) { return p.fd, true }
