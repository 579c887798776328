package filter_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/tproxyd/tproxyd/internal/netnstest"
	"github.com/tproxyd/tproxyd/ringcap/filter"
)

func vm(t testing.TB, raw []bpf.RawInstruction) *bpf.VM {
	t.Helper()
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatalf("cannot disassemble %v", raw)
	}
	m, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// reference is what tcpdump makes of an expression; nil if it refuses it.
func reference(t testing.TB, tcpdump, expression string) []bpf.RawInstruction {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), tcpdump, "-ddd", "-y", "EN10MB", "-s", "262144", expression).Output()
	if _, refused := errors.AsType[*exec.ExitError](err); refused {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var raw []bpf.RawInstruction
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) != 4 {
			continue // how many there are
		}
		var v [4]uint64
		for i := range v {
			if v[i], err = strconv.ParseUint(f[i], 10, 32); err != nil {
				t.Fatal(err)
			}
		}
		raw = append(raw, bpf.RawInstruction{Op: uint16(v[0]), Jt: uint8(v[1]), Jf: uint8(v[2]), K: uint32(v[3])})
	}
	return raw
}

// TestAgainstTcpdump runs our program and tcpdump's over the same packets.
func TestAgainstTcpdump(t *testing.T) {
	tcpdump := netnstest.Need(t, "tcpdump", "tcpdump")
	r := rand.New(rand.NewPCG(1, 2))
	packets := corpus(r, 1500)
	expressions := append([]string(nil), written...)
	for range 150 {
		expressions = append(expressions, generated(r, 3))
	}
	compared, refused, varied := 0, 0, 0
	for _, e := range expressions {
		want := reference(t, tcpdump, e)
		got, err := filter.Compile(e, filter.Options{})
		if want == nil {
			// libpcap refuses what can never be true; to us it is a program.
			refused++
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", e, err)
			continue
		}
		compared++
		if matched := differ(t, e, vm(t, got), vm(t, want), packets); matched > 0 && matched < len(packets) {
			varied++
		}
	}
	t.Logf("%d expressions compared on %d packets, %d matched some and not all, %d refused by tcpdump", compared, len(packets), varied, refused)
	if compared < 200 || varied < 150 {
		t.Errorf("%d expressions compared, %d of them told packets apart: want 200 and 150", compared, varied)
	}
}

// differ returns how many packets the expression matches.
func differ(t *testing.T, e string, got, want *bpf.VM, packets [][]byte) int {
	t.Helper()
	matched := 0
	for _, p := range packets {
		g, err := got.Run(p)
		if err != nil {
			t.Fatal(err)
		}
		w, err := want.Run(p)
		if err != nil {
			t.Fatal(err)
		}
		if g != w {
			t.Errorf("%q: %d, tcpdump %d, on %x", e, g, w, p[:80])
			return 0
		}
		if w != 0 {
			matched++
		}
	}
	return matched
}

// TestErrors checks where mistakes are found. tcpdump finds the same ones.
func TestErrors(t *testing.T) {
	tcpdump := netnstest.Need(t, "tcpdump", "tcpdump")
	for _, tt := range []struct {
		expression string
		pos        int
	}{
		{"tcp and", 7},
		{"(tcp", 4},
		{"tcp)", 3},
		{"host", 4},
		{"host 198.18.1.256", 5},
		{"port 65536", 5},
		{"port -1", 5},
		{"tcp host 198.18.1.2", 0},
		{"ip port 80", 0},
		{"net 198.18.1.0/16", 4},
		{"net 198.18.1.0/33", 4},
		{"ip host 2001:db8::1", 8},
		{"ip6 host 198.18.1.2", 9},
		{"tcp tcp", 4},
		{"and tcp", 0},
		{"not", 3},
		{"vlan 4096", 5},
		{"less tcp", 5},
		{"tcp ; udp", 4},
		{"src", 3},
		{"tcp and @", 8},
		{"portrange 80-x", 10},
		{"()", 1},
	} {
		_, err := filter.Compile(tt.expression, filter.Options{})
		var e *filter.Error
		if !errors.As(err, &e) {
			t.Errorf("%q: %v, want an *Error", tt.expression, err)
			continue
		}
		if e.Pos != tt.pos {
			t.Errorf("%q: mistake at %d, want %d (%v)", tt.expression, e.Pos, tt.pos, err)
		}
		if reference(t, tcpdump, tt.expression) != nil {
			t.Errorf("%q: tcpdump takes it", tt.expression)
		}
	}
}

// TestFarJumps has targets that one jump cannot reach.
func TestFarJumps(t *testing.T) {
	terms := make([]string, 100)
	for i := range terms {
		terms[i] = "port " + strconv.Itoa(1000+i)
	}
	raw, err := filter.Compile("("+strings.Join(terms, " or ")+") or host 198.18.1.2", filter.Options{Snap: 96})
	if err != nil {
		t.Fatal(err)
	}
	m := vm(t, raw)
	for _, p := range corpus(rand.New(rand.NewPCG(3, 4)), 300) {
		n, err := m.Run(p)
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Equal(p[12:14], []byte{8, 0}) &&
			(bytes.Equal(p[26:30], []byte{198, 18, 1, 2}) || bytes.Equal(p[30:34], []byte{198, 18, 1, 2}))
		if want && n != 96 {
			t.Fatalf("verdict %d on a packet of the host", n)
		}
	}
	terms = make([]string, 2000)
	for i := range terms {
		terms[i] = "host 2001:db8::" + strconv.FormatInt(int64(i), 16)
	}
	if _, err := filter.Compile(strings.Join(terms, " or "), filter.Options{}); err == nil {
		t.Error("a program too long for the kernel was made")
	}
}

func FuzzCompile(f *testing.F) {
	for _, e := range written {
		f.Add(e)
	}
	packets := corpus(rand.New(rand.NewPCG(5, 6)), 20)
	f.Fuzz(func(t *testing.T, e string) {
		for _, opts := range []filter.Options{{}, {Metadata: true}} {
			raw, err := filter.Compile(e, opts)
			var mistake *filter.Error
			if err != nil {
				if !errors.As(err, &mistake) || mistake.Pos < 0 || mistake.Pos > len(e) {
					t.Fatalf("%q: %v", e, err)
				}
				return
			}
			if opts.Metadata { // the VM has no such loads
				continue
			}
			m := vm(t, raw)
			for _, p := range packets {
				if _, err := m.Run(p); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
