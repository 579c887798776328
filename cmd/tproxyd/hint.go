package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// hints say what to do about an error of the kernel. They are added here, once,
// and not where the error arises.
var hints = []struct {
	errno error
	text  string
}{
	{unix.EPERM, "run as root, or grant the capability: AmbientCapabilities=CAP_NET_RAW CAP_NET_BIND_SERVICE in the unit, or setcap cap_net_raw,cap_net_bind_service+ep on the binary"},
	{unix.EACCES, "a port below 1024 needs CAP_NET_BIND_SERVICE: AmbientCapabilities=CAP_NET_RAW CAP_NET_BIND_SERVICE in the unit"},
	{unix.EADDRINUSE, "another socket has that address: ss -lntup, as root, names all of TCP and UDP. A second tproxyd needs addresses of its own"},
	{unix.EADDRNOTAVAIL, "the address family may be switched off: see net.ipv6.conf.all.disable_ipv6"},
	{unix.EAFNOSUPPORT, "this kernel runs without that address family: take its addresses out of the configuration"},
	{unix.EMFILE, "raise LimitNOFILE"},
	{unix.ENOPROTOOPT, "the kernel needs CONFIG_NETFILTER_XT_TARGET_TPROXY or CONFIG_NFT_TPROXY"},
}

// withHint adds what to do about err.
func withHint(err error) error {
	for _, h := range hints {
		if errors.Is(err, h.errno) {
			return fmt.Errorf("%w; %s", err, h.text)
		}
	}
	return err
}
