package zcsend

import (
	"encoding/binary"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/packet"
)

// device is the interface that frames leave by.
type device struct {
	name     string
	index    int
	mtu      int
	ethernet bool
	physical bool // has a driver for hardware: it reads frames by DMA
}

// findDevice looks in the network namespace of the calling thread.
func findDevice(name string) (device, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return device{}, fmt.Errorf("find interface %s: %w", name, err)
	}
	a := link.Attrs()
	return device{
		name: name, index: a.Index, mtu: a.MTU,
		ethernet: a.EncapType == "ether" || a.EncapType == "loopback",
		physical: a.ParentDev != "",
	}, nil
}

// longest is the length of the longest frame: one with a VLAN tag may be four
// bytes longer (packet_extra_vlan_len_allowed()).
func (d *device) longest(tagged bool) int {
	n := d.mtu + packet.EthernetHeader
	if tagged {
		n += packet.VLANTag
	}
	return n
}

func tagged(frame []byte) bool {
	return len(frame) >= packet.EthernetHeader && binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_8021Q
}

// askMTU reads the MTU anew, by any socket of the namespace.
func (d *device) askMTU(fd int) error {
	r, err := unix.NewIfreq(d.name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFMTU, r)
	}
	if err != nil {
		return os.NewSyscallError("ioctl(SIOCGIFMTU)", err)
	}
	d.mtu = int(r.Uint32())
	return nil
}

// askIndex finds an interface of the same name again, by any socket of the
// namespace.
func (d *device) askIndex(fd int) error {
	r, err := unix.NewIfreq(d.name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r)
	}
	if err != nil {
		return os.NewSyscallError("ioctl(SIOCGIFINDEX)", err)
	}
	d.index = int(r.Uint32())
	return nil
}
