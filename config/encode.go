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
	MaxFlows       int    `toml:"max_flows" json:"max_flows"`
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

// docService has only the keys of its protocol and its algorithm: those that may
// be left out are of one protocol, of some algorithms or of services with
// backends. No duration is written as "", and a number may be 0.
type docService struct {
	Name             string       `toml:"name" json:"name"`
	Protocol         Protocol     `toml:"protocol" json:"protocol"`
	Mode             Mode         `toml:"mode" json:"mode"`
	Listen           []string     `toml:"listen" json:"listen"`
	Source           Source       `toml:"source" json:"source"`
	ConnectTimeout   string       `toml:"connect_timeout,omitempty" json:"connect_timeout,omitempty"`
	IdleTimeout      string       `toml:"idle_timeout" json:"idle_timeout"`
	UnrepliedTimeout string       `toml:"unreplied_timeout,omitempty" json:"unreplied_timeout,omitempty"`
	HalfCloseTimeout string       `toml:"half_close_timeout,omitempty" json:"half_close_timeout,omitempty"`
	MaxLifetime      string       `toml:"max_lifetime" json:"max_lifetime"`
	Keepalive        string       `toml:"keepalive,omitempty" json:"keepalive,omitempty"`
	UserTimeout      string       `toml:"user_timeout,omitempty" json:"user_timeout,omitempty"`
	Retries          *int         `toml:"retries,omitempty" json:"retries,omitempty"`
	MaxConnections   *int         `toml:"max_connections,omitempty" json:"max_connections,omitempty"`
	Responses        *int         `toml:"responses,omitempty" json:"responses,omitempty"`
	Requests         *int         `toml:"requests,omitempty" json:"requests,omitempty"`
	MaxFlows         *int         `toml:"max_flows,omitempty" json:"max_flows,omitempty"`
	Balance          Algorithm    `toml:"balance,omitempty" json:"balance,omitempty"`
	Hash             Hash         `toml:"hash,omitempty" json:"hash,omitempty"`
	MaglevTableSize  *int         `toml:"maglev_table_size,omitempty" json:"maglev_table_size,omitempty"`
	HashSeed         *uint64      `toml:"hash_seed,omitempty" json:"hash_seed,omitempty"`
	Backend          []docBackend `toml:"backend,omitempty" json:"backend"`
}

type docBackend struct {
	Name    string         `toml:"name" json:"name"`
	Address netip.AddrPort `toml:"address" json:"address"`
	Weight  int            `toml:"weight" json:"weight"`
	Backup  bool           `toml:"backup" json:"backup"`
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
			MaxFlows:       c.Daemon.MaxFlows,
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
		Name:        s.Name,
		Protocol:    s.Protocol,
		Mode:        s.Mode,
		Listen:      compact(s.Listen),
		Source:      s.Source,
		IdleTimeout: formatDuration(s.IdleTimeout),
		MaxLifetime: formatDuration(s.MaxLifetime),
		Balance:     s.Balance,
		Hash:        s.Hash,
		Backend:     make([]docBackend, 0, len(s.Backends)),
	}
	switch s.Protocol {
	case ProtocolTCP:
		d.ConnectTimeout = formatDuration(s.ConnectTimeout)
		d.HalfCloseTimeout = formatDuration(s.HalfCloseTimeout)
		d.Keepalive = formatDuration(s.Keepalive)
		d.UserTimeout = formatDuration(s.UserTimeout)
		d.Retries, d.MaxConnections = &s.Retries, &s.MaxConnections
	case ProtocolUDP:
		d.UnrepliedTimeout = formatDuration(s.UnrepliedTimeout)
		d.Responses, d.Requests, d.MaxFlows = &s.Responses, &s.Requests, &s.MaxFlows
	}
	if s.Balance != "" && s.Balance.hashes("maglev_table_size") {
		d.MaglevTableSize = &s.MaglevTableSize
	}
	if s.Balance != "" && s.Balance.hashes("hash_seed") {
		d.HashSeed = &s.HashSeed
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
