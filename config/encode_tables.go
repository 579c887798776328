package config

import "fmt"

type docAdmission struct {
	Allow                   []string `toml:"allow" json:"allow"`
	Deny                    []string `toml:"deny" json:"deny"`
	AllowFile               string   `toml:"allow_file" json:"allow_file"`
	DenyFile                string   `toml:"deny_file" json:"deny_file"`
	MaxConnectionsPerClient *int     `toml:"max_connections_per_client,omitempty" json:"max_connections_per_client,omitempty"`
	MaxFlowsPerClient       *int     `toml:"max_flows_per_client,omitempty" json:"max_flows_per_client,omitempty"`
	RatePerClient           float64  `toml:"rate_per_client" json:"rate_per_client"`
	RateBurst               int      `toml:"rate_burst" json:"rate_burst"`
	ClientPrefixIPv4        int      `toml:"client_prefix_ipv4" json:"client_prefix_ipv4"`
	ClientPrefixIPv6        int      `toml:"client_prefix_ipv6" json:"client_prefix_ipv6"`
	MaxClients              int      `toml:"max_clients" json:"max_clients"`
}

// docHealth has only the keys of its type.
type docHealth struct {
	Type         HealthType  `toml:"type" json:"type"`
	Interval     string      `toml:"interval" json:"interval"`
	FastInterval string      `toml:"fast_interval" json:"fast_interval"`
	Jitter       int         `toml:"jitter" json:"jitter"`
	Timeout      string      `toml:"timeout" json:"timeout"`
	Rise         int         `toml:"rise" json:"rise"`
	Fall         int         `toml:"fall" json:"fall"`
	Initial      Initial     `toml:"initial" json:"initial"`
	Source       CheckSource `toml:"check_source" json:"check_source"`
	SpoofAddress []string    `toml:"spoof_address,omitempty" json:"spoof_address,omitempty"`
	Address      string      `toml:"address" json:"address"`
	Port         uint16      `toml:"port" json:"port"`
	Method       *string     `toml:"method,omitempty" json:"method,omitempty"`
	Path         *string     `toml:"path,omitempty" json:"path,omitempty"`
	Host         *string     `toml:"host,omitempty" json:"host,omitempty"`
	ExpectStatus string      `toml:"expect_status,omitempty" json:"expect_status,omitempty"`
	ExpectBody   *string     `toml:"expect_body,omitempty" json:"expect_body,omitempty"`
	TLS          *bool       `toml:"tls,omitempty" json:"tls,omitempty"`
	ServerName   *string     `toml:"server_name,omitempty" json:"server_name,omitempty"`
	Verify       *bool       `toml:"verify,omitempty" json:"verify,omitempty"`
	MinDays      *int        `toml:"min_days,omitempty" json:"min_days,omitempty"`
	Send         *string     `toml:"send,omitempty" json:"send,omitempty"`
	Expect       *string     `toml:"expect,omitempty" json:"expect,omitempty"`
	Query        string      `toml:"query,omitempty" json:"query,omitempty"`
	QueryType    string      `toml:"query_type,omitempty" json:"query_type,omitempty"`
	ExpectRcode  string      `toml:"expect_rcode,omitempty" json:"expect_rcode,omitempty"`
}

type docEjection struct {
	Failures          int    `toml:"failures" json:"failures"`
	BaseTime          string `toml:"base_time" json:"base_time"`
	MaxTime           string `toml:"max_time" json:"max_time"`
	MaxEjectedPercent int    `toml:"max_ejected_percent" json:"max_ejected_percent"`
}

func (a *Admission) document(protocol Protocol) *docAdmission {
	if a == nil {
		return nil
	}
	d := &docAdmission{
		Allow:            texts(a.AllowInline),
		Deny:             texts(a.DenyInline),
		AllowFile:        a.AllowFile,
		DenyFile:         a.DenyFile,
		RatePerClient:    a.RatePerClient,
		RateBurst:        a.RateBurst,
		ClientPrefixIPv4: a.ClientPrefixIPv4,
		ClientPrefixIPv6: a.ClientPrefixIPv6,
		MaxClients:       a.MaxClients,
	}
	if protocol == ProtocolUDP {
		d.MaxFlowsPerClient = &a.MaxConnectionsPerClient
	} else {
		d.MaxConnectionsPerClient = &a.MaxConnectionsPerClient
	}
	return d
}

func (h *Health) document() *docHealth {
	if h == nil {
		return nil
	}
	d := &docHealth{
		Type:         h.Type,
		Interval:     formatDuration(h.Interval),
		FastInterval: formatDuration(h.FastInterval),
		Jitter:       h.Jitter,
		Timeout:      formatDuration(h.Timeout),
		Rise:         h.Rise,
		Fall:         h.Fall,
		Initial:      h.Initial,
		Source:       h.Source,
		SpoofAddress: texts(h.SpoofAddress),
		Port:         h.Port,
		Query:        h.Query,
		QueryType:    h.QueryType,
		ExpectRcode:  h.ExpectRcode,
	}
	if h.Address.IsValid() {
		d.Address = h.Address.String()
	}
	if h.Type == HealthHTTP {
		d.Method, d.Path, d.Host, d.ExpectBody, d.TLS = &h.Method, &h.Path, &h.Host, &h.ExpectBody, &h.TLS
		d.ExpectStatus = formatStatuses(h.ExpectStatus)
	}
	if h.Type == HealthTLS || h.TLS {
		d.ServerName, d.Verify, d.MinDays = &h.ServerName, &h.Verify, &h.MinDays
	}
	if h.Type == HealthUDP {
		send, expect := formatBytes(h.Send), formatBytes(h.Expect)
		d.Send, d.Expect = &send, &expect
	}
	return d
}

func (e *Ejection) document() *docEjection {
	if e == nil {
		return nil
	}
	return &docEjection{
		Failures:          e.Failures,
		BaseTime:          formatDuration(e.BaseTime),
		MaxTime:           formatDuration(e.MaxTime),
		MaxEjectedPercent: e.MaxEjectedPercent,
	}
}

// texts writes the elements of a list, never nil.
func texts[T fmt.Stringer](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = v.String()
	}
	return out
}
