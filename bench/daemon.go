package main

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/tproxyd/tproxyd/internal/lab"
)

const (
	// fullDenied is how many prefixes its list has.
	fullDenied = 1000
	// checkedBackends is how many backends the daemon of health_200 has.
	checkedBackends = 200
)

// tproxydCommand: the daemon with what is needed to proxy, and nothing else.
func tproxydCommand(o *options, dir string, w work) ([]string, error) {
	return daemonCommand(o.tproxyd, daemonConfig(o, w, ""), dir)
}

// fullCommand: the same daemon with checks every second, a list of prefixes that
// no client is in, and a table to choose a backend from.
func fullCommand(o *options, dir string, w work) ([]string, error) {
	return daemonCommand(o.tproxyd, daemonConfig(o, w, fullTables(w)), dir)
}

// shadowCommand: the same daemon, and a copy of what clients send.
func shadowCommand(o *options, dir string, w work) ([]string, error) {
	return daemonCommand(o.tproxyd, daemonConfig(o, w, shadowTable()), dir)
}

// tapCommand: the same daemon with its recorder armed, for headers.
func tapCommand(o *options, dir string, w work) ([]string, error) {
	recorder := fmt.Sprintf("\n[tap]\n\n  [tap.recorder]\n  memory = \"64MiB\"\n  directory = %q\n", dir)
	return daemonCommand(o.tproxyd, daemonConfig(o, w, "")+recorder, dir)
}

// otherCommand: another build with the configuration of tproxydCommand.
func otherCommand(o *options, dir string, w work) ([]string, error) {
	return daemonCommand(o.other, daemonConfig(o, w, ""), dir)
}

func daemonCommand(program, config, dir string) ([]string, error) {
	path, err := writeConfig(dir, "tproxyd.toml", config)
	return []string{program, "run", "--config", path}, err
}

// daemonConfig: one worker for each processor it may use, which is one. A UDP
// flow keeps the client's port too, with every subject. Each service has tables.
func daemonConfig(o *options, w work, tables string) string {
	var b strings.Builder
	protocol, source := "tcp", o.source
	if w.udp != nil {
		protocol, source = "udp", "client"
	}
	b.WriteString(`[daemon]
workers = 0
drain_timeout = "100ms"

[log]
level = "warn"
access = "off"

[admin]
listen = "127.0.0.1:9180"
`)
	for _, s := range w.services() {
		fmt.Fprintf(&b, `
[[service]]
name = %q
protocol = %q
mode = "vip"
listen = ["%s:%d"]
source = %q
`, s.name, protocol, lab.VIP4, s.port, source)
		if w.udp != nil {
			fmt.Fprintf(&b, "idle_timeout = %q\nunreplied_timeout = %q\nresponses = %d\n", datagramIdle, datagramIdle, s.responses)
		}
		b.WriteString(tables)
		for i, address := range members(w, s) {
			fmt.Fprintf(&b, `
  [[service.backend]]
  name = "b%d"
  address = %q
`, i, address)
		}
	}
	return b.String()
}

// fullTables are what tproxyd-full has beyond tproxyd. The checks go to ports of
// their own, as the backend of the load knows its clients.
func fullTables(w work) string {
	var b strings.Builder
	b.WriteString(`balance = "maglev"

  [service.health]
  type = "tcp"
  interval = "1s"
`)
	if !w.checks {
		fmt.Fprintf(&b, "  port = %d\n", firstCheckedPort)
	}
	b.WriteString("\n  [service.admission]\n  deny = [\n")
	for _, p := range denied() {
		fmt.Fprintf(&b, "    %q,\n", p)
	}
	b.WriteString("  ]\n")
	return b.String()
}

// members are the addresses of a service's backends.
func members(w work, s service) []string {
	if !w.checks {
		return []string{fmt.Sprintf("%s:%d", lab.ServerIP4, s.port)}
	}
	var out []string
	for i := range checkedBackends {
		out = append(out, fmt.Sprintf("%s:%d", lab.ServerIP4, firstCheckedPort+i))
	}
	return out
}

// denied are prefixes of all lengths from 20 to 32, none within another, in
// 198.18.128.0/17 and 198.19.0.0/16: next to the clients' addresses, and none of
// them.
func denied() []netip.Prefix {
	var out []netip.Prefix
	next := uint32(198<<24 | 18<<16 | 128<<8)
	for i := range fullDenied {
		bits := 32 - i%9 // of 24 to 32
		if i%100 == 99 {
			bits = 20 + i/100%4
		}
		size := uint32(1) << (32 - bits)
		next = (next + size - 1) &^ (size - 1)
		addr := netip.AddrFrom4([4]byte{byte(next >> 24), byte(next >> 16), byte(next >> 8), byte(next)})
		out = append(out, netip.PrefixFrom(addr, bits))
		next += size
	}
	return out
}
