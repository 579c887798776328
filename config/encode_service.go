package config

import "net/netip"

// docService has only the keys that do something for it: those that may be left
// out are of one protocol, of some algorithms, of services with backends or of
// other keys. No duration is written as "", and a number may be 0.
type docService struct {
	Name                 string        `toml:"name" json:"name"`
	Protocol             Protocol      `toml:"protocol" json:"protocol"`
	Mode                 Mode          `toml:"mode" json:"mode"`
	Listen               []string      `toml:"listen" json:"listen"`
	Source               Source        `toml:"source" json:"source"`
	Announce             *bool         `toml:"announce,omitempty" json:"announce,omitempty"`
	AnnounceInterface    *string       `toml:"announce_interface,omitempty" json:"announce_interface,omitempty"`
	ConnectTimeout       string        `toml:"connect_timeout,omitempty" json:"connect_timeout,omitempty"`
	IdleTimeout          string        `toml:"idle_timeout" json:"idle_timeout"`
	UnrepliedTimeout     string        `toml:"unreplied_timeout,omitempty" json:"unreplied_timeout,omitempty"`
	HalfCloseTimeout     string        `toml:"half_close_timeout,omitempty" json:"half_close_timeout,omitempty"`
	MaxLifetime          string        `toml:"max_lifetime" json:"max_lifetime"`
	Keepalive            string        `toml:"keepalive,omitempty" json:"keepalive,omitempty"`
	UserTimeout          string        `toml:"user_timeout,omitempty" json:"user_timeout,omitempty"`
	Retries              *int          `toml:"retries,omitempty" json:"retries,omitempty"`
	MaxConnections       *int          `toml:"max_connections,omitempty" json:"max_connections,omitempty"`
	Responses            *int          `toml:"responses,omitempty" json:"responses,omitempty"`
	Requests             *int          `toml:"requests,omitempty" json:"requests,omitempty"`
	MaxFlows             *int          `toml:"max_flows,omitempty" json:"max_flows,omitempty"`
	Balance              Algorithm     `toml:"balance,omitempty" json:"balance,omitempty"`
	Hash                 Hash          `toml:"hash,omitempty" json:"hash,omitempty"`
	MaglevTableSize      *int          `toml:"maglev_table_size,omitempty" json:"maglev_table_size,omitempty"`
	HashSeed             *uint64       `toml:"hash_seed,omitempty" json:"hash_seed,omitempty"`
	SlowStart            string        `toml:"slow_start,omitempty" json:"slow_start,omitempty"`
	OnBackendDown        OnBackendDown `toml:"on_backend_down,omitempty" json:"on_backend_down,omitempty"`
	Panic                Panic         `toml:"panic,omitempty" json:"panic,omitempty"`
	QueueSize            *int          `toml:"queue_size,omitempty" json:"queue_size,omitempty"`
	QueueTimeout         string        `toml:"queue_timeout,omitempty" json:"queue_timeout,omitempty"`
	ResolveInterval      string        `toml:"resolve_interval,omitempty" json:"resolve_interval,omitempty"`
	ProxyProtocol        ProxyProtocol `toml:"proxy_protocol" json:"proxy_protocol"`
	ProxyProtocolFrom    []string      `toml:"proxy_protocol_from,omitempty" json:"proxy_protocol_from,omitempty"`
	ProxyProtocolTimeout string        `toml:"proxy_protocol_timeout,omitempty" json:"proxy_protocol_timeout,omitempty"`
	SendProxy            SendProxy     `toml:"send_proxy" json:"send_proxy"`
	ClientHelloTimeout   string        `toml:"client_hello_timeout,omitempty" json:"client_hello_timeout,omitempty"`
	ClientHelloMax       *int          `toml:"client_hello_max,omitempty" json:"client_hello_max,omitempty"`
	Admission            *docAdmission `toml:"admission,omitempty" json:"admission,omitempty"`
	Health               *docHealth    `toml:"health,omitempty" json:"health,omitempty"`
	Ejection             *docEjection  `toml:"ejection,omitempty" json:"ejection,omitempty"`
	Shadow               *docShadow    `toml:"shadow,omitempty" json:"shadow,omitempty"`
	Route                []docRoute    `toml:"route,omitempty" json:"route,omitempty"`
	Backend              []docBackend  `toml:"backend,omitempty" json:"backend"`
}

type docRoute struct {
	Name    string       `toml:"name" json:"name"`
	SNI     []string     `toml:"sni,omitempty" json:"sni,omitempty"`
	ALPN    []string     `toml:"alpn,omitempty" json:"alpn,omitempty"`
	Backend []docBackend `toml:"backend" json:"backend"`
}

type docBackend struct {
	Name           string `toml:"name" json:"name"`
	Address        string `toml:"address,omitempty" json:"address,omitempty"`
	SRV            string `toml:"srv,omitempty" json:"srv,omitempty"`
	Weight         *int   `toml:"weight,omitempty" json:"weight,omitempty"` // not with SRV
	Backup         bool   `toml:"backup" json:"backup"`
	MaxConnections *int   `toml:"max_connections,omitempty" json:"max_connections,omitempty"`
	MaxFlows       *int   `toml:"max_flows,omitempty" json:"max_flows,omitempty"`
}

func (s Service) document() docService {
	d := docService{
		Name:              s.Name,
		Protocol:          s.Protocol,
		Mode:              s.Mode,
		Listen:            compact(s.Listen),
		Source:            s.Source,
		IdleTimeout:       formatDuration(s.IdleTimeout),
		MaxLifetime:       formatDuration(s.MaxLifetime),
		ProxyProtocol:     s.ProxyProtocol,
		ProxyProtocolFrom: texts(s.ProxyProtocolFrom),
		SendProxy:         s.SendProxy,
		Health:            s.Health.document(),
		Ejection:          s.Ejection.document(),
		Admission:         s.Admission.document(s.Protocol),
		Shadow:            s.Shadow.document(),
		Backend:           documents(s.Backends, s.Protocol),
	}
	switch s.Protocol {
	case ProtocolTCP:
		s.documentTCP(&d)
	case ProtocolUDP:
		d.UnrepliedTimeout = formatDuration(s.UnrepliedTimeout)
		d.Responses, d.Requests, d.MaxFlows = &s.Responses, &s.Requests, &s.MaxFlows
	}
	if s.Mode == ModeVIP {
		d.Announce = &s.Announce
	}
	if s.Announce {
		d.AnnounceInterface = &s.AnnounceInterface
	}
	if s.Balance != "" {
		s.documentPool(&d)
	}
	for _, r := range s.Routes {
		d.Route = append(d.Route, docRoute{Name: r.Name, SNI: r.SNI, ALPN: r.ALPN, Backend: documents(r.Backends, s.Protocol)})
	}
	return d
}

// documentTCP adds the keys of TCP services.
func (s Service) documentTCP(d *docService) {
	d.ConnectTimeout = formatDuration(s.ConnectTimeout)
	d.HalfCloseTimeout = formatDuration(s.HalfCloseTimeout)
	d.Keepalive = formatDuration(s.Keepalive)
	d.UserTimeout = formatDuration(s.UserTimeout)
	d.Retries, d.MaxConnections = &s.Retries, &s.MaxConnections
	if s.ProxyProtocol != ProxyProtocolOff {
		d.ProxyProtocolTimeout = formatDuration(s.ProxyProtocolTimeout)
	}
	if len(s.Routes) > 0 {
		d.ClientHelloTimeout, d.ClientHelloMax = formatDuration(s.ClientHelloTimeout), &s.ClientHelloMax
	}
	if s.Balance != "" {
		d.QueueSize, d.QueueTimeout = &s.QueueSize, formatDuration(s.QueueTimeout)
	}
}

// documentPool adds the keys of services with backends.
func (s Service) documentPool(d *docService) {
	d.Balance, d.Hash, d.OnBackendDown, d.Panic = s.Balance, s.Hash, s.OnBackendDown, s.Panic
	if s.Balance.takes("maglev_table_size") {
		d.MaglevTableSize = &s.MaglevTableSize
	}
	if s.Balance.takes("hash_seed") {
		d.HashSeed = &s.HashSeed
	}
	if s.Balance.takes("slow_start") {
		d.SlowStart = formatDuration(s.SlowStart)
	}
	if s.has(Backend.Discovered) {
		d.ResolveInterval = formatDuration(s.ResolveInterval)
	}
}

func documents(backends []Backend, protocol Protocol) []docBackend {
	out := make([]docBackend, len(backends))
	for i, b := range backends {
		d := docBackend{Name: b.Name, SRV: b.SRV, Backup: b.Backup}
		if b.SRV == "" {
			d.Address, d.Weight = b.target(), &b.Weight
		}
		if protocol == ProtocolUDP {
			d.MaxFlows = &b.Limit
		} else {
			d.MaxConnections = &b.Limit
		}
		out[i] = d
	}
	return out
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
