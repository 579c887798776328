package config

// docMirror has only the keys of its destination.
type docMirror struct {
	Name          string        `toml:"name" json:"name"`
	Interfaces    []string      `toml:"interfaces" json:"interfaces"`
	ToInterface   string        `toml:"to_interface,omitempty" json:"to_interface,omitempty"`
	Collector     string        `toml:"collector,omitempty" json:"collector,omitempty"`
	Encapsulation Encapsulation `toml:"encapsulation,omitempty" json:"encapsulation,omitempty"`
	VNI           *uint32       `toml:"vni,omitempty" json:"vni,omitempty"`
	Key           *uint32       `toml:"key,omitempty" json:"key,omitempty"`
	Session       *uint32       `toml:"session,omitempty" json:"session,omitempty"`
	Filter        string        `toml:"filter" json:"filter"`
	Services      []string      `toml:"services" json:"services"`
	SnapLength    *int          `toml:"snap_length,omitempty" json:"snap_length,omitempty"`
	Rate          *string       `toml:"rate,omitempty" json:"rate,omitempty"`
	Engine        Engine        `toml:"engine" json:"engine"`
}

func (m *Mirror) document() docMirror {
	d := docMirror{
		Name: m.Name, Interfaces: m.Interfaces, ToInterface: m.ToInterface,
		Encapsulation: m.Encapsulation, Filter: m.Filter, Services: append([]string{}, m.Services...), Engine: m.Engine,
	}
	if m.Collector.IsValid() {
		d.Collector = m.Collector.String()
	}
	switch m.Encapsulation {
	case EncapsulationVXLAN:
		d.VNI = &m.ID
	case EncapsulationGRE:
		d.Key = &m.ID
	case EncapsulationERSPAN:
		d.Session = &m.ID
	}
	if m.Engine == EngineUser {
		rate := formatBitRate(m.Rate)
		d.SnapLength, d.Rate = &m.SnapLength, &rate
	}
	return d
}
