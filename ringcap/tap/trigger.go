package tap

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/tproxyd/tproxyd/ringcap"
)

// dumpName is what files of triggers are called: time, reason, and flow,
// service or "all".
var dumpName = regexp.MustCompile(`^\d{8}T\d{6}\.\d{3}Z-[^/]+\.pcapng$`)

var notInNames = regexp.MustCompile(`[^A-Za-z0-9_.]+`)

// Trigger makes the recorder write a file of what is selected, some time later,
// and says whether it will: the reason has to be configured, and there is a
// limit on how often. It never waits.
func (m *Manager) Trigger(reason string, s Selection) bool {
	r := m.recorder.Load()
	if r == nil || r.Directory == "" || len(r.Triggers) > 0 && !slices.Contains(r.Triggers, reason) {
		return false
	}
	done, ok := r.use()
	if !ok {
		return false
	}
	now := time.Now()
	if !r.allow(now) {
		m.refused.Add(1)
		done()
		return false
	}
	go func() {
		defer done()
		m.record(r, now, reason, s)
	}()
	return true
}

// allow counts a dump against the limit.
func (r *recorder) allow(now time.Time) bool {
	limit := r.PerMinute
	if limit == 0 {
		limit = defaultPerMinute
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.written = slices.DeleteFunc(r.written, func(t time.Time) bool { return now.Sub(t) >= time.Minute })
	if len(r.written) >= limit {
		return false
	}
	r.written = append(r.written, now)
	return true
}

// record waits for what comes after a trigger and writes the file. When the
// recorder is stopped it writes what there is.
func (m *Manager) record(r *recorder, at time.Time, reason string, s Selection) {
	q := DumpQuery{Selection: s, Window: ringcap.Window{From: at.Add(-r.Before), To: at.Add(r.After)}}
	pause(r.pending, time.Until(r.complete(q.Window.To)))
	if r.pending.Err() != nil { // what was captured by now is still written
		now := r.complete(time.Now())
		pause(context.Background(), min(time.Until(now), time.Until(r.complete(q.Window.To))))
	}
	name := dumpFile(at, reason, s)
	n, err := m.writeDump(r, q, reason, name)
	if err != nil {
		m.log.Error("writing a dump", zap.String("reason", reason), zap.Error(err))
		return
	}
	m.dumps.Add(1)
	m.log.Info("dump written", zap.String("file", r.path(name)), zap.String("reason", reason), zap.Int("packets", n))
	if err := r.removeOld(); err != nil {
		m.log.Error("keeping few dumps", zap.Error(err))
	}
}

func (r *recorder) path(name string) string { return filepath.Join(r.Directory, name) }

func dumpFile(at time.Time, reason string, s Selection) string {
	what := "all"
	switch {
	case s.Flow != 0:
		what = fmt.Sprint(s.Flow)
	case len(s.Services) > 0:
		what = strings.Join(s.Services, "+")
	case len(s.Backends) > 0:
		what = strings.Join(s.Backends, "+")
	}
	name := notInNames.ReplaceAllString(reason, "-") + "-" + notInNames.ReplaceAllString(what, "-")
	return at.UTC().Format("20060102T150405.000Z") + "-" + name[:min(len(name), 150)] + ".pcapng"
}

// writeDump writes the file under a temporary name first.
func (m *Manager) writeDump(r *recorder, q DumpQuery, reason, name string) (n int, err error) {
	f, err := os.CreateTemp(r.Directory, name+".*.tmp")
	if err != nil {
		return 0, fmt.Errorf("make dump: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the error that there is says more
		}
	}()
	buffered := bufio.NewWriterSize(f, 1<<20)
	if n, err = m.dump(r, q, reason, buffered); err == nil {
		err = buffered.Flush()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return n, fmt.Errorf("write dump: %w", err)
	}
	if err := os.Rename(f.Name(), r.path(name)); err != nil {
		return n, fmt.Errorf("rename dump: %w", err)
	}
	return n, nil
}
