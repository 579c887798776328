package procstat

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseStat(t *testing.T) {
	for _, tt := range []struct {
		in, name string
		parent   int
		bad      bool
	}{
		{in: "12 (nginx) S 3 12 12 0", name: "nginx", parent: 3},
		{in: "12 (a) b (c) d) R 4711 1", name: "a) b (c) d", parent: 4711},
		{in: "12 nginx S 3", bad: true},
		{in: "12 (nginx) S", bad: true},
		{in: "12 (nginx) S x", bad: true},
		{in: ") 12 (", bad: true},
		{in: "", bad: true},
	} {
		name, parent, err := parseStat([]byte(tt.in))
		if (err != nil) != tt.bad || name != tt.name || parent != tt.parent {
			t.Errorf("parseStat(%q) = %q, %d, %v, want %q, %d, error %t", tt.in, name, parent, err, tt.name, tt.parent, tt.bad)
		}
	}
}

func TestParseSchedstat(t *testing.T) {
	got, err := parseSchedstat([]byte("1281783 29705 2\n"))
	if want := 1281783 * time.Nanosecond; err != nil || got != want {
		t.Errorf("parseSchedstat = %v, %v, want %v", got, err, want)
	}
	for _, in := range []string{"", "1 2", "x 2 3", "1 2 3 4"} {
		if got, err := parseSchedstat([]byte(in)); err == nil {
			t.Errorf("parseSchedstat(%q) = %v, want an error", in, got)
		}
	}
}

func TestParsePss(t *testing.T) {
	const rollup = "55d0-7fff ---p 00000000 00:00 0    [rollup]\nRss:    1692 kB\nPss:     337 kB\nPss_Dirty:  108 kB\n"
	got, err := parsePss([]byte(rollup))
	if want := int64(337 * 1024); err != nil || got != want {
		t.Errorf("parsePss = %v, %v, want %v", got, err, want)
	}
	for _, in := range []string{"", "Rss: 1 kB\n", "Pss: 1 MB\n", "Pss: x kB\n", "Pss:\n"} {
		if got, err := parsePss([]byte(in)); err == nil {
			t.Errorf("parsePss(%q) = %v, want an error", in, got)
		}
	}
}

func TestParseBusy(t *testing.T) {
	const stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 100 20 3 5000 6000 7 8 9 1000 1000\ncpu10 5 5 5 5 5 5 5 5\nintr 1\n"
	got, err := parseBusy([]byte(stat), "cpu1")
	if want := 1470 * time.Millisecond; err != nil || got != want {
		t.Errorf("parseBusy = %v, %v, want %v", got, err, want)
	}
	for _, in := range []string{"", "cpu1 1 2 3\n", "cpu1 1 2 x 4 5 6 7 8\n", "cpu10 1 2 3 4 5 6 7 8\n"} {
		if got, err := parseBusy([]byte(in), "cpu1"); err == nil {
			t.Errorf("parseBusy(%q) = %v, want an error", in, got)
		}
	}
}

// A made-up tree: 10 has the child 20, which has 30; 40 is someone else's.
func TestSums(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("uptime", "1 2\n")
	write("10/stat", "10 (master) S 1 0")
	write("20/stat", "20 (worker) S 10 0")
	write("30/stat", "30 (helper) S 20 0")
	write("40/stat", "40 (ksoftirqd/1) S 2 0")
	for pid, cost := range map[string]string{"10": "1", "20": "20", "30": "300", "40": "4000"} {
		write(pid+"/task/"+pid+"/schedstat", cost+" 0 0\n")
		write(pid+"/smaps_rollup", "Pss: "+cost+" kB\n")
		write(pid+"/fd/0", "")
	}
	write("20/task/21/schedstat", "5000 0 0\n")
	write("20/fd/7", "")
	fs := FS(dir)
	tree, err := fs.Tree(10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{10, 20, 30}, tree); diff != "" {
		t.Fatalf("Tree(10) (-want +got):\n%s", diff)
	}
	type sums struct {
		CPU         time.Duration
		Memory      int64
		Descriptors int
		Ksoftirqd   int
	}
	var got sums
	var errs [4]error
	got.CPU, errs[0] = fs.CPU(tree)
	got.Memory, errs[1] = fs.Memory(tree)
	got.Descriptors, errs[2] = fs.Descriptors(tree)
	got.Ksoftirqd, errs[3] = fs.Ksoftirqd(1)
	if errs != [4]error{} {
		t.Fatal(errs)
	}
	if diff := cmp.Diff(sums{CPU: 5321, Memory: 321 << 10, Descriptors: 4, Ksoftirqd: 40}, got); diff != "" {
		t.Errorf("sums (-want +got):\n%s", diff)
	}
	if _, err := fs.Ksoftirqd(7); err == nil || !strings.Contains(err.Error(), "ksoftirqd/7") {
		t.Errorf("Ksoftirqd(7) = %v, want an error that names it", err)
	}
}

// The real thing, with a child that holds a descriptor more than another.
func TestProc(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // killed
	}()
	tree, err := Proc.Tree(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if tree[0] != os.Getpid() || !slices.Contains(tree, cmd.Process.Pid) {
		t.Errorf("Tree of this process = %v, want it first, and its child %d", tree, cmd.Process.Pid)
	}
	self := []int{os.Getpid()}
	cpu, err := Proc.CPU(self)
	if err != nil || cpu <= 0 {
		t.Errorf("CPU of this process = %v, %v, want more than nothing", cpu, err)
	}
	busy, err := Proc.Busy(0)
	if err != nil || busy <= 0 {
		t.Errorf("Busy of processor 0 = %v, %v, want more than nothing", busy, err)
	}
	memory, err := Proc.Memory(self)
	if err != nil || memory < 1<<20 {
		t.Errorf("Memory of this process = %v, %v, want at least 1 MiB", memory, err)
	}
	fds, err := Proc.Descriptors([]int{cmd.Process.Pid})
	if err != nil || fds < 3 {
		t.Errorf("Descriptors of a child = %v, %v, want at least 3", fds, err)
	}
}
