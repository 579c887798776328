package config

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"

	"github.com/BurntSushi/toml"
)

// document is a Config in the words of the file: the one place that gives the
// keys of TOML and JSON output.
type document struct {
	Daemon  docDaemon    `toml:"daemon" json:"daemon"`
	Log     docLog       `toml:"log" json:"log"`
	Admin   docAdmin     `toml:"admin" json:"admin"`
	Service []docService `toml:"service" json:"service"`
}

type docDaemon struct {
	Workers        int    `toml:"workers" json:"workers"`
	MaxConnections int    `toml:"max_connections" json:"max_connections"`
	DrainTimeout   string `toml:"drain_timeout" json:"drain_timeout"`
	Mark           uint32 `toml:"mark" json:"mark"`
}

type docLog struct {
	Level  string `toml:"level" json:"level"`
	Format Format `toml:"format" json:"format"`
	Access Access `toml:"access" json:"access"`
}

type docAdmin struct {
	Listen string `toml:"listen" json:"listen"`
}

type docService struct {
	Name             string       `toml:"name" json:"name"`
	Protocol         string       `toml:"protocol" json:"protocol"`
	Mode             Mode         `toml:"mode" json:"mode"`
	Listen           []string     `toml:"listen" json:"listen"`
	Source           Source       `toml:"source" json:"source"`
	ConnectTimeout   string       `toml:"connect_timeout" json:"connect_timeout"`
	IdleTimeout      string       `toml:"idle_timeout" json:"idle_timeout"`
	HalfCloseTimeout string       `toml:"half_close_timeout" json:"half_close_timeout"`
	MaxLifetime      string       `toml:"max_lifetime" json:"max_lifetime"`
	Keepalive        string       `toml:"keepalive" json:"keepalive"`
	UserTimeout      string       `toml:"user_timeout" json:"user_timeout"`
	Retries          int          `toml:"retries" json:"retries"`
	MaxConnections   int          `toml:"max_connections" json:"max_connections"`
	Backend          []docBackend `toml:"backend,omitempty" json:"backend"`
}

type docBackend struct {
	Name    string         `toml:"name" json:"name"`
	Address netip.AddrPort `toml:"address" json:"address"`
}

// WriteTOML writes the effective configuration, every key with its value. It
// parses back to the same Config.
func (c *Config) WriteTOML(w io.Writer) error {
	enc := toml.NewEncoder(w)
	enc.Indent = ""
	if err := enc.Encode(c.document()); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

// MarshalJSON gives what WriteTOML writes as JSON.
func (c *Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.document()) }

func (c *Config) document() document {
	d := document{
		Daemon: docDaemon{
			Workers:        c.Daemon.Workers,
			MaxConnections: c.Daemon.MaxConnections,
			DrainTimeout:   formatDuration(c.Daemon.DrainTimeout),
			Mark:           c.Daemon.Mark,
		},
		Log: docLog(c.Log),
	}
	if c.Admin.Listen.IsValid() {
		d.Admin.Listen = c.Admin.Listen.String()
	}
	for _, s := range c.Services {
		d.Service = append(d.Service, s.document())
	}
	return d
}

func (s Service) document() docService {
	d := docService{
		Name:             s.Name,
		Protocol:         s.Protocol,
		Mode:             s.Mode,
		Listen:           compact(s.Listen),
		Source:           s.Source,
		ConnectTimeout:   formatDuration(s.ConnectTimeout),
		IdleTimeout:      formatDuration(s.IdleTimeout),
		HalfCloseTimeout: formatDuration(s.HalfCloseTimeout),
		MaxLifetime:      formatDuration(s.MaxLifetime),
		Keepalive:        formatDuration(s.Keepalive),
		UserTimeout:      formatDuration(s.UserTimeout),
		Retries:          s.Retries,
		MaxConnections:   s.MaxConnections,
		Backend:          make([]docBackend, 0, len(s.Backends)),
	}
	for _, b := range s.Backends {
		d.Backend = append(d.Backend, docBackend(b))
	}
	return d
}

// compact writes neighbouring ports of an address as a range.
func compact(addrs []netip.AddrPort) []string {
	out := make([]string, 0, len(addrs))
	for i := 0; i < len(addrs); {
		p := ports{addr: addrs[i].Addr(), lo: addrs[i].Port(), hi: addrs[i].Port()}
		for i++; i < len(addrs) && addrs[i].Addr() == p.addr && int(addrs[i].Port()) == int(p.hi)+1; i++ {
			p.hi++
		}
		out = append(out, p.String())
	}
	return out
}
