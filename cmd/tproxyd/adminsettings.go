package main

import (
	"io/fs"
	"net/netip"

	"github.com/tproxyd/tproxyd/config"
)

// adminSettings is what the configuration says of the admin servers. The daemon
// listens by it, and the commands that talk to the daemon find it.
type adminSettings struct {
	listen netip.AddrPort // zero: none
	write  bool           // whether changes are made over listen
	socket string         // "": none
	mode   fs.FileMode    // of socket
}

func adminSettingsOf(c *config.Config) adminSettings {
	return adminSettings{listen: c.Admin.Listen, write: c.Admin.Write, socket: c.Admin.Socket, mode: c.Admin.SocketMode}
}
