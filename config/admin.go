package config

import (
	"io/fs"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// maxSocketPath is what sun_path holds besides the null byte, unix(7).
const maxSocketPath = 107

// readAdmin reads [admin].
func (t table) readAdmin() Admin {
	a := Admin{
		Listen:     t.adminListen(),
		Socket:     t.socket(),
		SocketMode: t.fileMode("socket_mode"),
	}
	if a.Socket == "" {
		t.idle("socket_mode", "add socket with a path, or remove socket_mode", "there is no socket")
	}
	write, given := t.values["write"]
	a.Write = t.boolean("write") && a.Listen.IsValid()
	loopback := a.Listen.Addr().IsLoopback()
	switch {
	case !given:
		a.Write = loopback
	case write == true && t.values["listen"] == "":
		t.r.failf(t.at("write"), "remove it, or give listen an address", "there is no TCP address to write over")
	case a.Write && !loopback:
		t.r.warnf(t.at("write"), "write write = false, and use socket",
			"whoever reaches %s can change what the daemon does", a.Listen)
	}
	return a
}

// adminListen gives the admin address; "" switches it off.
func (t table) adminListen() netip.AddrPort {
	s, given, ok := t.text("listen")
	if !ok {
		return netip.AddrPort{}
	}
	if !given {
		return netip.MustParseAddrPort(t.field("listen").value.(string))
	}
	if s == "" {
		return netip.AddrPort{}
	}
	addr, bad := parseAddrPort(s)
	if bad != nil {
		t.r.failf(t.at("listen"), bad.remedy+` (or "" for no admin listener)`, "%s", bad.msg)
	}
	return addr
}

// socket gives the path of the admin socket; "" for none.
func (t table) socket() string {
	s, _, ok := t.text("socket")
	if !ok || s == "" {
		return ""
	}
	const remedy = `write an absolute path, such as "/run/tproxyd/admin.sock", or "" for none`
	switch {
	case !filepath.IsAbs(s):
		t.r.failf(t.at("socket"), remedy, "%s is no absolute path", quote(s))
	case len(s) > maxSocketPath:
		t.r.failf(t.at("socket"), "write a shorter path", "%s has %d bytes, more than %d", quote(s), len(s), maxSocketPath)
	case strings.ContainsRune(s, 0) || strings.HasSuffix(s, "/"):
		t.r.failf(t.at("socket"), remedy, "%s is no path of a file", quote(s))
	}
	return s
}

// fileMode gives permission bits, which are octal in quotes as chmod(1) has
// them: TOML would take 0660 for a mistake, and 660 for a decimal number.
func (t table) fileMode(key string) fs.FileMode {
	s, given, ok := t.text(key)
	if !given || !ok {
		s = t.field(key).value.(string)
	}
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > uint64(fs.ModePerm) {
		t.r.failf(t.at(key), "write three octal digits after a 0, such as "+t.field(key).example(), "%s is no file mode", quote(s))
		return 0
	}
	return fs.FileMode(n)
}
