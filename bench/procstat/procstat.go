package procstat

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// FS is a mounted proc file system.
type FS string

// Proc is where it usually is.
const Proc FS = "/proc"

func (fs FS) path(pid int, name string) string {
	return filepath.Join(string(fs), strconv.Itoa(pid), name)
}

// gone tells whether an error only says that a process or thread has ended.
func gone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// Tree returns pid and all its descendants.
func (fs FS) Tree(pid int) ([]int, error) {
	children, err := fs.children()
	if err != nil {
		return nil, err
	}
	tree := []int{pid}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree, nil
}

// children maps every process to those it is the parent of.
func (fs FS) children() (map[int][]int, error) {
	pids, err := numbers(string(fs))
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, pid := range pids {
		stat, err := os.ReadFile(fs.path(pid, "stat"))
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		_, parent, err := parseStat(stat)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", fs.path(pid, "stat"), err)
		}
		children[parent] = append(children[parent], pid)
	}
	return children, nil
}

// CPU is the time that all threads of the processes have been on a processor.
func (fs FS) CPU(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		tasks := fs.path(pid, "task")
		tids, err := numbers(tasks)
		if err != nil {
			return 0, err
		}
		for _, tid := range tids {
			path := filepath.Join(tasks, strconv.Itoa(tid), "schedstat")
			b, err := os.ReadFile(path)
			if gone(err) {
				continue
			}
			if err != nil {
				return 0, err
			}
			ns, err := parseSchedstat(b)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", path, err)
			}
			sum += ns
		}
	}
	return sum, nil
}

// Memory is the proportional set size of the processes in bytes.
func (fs FS) Memory(pids []int) (int64, error) {
	var sum int64
	for _, pid := range pids {
		path := fs.path(pid, "smaps_rollup")
		b, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		pss, err := parsePss(b)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		sum += pss
	}
	return sum, nil
}

// Descriptors is how many the processes have open.
func (fs FS) Descriptors(pids []int) (int, error) {
	sum := 0
	for _, pid := range pids {
		fds, err := numbers(fs.path(pid, "fd"))
		if err != nil {
			return 0, err
		}
		sum += len(fds)
	}
	return sum, nil
}

// Ksoftirqd finds the kernel's softirq thread of a processor.
func (fs FS) Ksoftirqd(cpu int) (pid int, err error) {
	pids, err := numbers(string(fs))
	if err != nil {
		return 0, err
	}
	want := fmt.Sprintf("ksoftirqd/%d", cpu)
	for _, pid := range pids {
		stat, err := os.ReadFile(fs.path(pid, "stat"))
		if gone(err) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if name, _, err := parseStat(stat); err == nil && name == want {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("%s has no process %s", fs, want)
}

// Busy is the time that a processor has not been idle, the time included that a
// hypervisor gave to others. Its resolution is 10 ms.
func (fs FS) Busy(cpu int) (time.Duration, error) {
	path := filepath.Join(string(fs), "stat")
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	busy, err := parseBusy(b, fmt.Sprintf("cpu%d", cpu))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return busy, nil
}

// numbers lists the entries of a directory that are numbers.
func numbers(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			out = append(out, n)
		}
	}
	return out, nil
}

// parseStat takes name and parent from a stat file. The name, in parentheses,
// may itself hold spaces and parentheses.
func parseStat(b []byte) (name string, parent int, err error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return "", 0, fmt.Errorf("no name in %q", b)
	}
	fields := strings.Fields(string(b[end+1:]))
	if len(fields) < 2 {
		return "", 0, fmt.Errorf("no parent in %q", b)
	}
	if parent, err = strconv.Atoi(fields[1]); err != nil {
		return "", 0, fmt.Errorf("parent in %q: %w", b, err)
	}
	return string(b[open+1 : end]), parent, nil
}

func parseSchedstat(b []byte) (time.Duration, error) {
	fields := strings.Fields(string(b))
	if len(fields) != 3 {
		return 0, fmt.Errorf("%d fields in %q, want 3", len(fields), b)
	}
	ns, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("time in %q: %w", b, err)
	}
	return time.Duration(ns), nil
}

func parsePss(b []byte) (int64, error) {
	for line := range strings.Lines(string(b)) {
		value, found := strings.CutPrefix(line, "Pss:")
		if !found {
			continue
		}
		fields := strings.Fields(value)
		if len(fields) != 2 || fields[1] != "kB" {
			return 0, fmt.Errorf("unit of %q is not kB", line)
		}
		kb, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("value of %q: %w", line, err)
		}
		return kb << 10, nil
	}
	return 0, errors.New("no line Pss")
}

// parseBusy adds up a line of /proc/stat: user, nice, system, idle, iowait, irq,
// softirq, steal, and two more that are in user and nice already.
func parseBusy(b []byte, cpu string) (time.Duration, error) {
	const (
		idle, iowait, steal = 3, 4, 7
		tick                = 10 * time.Millisecond // USER_HZ is 100 for all programs
	)
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != cpu {
			continue
		}
		fields = fields[1:]
		if len(fields) <= steal {
			return 0, fmt.Errorf("%d fields in %q, want at least %d", len(fields), line, steal+1)
		}
		var sum time.Duration
		for i, f := range fields[:steal+1] {
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("time in %q: %w", line, err)
			}
			if i != idle && i != iowait {
				sum += time.Duration(n) * tick
			}
		}
		return sum, nil
	}
	return 0, fmt.Errorf("no line %s", cpu)
}
