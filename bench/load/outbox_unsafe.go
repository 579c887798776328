package load

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is the kernel's struct mmsghdr: sendmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	len    uint32
}

// link ties the parts of message i together, once.
func (o *outbox) link(i int) {
	h := &o.headers[i].header
	h.Name = (*byte)(unsafe.Pointer(&o.names[i]))
	h.Namelen = unix.SizeofSockaddrInet4
	h.Iov = &o.iovecs[i]
	h.SetIovlen(1)
}

func (o *outbox) setControl(i, length int) {
	h := &o.headers[i].header
	h.Control = unsafe.SliceData(o.controls[i])
	h.SetControllen(length)
}

func (o *outbox) send(fd, first int) (int, syscall.Errno) {
	n, _, e := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&o.headers[first])), uintptr(o.n-first), unix.MSG_NOSIGNAL, 0, 0)
	return int(n), e
}

// putCmsg writes the header of a control message: cmsg(3).
func putCmsg(b []byte, level, kind int32, length int) {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(length))
}

// rawAddr is an IPv4 address in the kernel's layout.
func rawAddr(a netip.AddrPort) unix.RawSockaddrInet4 {
	raw := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.Addr().As4()}
	port := (*[2]byte)(unsafe.Pointer(&raw.Port))
	binary.BigEndian.PutUint16(port[:], a.Port())
	return raw
}
