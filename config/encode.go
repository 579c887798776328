package config

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/BurntSushi/toml"
)

// document is a Config in the words of the file: the one place that gives the
// keys of TOML and JSON output.
type document struct {
	Daemon   docDaemon    `toml:"daemon" json:"daemon"`
	Log      docLog       `toml:"log" json:"log"`
	Admin    docAdmin     `toml:"admin" json:"admin"`
	Resolver docResolver  `toml:"resolver" json:"resolver"`
	Tap      *docTap      `toml:"tap,omitempty" json:"tap,omitempty"`
	Service  []docService `toml:"service" json:"service"`
	Mirror   []docMirror  `toml:"mirror,omitempty" json:"mirror,omitempty"`
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
	Listen     string `toml:"listen" json:"listen"`
	Write      bool   `toml:"write" json:"write"`
	Socket     string `toml:"socket" json:"socket"`
	SocketMode string `toml:"socket_mode" json:"socket_mode"`
}

type docResolver struct {
	Servers     []string `toml:"servers" json:"servers"`
	Timeout     string   `toml:"timeout" json:"timeout"`
	MinInterval string   `toml:"min_interval" json:"min_interval"`
	MaxInterval string   `toml:"max_interval" json:"max_interval"`
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
		Admin: docAdmin{
			Write:      c.Admin.Write,
			Socket:     c.Admin.Socket,
			SocketMode: fmt.Sprintf("%#o", c.Admin.SocketMode.Perm()),
		},
		Resolver: docResolver{
			Servers:     texts(c.Resolver.Servers),
			Timeout:     formatDuration(c.Resolver.Timeout),
			MinInterval: formatDuration(c.Resolver.MinInterval),
			MaxInterval: formatDuration(c.Resolver.MaxInterval),
		},
	}
	if c.Admin.Listen.IsValid() {
		d.Admin.Listen = c.Admin.Listen.String()
	}
	d.Tap = c.Tap.document()
	for _, s := range c.Services {
		d.Service = append(d.Service, s.document())
	}
	for i := range c.Mirrors {
		d.Mirror = append(d.Mirror, c.Mirrors[i].document())
	}
	return d
}
