package pcapng_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/internal/tpacket"
	"github.com/tproxyd/tproxyd/internal/tpacket/tpackettest"
	"github.com/tproxyd/tproxyd/ringcap/pcapng"
)

// udp is a whole datagram from 198.18.1.2:1000 to 203.0.113.10:2000.
func udp(text string) []byte {
	p := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0}
	p = append(p, 0x45, 0, 0, byte(28+len(text)), 0, 1, 0x40, 0, 64, 17, 0, 0, 198, 18, 1, 2, 203, 0, 113, 10)
	p = append(p, 0x03, 0xe8, 0x07, 0xd0, 0, byte(8+len(text)), 0, 0)
	return append(p, text...)
}

// file is a capture with everything that this package writes, and four
// packets.
func file(t testing.TB, encode func(*pcapng.Encoder, *tpacket.Block) []byte) []byte {
	t.Helper()
	ring := tpackettest.Ring{Reserve: 4, VNet: true}
	mem := ring.Block(64<<10,
		tpackettest.Packet{Data: udp("one"), Nanos: 1_700_000_000_000_000_001, Type: unix.PACKET_HOST},
		tpackettest.Packet{Data: udp("two"), Nanos: 1_700_000_000_000_000_002, Type: unix.PACKET_OUTGOING, VLAN: &tpacket.VLAN{TPID: unix.ETH_P_8021Q, TCI: 5}},
		tpackettest.Packet{Data: udp("three"), Nanos: 1_700_000_000_000_000_003, VNet: &tpacket.VNet{GSOType: tpacket.GSOUDPL4, GSOSize: 1200}},
	)
	var b tpacket.Block
	if ok, err := b.Load(mem, true); !ok || err != nil {
		t.Fatal(ok, err)
	}
	e := &pcapng.Encoder{Pick: func(f tpacket.Frame) (pcapng.Tag, bool) {
		return pcapng.Tag{Interface: uint32(f.Nanos() & 1), ID: 42}, true
	}}
	out := pcapng.AppendSection(nil, pcapng.Section{OS: "Linux", Application: "tproxyd", Comment: "a section"})
	out = pcapng.AppendInterface(out, pcapng.Interface{Name: "client0", Filter: "udp", OS: "Linux", Description: "clients"})
	out = pcapng.AppendInterface(out, pcapng.Interface{Name: "backend0"})
	out = pcapng.AppendNames(out, []pcapng.Name{
		{Addr: netip.MustParseAddr("203.0.113.10"), Name: "web-1"}, {Addr: netip.MustParseAddr("2001:db8::10"), Name: "web-2"},
	})
	out = append(out, encode(e, &b)...)
	out = pcapng.AppendPacket(out, &pcapng.Packet{
		Nanos: 1_700_000_000_000_000_004, Data: udp("four"), ID: 43, Comment: "connect failed: refused", Flags: pcapng.FlagInbound,
	})
	return pcapng.AppendStatistics(out, pcapng.Statistics{
		Interface: 1, Start: time.Unix(1_700_000_000, 0), Stop: time.Unix(1_700_000_001, 0),
		Accepted: 10, Dropped: 6, Delivered: 4, Comment: "ring froze once",
	})
}

var encodings = map[string]func(*pcapng.Encoder, *tpacket.Block) []byte{
	"copy":    func(e *pcapng.Encoder, b *tpacket.Block) []byte { return e.Copy(nil, b) },
	"compact": func(e *pcapng.Encoder, b *tpacket.Block) []byte { return e.Compact(b) },
	"inplace": func(e *pcapng.Encoder, b *tpacket.Block) []byte {
		run, tail := e.InPlace(b)
		return append(slices.Clip(run), tail...)
	},
}

// run runs a tool, which may say nothing on its error stream that sounds like
// a complaint about the file.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || strings.Contains(stderr.String(), "damaged") || strings.Contains(stderr.String(), "cut short") {
		t.Fatalf("%s: %v: %s", cmd, err, stderr.String())
	}
	return string(out)
}

// TestTools reads what we write with the programs of others.
func TestTools(t *testing.T) {
	tshark := netnstest.Need(t, "tshark", "tshark")
	capinfos := netnstest.Need(t, "capinfos", "wireshark-common")
	editcap := netnstest.Need(t, "editcap", "wireshark-common")
	mergecap := netnstest.Need(t, "mergecap", "wireshark-common")
	tcpdump := netnstest.Need(t, "tcpdump", "tcpdump")
	dir := t.TempDir()
	fields := []string{"-T", "fields", "-e", "frame.interface_name", "-e", "frame.packet_id", "-e", "frame.time_epoch", "-e", "udp.payload", "-e", "vlan.id", "-e", "frame.comment"}
	want := strings.Join([]string{
		"backend0\t42\t1700000000.000000001\t6f6e65\t\t",
		"client0\t42\t1700000000.000000002\t74776f\t5\t",
		"backend0\t42\t1700000000.000000003\t7468726565\t\t",
		"client0\t43\t1700000000.000000004\t666f7572\t\tconnect failed: refused",
	}, "\n") + "\n"
	for name, encode := range encodings {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name+".pcapng")
			raw := file(t, encode)
			if err := os.WriteFile(path, raw, 0o600); err != nil {
				t.Fatal(err)
			}
			if data, nanos := gopacket(t, raw); len(data) != 4 || data[0] != string(udp("one")) || nanos[3] != 1_700_000_000_000_000_004 {
				t.Errorf("gopacket read %d packets, %v", len(data), nanos)
			}
			get := func(path string) string { return run(t, tshark, append([]string{"-n", "-r", path}, fields...)...) }
			if diff := cmp.Diff(want, get(path)); diff != "" {
				t.Errorf("tshark (-want +got):\n%s", diff)
			}
			// Once is enough of what does not depend on the encoding: tshark takes a
			// second to start.
			again := func(path string) int {
				raw, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				data, _ := gopacket(t, raw)
				return len(data)
			}
			if name == "inplace" {
				again = func(path string) int { return strings.Count(get(path), "\n") }
			}
			if flow := run(t, tcpdump, "-n", "-r", path, "udp port 2000 or vlan"); strings.Count(flow, "\n") != 4 {
				t.Errorf("tcpdump with a filter:\n%s", flow)
			}
			checkFlow(t, name, tshark, path)
			info := run(t, capinfos, path)
			for _, part := range []string{"Number of packets:   4", "Number of interfaces in file: 2", "Name = client0", "Number of stat entries = 1", "Capture application: tproxyd"} {
				if !strings.Contains(info, part) {
					t.Errorf("capinfos lacks %q:\n%s", part, info)
				}
			}
			if dump := run(t, tcpdump, "-n", "-r", path); strings.Count(dump, "\n") != 4 {
				t.Errorf("tcpdump:\n%s", dump)
			}
			edited, merged := filepath.Join(dir, "edited.pcapng"), filepath.Join(dir, "merged.pcapng")
			run(t, editcap, path, edited)
			if n := again(edited); n != 4 {
				t.Errorf("editcap made %d packets of 4", n)
			}
			run(t, mergecap, "-w", merged, path, path)
			if n := again(merged); n != 8 {
				t.Errorf("mergecap made %d packets of 4 and 4", n)
			}
		})
	}
}

// checkFlow uses what Wireshark's users filter by.
func checkFlow(t *testing.T, name, tshark, path string) {
	t.Helper()
	if name != "inplace" {
		return
	}
	if flow := run(t, tshark, "-n", "-r", path, "-Y", "frame.packet_id == 42"); strings.Count(flow, "\n") != 3 {
		t.Errorf("flow 42 in tshark:\n%s", flow)
	}
	if named := run(t, tshark, "-N", "n", "-r", path, "-Y", `ip.dst_host == "web-1"`); strings.Count(named, "\n") != 4 {
		t.Errorf("packets to web-1 in tshark:\n%s", named)
	}
}

func Example() {
	b := pcapng.AppendSection(nil, pcapng.Section{Application: "example"})
	b = pcapng.AppendInterface(b, pcapng.Interface{Name: "eth0"})
	b = pcapng.AppendPacket(b, &pcapng.Packet{Nanos: 1, Data: make([]byte, 60), ID: 42, Comment: "the first packet of flow 42"})
	fmt.Println(len(b), "bytes")
	// Output: 232 bytes
}
