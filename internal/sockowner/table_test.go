package sockowner

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// littleEndian is the table of a machine that has the lowest byte first, as
// kernel 6.18 prints it.
const (
	head = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"
	udp4 = "  338: 0A0071CB:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   110        0 25431 2 00000000b2f0a5b9 0\n"
	tcp6 = "   0: B80D0120000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 31 1 0000000000000000 100 0 0 10 0\n"
)

// TestParseTable reads numbers that are printed as the machine has them, so
// the bytes of the addresses here are in the order of the test's own machine.
func TestParseTable(t *testing.T) {
	got, err := parseTable(strings.NewReader(head+udp4+tcp6), func(entry) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	v4, v6 := [4]byte{203, 113, 0, 10}, [16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 1}
	if bigEndian() {
		v4, v6 = [4]byte{10, 0, 113, 203}, [16]byte{0xb8, 0x0d, 0x01, 0x20, 12: 1}
	}
	want := []entry{
		{local: netip.AddrPortFrom(netip.AddrFrom4(v4), 53), state: 7, uid: 110, inode: 25431},
		{local: netip.AddrPortFrom(netip.AddrFrom16(v6), 8080), state: listening, inode: 31},
	}
	equal := cmp.Comparer(func(a, b entry) bool { return a == b })
	if diff := cmp.Diff(want, got, equal); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	none, err := parseTable(strings.NewReader(head+udp4+tcp6), func(entry) bool { return false })
	if err != nil || len(none) != 0 {
		t.Errorf("nothing was wanted: %v, %v", none, err)
	}
}

// bigEndian looks at how this machine's kernel would print 127.0.0.1.
func bigEndian() bool {
	a, err := parseAddrPort("7F000001:0001")
	return err == nil && a.Addr() == netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

func TestParseErrors(t *testing.T) {
	for line, want := range map[string]string{
		"": "0 fields",
		strings.Replace(udp4, "0A0071CB:0035", "0A0071CB", 1):           "no port",
		strings.Replace(udp4, "0A0071CB:0035", "0A0071CB:10035", 1):     "port: ",
		strings.Replace(udp4, "0A0071CB:0035", "0A0071:0035", 1):        "3 bytes",
		strings.Replace(udp4, "0A0071CB:0035", "0A0071CX:0035", 1):      "address: ",
		strings.Replace(udp4, "0000:0000 07 ", "0000:0000 107 ", 1):     "state: ",
		strings.Replace(udp4, "   110  ", "   -1  ", 1):                 "uid: ",
		strings.Replace(udp4, "25431", "x", 1):                          "inode: ",
		strings.Replace(udp4, " 25431 2 00000000b2f0a5b9 0\n", "\n", 1): "9 fields",
	} {
		got, err := parseTable(strings.NewReader(head+line+"\n"), func(entry) bool { return true })
		if err == nil || !strings.HasPrefix(err.Error(), "line 2: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v, want %q", line, got, err, want)
		}
	}
}

func FuzzParseTable(f *testing.F) {
	for _, seed := range []string{head, head + udp4, head + tcp6, head + "\n", head + strings.Repeat("0:0 ", 12)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseTable(strings.NewReader(text), func(entry) bool { return true })
		if err != nil {
			return
		}
		if lines := strings.Count(text, "\n"); len(all) > lines {
			t.Errorf("%d entries in %d lines", len(all), lines+1)
		}
		for _, e := range all {
			if !e.local.IsValid() {
				t.Errorf("an entry without an address: %+v", e)
			}
		}
	})
}
