package config

type docTap struct {
	Enabled     bool         `toml:"enabled" json:"enabled"`
	Interfaces  []string     `toml:"interfaces" json:"interfaces"`
	BlockSize   string       `toml:"block_size" json:"block_size"`
	Blocks      int          `toml:"blocks" json:"blocks"`
	Retire      string       `toml:"retire" json:"retire"`
	Timestamp   TapTimestamp `toml:"timestamp" json:"timestamp"`
	Fanout      TapFanout    `toml:"fanout" json:"fanout"`
	FanoutRings int          `toml:"fanout_rings" json:"fanout_rings"`
	Settle      string       `toml:"settle" json:"settle"`
	Capture     []docCapture `toml:"capture,omitempty" json:"capture,omitempty"`
	Recorder    *docRecorder `toml:"recorder,omitempty" json:"recorder,omitempty"`
}

type docCapture struct {
	Name        string    `toml:"name" json:"name"`
	Directory   string    `toml:"directory" json:"directory"`
	Services    []string  `toml:"services" json:"services"`
	Backends    []string  `toml:"backends" json:"backends"`
	Clients     []string  `toml:"clients" json:"clients"`
	Protocol    Protocol  `toml:"protocol" json:"protocol"`
	Filter      string    `toml:"filter" json:"filter"`
	Direction   Direction `toml:"direction" json:"direction"`
	Sample      int       `toml:"sample" json:"sample"`
	Profile     Profile   `toml:"profile" json:"profile"`
	SnapLength  int       `toml:"snap_length" json:"snap_length"`
	MaxSize     string    `toml:"max_size" json:"max_size"`
	MaxDuration string    `toml:"max_duration" json:"max_duration"`
	MaxPackets  int       `toml:"max_packets" json:"max_packets"`
	KeepFiles   int       `toml:"keep_files" json:"keep_files"`
	KeepSize    string    `toml:"keep_size" json:"keep_size"`
	Compress    bool      `toml:"compress" json:"compress"`
	GSO         GSO       `toml:"gso" json:"gso"`
	Autostart   bool      `toml:"autostart" json:"autostart"`
}

type docRecorder struct {
	Memory              string    `toml:"memory" json:"memory"`
	Directory           string    `toml:"directory" json:"directory"`
	Before              string    `toml:"before" json:"before"`
	After               string    `toml:"after" json:"after"`
	Triggers            []Trigger `toml:"triggers" json:"triggers"`
	RTTThreshold        string    `toml:"rtt_threshold" json:"rtt_threshold"`
	RetransmitThreshold int       `toml:"retransmit_threshold" json:"retransmit_threshold"`
	Rate                int       `toml:"rate" json:"rate"`
	KeepFiles           int       `toml:"keep_files" json:"keep_files"`
	Profile             Profile   `toml:"profile" json:"profile"`
	SnapLength          int       `toml:"snap_length" json:"snap_length"`
}

func (t *Tap) document() *docTap {
	if t == nil {
		return nil
	}
	d := &docTap{
		Enabled:     t.Enabled,
		Interfaces:  t.Interfaces,
		BlockSize:   formatSize(t.BlockSize),
		Blocks:      t.Blocks,
		Retire:      formatDuration(t.Retire),
		Timestamp:   t.Timestamp,
		Fanout:      t.Fanout,
		FanoutRings: t.FanoutRings,
		Settle:      formatDuration(t.Settle),
		Recorder:    t.Recorder.document(),
	}
	if d.Interfaces == nil {
		d.Interfaces = []string{autoInterfaces}
	}
	for _, c := range t.Captures {
		d.Capture = append(d.Capture, c.document())
	}
	return d
}

func (c Capture) document() docCapture {
	return docCapture{
		Name:        c.Name,
		Directory:   c.Directory,
		Services:    present(c.Services),
		Backends:    present(c.Backends),
		Clients:     texts(c.Clients),
		Protocol:    c.Protocol,
		Filter:      c.Filter,
		Direction:   c.Direction,
		Sample:      c.Sample,
		Profile:     c.Profile,
		SnapLength:  c.SnapLength,
		MaxSize:     formatSize(c.MaxSize),
		MaxDuration: formatDuration(c.MaxDuration),
		MaxPackets:  c.MaxPackets,
		KeepFiles:   c.KeepFiles,
		KeepSize:    formatSize(c.KeepSize),
		Compress:    c.Compress,
		GSO:         c.GSO,
		Autostart:   c.Autostart,
	}
}

func (r *Recorder) document() *docRecorder {
	if r == nil {
		return nil
	}
	return &docRecorder{
		Memory:              formatSize(r.Memory),
		Directory:           r.Directory,
		Before:              formatDuration(r.Before),
		After:               formatDuration(r.After),
		Triggers:            present(r.Triggers),
		RTTThreshold:        formatDuration(r.RTTThreshold),
		RetransmitThreshold: r.RetransmitThreshold,
		Rate:                r.Rate,
		KeepFiles:           r.KeepFiles,
		Profile:             r.Profile,
		SnapLength:          r.SnapLength,
	}
}

// present is a list that is written also when it is empty.
func present[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
