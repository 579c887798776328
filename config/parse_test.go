package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// minimal is the shortest valid file.
const minimal = `
[[service]]
name = "web"
listen = ["203.0.113.10:443"]
backend = [{ address = "198.18.2.2:8443" }]
`

// sameAddrs lets cmp compare addresses with ==.
var sameAddrs = cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	cfg, err := Parse("test.toml", []byte(text))
	if err != nil {
		t.Fatalf("parse: %v\nof\n%s", err, text)
	}
	return cfg
}

func TestParseDefaults(t *testing.T) {
	want := &Config{
		Daemon:   Daemon{DrainTimeout: 30 * time.Second, Mark: 0x7470},
		Log:      Log{Level: "info", Format: FormatJSON, Access: AccessJSON},
		Admin:    Admin{Listen: netip.MustParseAddrPort("127.0.0.1:9180"), Write: true, SocketMode: 0o660},
		Resolver: Resolver{Timeout: 2 * time.Second, MinInterval: time.Second, MaxInterval: 5 * time.Minute},
		Services: []Service{{
			Name:             "web",
			Protocol:         ProtocolTCP,
			Mode:             ModeVIP,
			Listen:           []netip.AddrPort{netip.MustParseAddrPort("203.0.113.10:443")},
			Source:           SourceClient,
			ConnectTimeout:   3 * time.Second,
			IdleTimeout:      10 * time.Minute,
			HalfCloseTimeout: time.Minute,
			Keepalive:        30 * time.Second,
			UserTimeout:      30 * time.Second,
			Retries:          1,
			Backends:         []Backend{{Name: "198.18.2.2:8443", Address: netip.MustParseAddrPort("198.18.2.2:8443"), Weight: 1}},
			Balance:          BalanceRoundRobin,
			OnBackendDown:    BackendDownKeep,
			QueueTimeout:     5 * time.Second,
			ProxyProtocol:    ProxyProtocolOff,
			SendProxy:        SendProxyOff,
		}},
	}
	if diff := cmp.Diff(want, mustParse(t, minimal), sameAddrs); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

const everything = `
service = [
  { name = "a.b_c-1", protocol = "tcp", mode = "intercept", listen = ["[fe80::1%eth0]:65534-65535", "0.0.0.0:1"],
    source = "host", connect_timeout = "5m", idle_timeout = "0s", half_close_timeout = "1m30s", max_lifetime = "8760h",
    keepalive = "9h6m7s", user_timeout = "1ms", retries = 10, max_connections = 5,
    backend = [{ name = "x", address = "[fe80::2%eth0]:2", weight = 256 }, { address = "127.0.0.1:3", weight = 0, backup = true }],
    balance = "maglev", hash = "client-ip", maglev_table_size = 5_000_011, hash_seed = 9_223_372_036_854_775_807 },
]
admin.listen = ""
[daemon]
workers = 256
max_connections = 2_000
max_flows = 2_147_483_647
drain_timeout = "0s"
mark = 0xffff_ffff
[log]
level = "error"
format = "console"
access = "haproxy"
`

func TestParseEverything(t *testing.T) {
	addr := netip.MustParseAddrPort
	want := &Config{
		Daemon:   Daemon{Workers: 256, MaxConnections: 2000, MaxFlows: 1<<31 - 1, Mark: 1<<32 - 1},
		Log:      Log{Level: "error", Format: FormatConsole, Access: AccessHAProxy},
		Admin:    Admin{SocketMode: 0o660},
		Resolver: Resolver{Timeout: 2 * time.Second, MinInterval: time.Second, MaxInterval: 5 * time.Minute},
		Services: []Service{{
			Name:             "a.b_c-1",
			Protocol:         ProtocolTCP,
			Mode:             ModeIntercept,
			Listen:           []netip.AddrPort{addr("[fe80::1%eth0]:65534"), addr("[fe80::1%eth0]:65535"), addr("0.0.0.0:1")},
			Source:           SourceHost,
			ConnectTimeout:   5 * time.Minute,
			HalfCloseTimeout: 90 * time.Second,
			MaxLifetime:      8760 * time.Hour,
			Keepalive:        32767 * time.Second,
			UserTimeout:      time.Millisecond,
			Retries:          10,
			MaxConnections:   5,
			Backends: []Backend{
				{Name: "x", Address: addr("[fe80::2%eth0]:2"), Weight: 256},
				{Name: "127.0.0.1:3", Address: addr("127.0.0.1:3"), Backup: true},
			},
			OnBackendDown: BackendDownKeep, QueueTimeout: 5 * time.Second, ProxyProtocol: ProxyProtocolOff, SendProxy: SendProxyOff,
			Balance:         BalanceMaglev,
			Hash:            HashClientIP,
			MaglevTableSize: 5_000_011,
			HashSeed:        1<<63 - 1,
		}},
	}
	if diff := cmp.Diff(want, mustParse(t, everything), sameAddrs); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

func TestChoices(t *testing.T) {
	for _, m := range []Mode{ModeVIP, ModeIntercept} {
		for _, s := range []Source{SourceClient, SourceClientIP, SourcePreferClient, SourceHost} {
			cfg := mustParse(t, minimal[:strings.Index(minimal, "backend")]+
				fmt.Sprintf("mode = %q\nsource = %q\n[[service.backend]]\naddress = \"198.18.2.2:1\"\n", string(m), string(s)))
			if got := cfg.Services[0]; got.Mode != m || got.Source != s {
				t.Errorf("mode %q source %q, want %q %q", got.Mode, got.Source, m, s)
			}
		}
	}
	for _, a := range []Access{AccessJSON, AccessHAProxy, AccessOff} {
		if got := mustParse(t, fmt.Sprintf("log.access = %q\n", string(a))+minimal).Log.Access; got != a {
			t.Errorf("access %q, want %q", got, a)
		}
	}
	for _, level := range []string{"debug", "info", "warn", "error"} {
		if got := mustParse(t, fmt.Sprintf("log.level = %q\n", level)+minimal).Log.Level; got != level {
			t.Errorf("level %q, want %q", got, level)
		}
	}
}

// TestValid holds files that a stricter check might refuse by mistake.
func TestValid(t *testing.T) {
	service := func(name, listen, more string) string {
		return fmt.Sprintf("[[service]]\nname = %q\nlisten = [%s]\n%s\n", name, listen, more)
	}
	both := `backend = [{ address = "198.18.2.2:80" }, { address = "[2001:db8:2::2]:80" }]`
	tests := map[string]string{
		"wildcard vip":              service("a", `"0.0.0.0:80", "[::]:80"`, both),
		"same port, two addresses":  service("a", `"203.0.113.10:80", "203.0.113.11:80"`, both) + service("b", `"203.0.113.12:80"`, both),
		"neighbouring ranges":       service("a", `"203.0.113.10:80-89", "203.0.113.10:90-99"`, both),
		"link-local on two links":   service("a", `"[fe80::1%eth0]:80", "[fe80::1%eth1]:80"`, both),
		"intercept without pool":    service("a", `"0.0.0.0:15001"`, `mode = "intercept"`),
		"admin beside a service":    service("a", `"127.0.0.1:9181", "[::]:9180"`, both),
		"admin off, its port used":  "admin.listen = \"\"\n" + service("a", `"127.0.0.1:9180"`, both),
		"more retries than servers": service("a", `"203.0.113.10:80"`, both+"\nretries = 10"),
		"same backend, two services": service("a", `"203.0.113.10:80"`, both) +
			service("b", `"203.0.113.11:80"`, both),
		"4096 listeners": service("a", `"203.0.113.10:1-4096"`, both),
		"host source, other family": service("a", `"203.0.113.10:80"`,
			"source = \"host\"\nbackend = [{ address = \"[2001:db8:2::2]:80\" }]"),
		"byte order mark and CRLF": "\xef\xbb\xbf" + strings.ReplaceAll(service("a", `"203.0.113.10:80"`, both), "\n", "\r\n"),
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			if cfg := mustParse(t, text); len(cfg.Warnings) != 0 {
				t.Errorf("warnings: %v", cfg.Warnings)
			}
		})
	}
}

func TestWarningOfMissingFamily(t *testing.T) {
	cfg := mustParse(t, `
[[service]]
name = "web"
listen = ["203.0.113.10:443", "[2001:db8::10]:443"]
backend = [{ address = "198.18.2.2:8443" }]
[[service]]
name = "mail"
source = "client-ip"
listen = ["203.0.113.10:25", "[2001:db8::10]:25"]
backend = [{ address = "[2001:db8:2::2]:25" }]
`)
	want := []string{
		`test.toml:4: service "web" listen: source = "client" needs backends of the client's family: IPv6 flows will be refused (no_backend); add an IPv6 backend, or write source = "host"`,
		`test.toml:9: service "mail" listen: source = "client-ip" needs backends of the client's family: IPv4 flows will be refused (no_backend); add an IPv4 backend, or write source = "host"`,
	}
	if diff := cmp.Diff(want, cfg.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

// TestParseUnusable holds files in which no key can be looked at.
func TestParseUnusable(t *testing.T) {
	tests := map[string]struct{ text, want string }{
		"empty":                 {"", "f:1: the file is empty; "},
		"blank":                 {" \n\t\n", "f:1: the file is empty; "},
		"latin 1":               {"# fine\n# gr\xfc\xdfe\n", "f:2: the file is not UTF-8; "},
		"replacement character": {"# \uFFFD\n\xff", "f:2: the file is not UTF-8; "},
		"utf-16":                {"\xff\xfea\x00=\x001\x00", "f:1: the file is not UTF-8; "},
		"null bytes":            {"a = 1\n\x00", "f:2: TOML syntax: "},
		"control":               {"\n\na = \"\x01\"", "f:3: TOML syntax: "},
		"too large":             {strings.Repeat("#", maxSize+1), "f: the file is larger than 1048576 bytes; "},
		"cut in a string": {
			"[[service]]\nname = \"we",
			"f:2: TOML syntax: unexpected end of file, expected '\"'; ",
		},
		"far too deep": {"\na = " + strings.Repeat("{a=", 1<<18), "f:2: values or keys are nested deeper than 16; "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cfg, err := Parse("f", []byte(tt.text))
			if cfg != nil || err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q...", err, tt.want)
			}
			checkErrors(t, err, tt.text)
		})
	}
}

type panicker struct{}

func (*panicker) UnmarshalTOML(any) error { panic("a bug") }

func TestPanicOfLibraryIsAnError(t *testing.T) {
	err := decodeTOML("a = 1", &panicker{})
	if err == nil || err.Error() != "the TOML library stopped: a bug" {
		t.Fatalf("got %v", err)
	}
	r := &reader{file: "f"}
	r.syntax(err, "a = 1", nil)
	want := "f:1: TOML syntax: the TOML library stopped: a bug; correct this line or the one before, and see whether the file is complete"
	if got := r.errs.Error(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestErrorsAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, "key%d = 1\n", i)
	}
	_, err := Parse("f", []byte(b.String()))
	checkErrors(t, err, b.String())
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != maxErrors+1 {
		t.Fatalf("%d errors, want %d", len(errs), maxErrors+1)
	}
	// 5000 unknown keys and the missing service.
	want := "f:100: 4901 more from here on are not shown; correct those above first"
	if got := errs[maxErrors].Error(); got != want {
		t.Errorf("last error %q, want %q", got, want)
	}
}

func TestErrorsAsAndIs(t *testing.T) {
	cause := errors.New("cause")
	err := fmt.Errorf("check: %w", Errors{{File: "f", Msg: "one"}, {File: "f", Line: 2, Key: "k", Msg: "two", Remedy: "do", Err: cause}})
	var one Error
	if !errors.As(err, &one) || one.Msg != "one" {
		t.Errorf("errors.As gives %+v", one)
	}
	if !errors.Is(err, cause) {
		t.Error("errors.Is does not find the cause")
	}
	if got, want := err.Error(), "check: f: one\nf:2: k: two; do"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestQuoteShortens(t *testing.T) {
	for in, want := range map[string]string{
		"a\nb":                             `"a\nb"`,
		strings.Repeat("x", 80):            `"` + strings.Repeat("x", 80) + `"`,
		strings.Repeat("\u00e9", 60):       `"` + strings.Repeat("\u00e9", 40) + `"...`,
		"x" + strings.Repeat("\u00e9", 60): `"x` + strings.Repeat("\u00e9", 39) + `"...`,
	} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
	}
}
