package logsink_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/tproxyd/tproxyd/internal/logsink"
)

// clock stands still.
type clock struct{}

func (clock) Now() time.Time { return time.Date(2026, 2, 3, 4, 5, 6, 789e6, time.UTC) }

func (clock) NewTicker(d time.Duration) *time.Ticker { return time.NewTicker(d) }

func TestFormats(t *testing.T) {
	tests := []struct{ format, want string }{
		{"json", `{"level":"warn","time":"2026-02-03T04:05:06.789Z","logger":"proxy.worker","msg":"accept \"paused\"","worker":3,"for":"50ms","error":"no \"fds\""}` + "\n"},
		{"console", "2026-02-03T04:05:06.789Z\twarn\tproxy.worker\taccept \"paused\"\t" + `{"worker": 3, "for": "50ms", "error": "no \"fds\""}` + "\n"},
	}
	for _, tt := range tests {
		t.Run(tt.format, func(t *testing.T) {
			var out bytes.Buffer
			log, sink, err := logsink.New(logsink.Config{Format: tt.format, W: &out})
			if err != nil {
				t.Fatal(err)
			}
			log = log.WithOptions(zap.WithClock(clock{}))
			log.Named("proxy").Named("worker").Warn(`accept "paused"`,
				zap.Int("worker", 3), zap.Duration("for", 50*time.Millisecond), zap.Error(errors.New(`no "fds"`)))
			log.Debug("not at this level")
			if err := sink.Close(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, out.String()); diff != "" {
				t.Errorf("log (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLevelChanges(t *testing.T) {
	var out bytes.Buffer
	log, sink, err := logsink.New(logsink.Config{Level: "error", W: &out})
	if err != nil {
		t.Fatal(err)
	}
	child := log.Named("child")
	child.Info("one")
	if err := sink.SetLevel("debug"); err != nil {
		t.Fatal(err)
	}
	child.Debug("two")
	if err := sink.SetLevel("warn"); err != nil {
		t.Fatal(err)
	}
	child.Info("three")
	if err := sink.SetLevel("loud"); err == nil {
		t.Error("SetLevel accepted an unknown level")
	}
	child.Warn("four")
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	got := out.String()
	if strings.Count(got, "\n") != 2 || !strings.Contains(got, `"two"`) || !strings.Contains(got, `"four"`) {
		t.Errorf("want the lines two and four, got\n%s", got)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, cfg := range map[string]logsink.Config{
		"no writer": {},
		"level":     {W: io.Discard, Level: "loud"},
		"format":    {W: io.Discard, Format: "xml"},
	} {
		if _, _, err := logsink.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// fill writes dots into a pipe until no more fit.
func fill(t *testing.T, w *os.File) {
	t.Helper()
	conn, err := w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	dots := bytes.Repeat([]byte("."), 4096)
	var full error
	err = conn.Write(func(fd uintptr) bool {
		for full == nil {
			_, full = syscall.Write(int(fd), dots)
		}
		return true
	})
	if err != nil || !errors.Is(full, syscall.EAGAIN) {
		t.Fatalf("fill pipe: %v, %v", err, full)
	}
}

// A full pipe that nobody reads blocks its writer.
func TestFullPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // only read
	fill(t, w)
	log, sink, err := logsink.New(logsink.Config{W: w, Queue: 64, CloseTimeout: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	const lines = 5000
	text := strings.Repeat("x", 200)
	for range lines {
		log.Info(text) // must return although nothing is ever read
	}
	if err := sink.Sync(); err == nil {
		t.Error("Sync reports success on a full pipe")
	}
	if err := sink.Close(); err == nil {
		t.Error("Close reports success on a full pipe")
	}
	log.Info("after Close")

	// The write that hung ends now; what arrives and what was dropped is all.
	read := make(chan int)
	go func() {
		data, _ := io.ReadAll(r)
		read <- bytes.Count(data, []byte("\n"))
	}()
	if !sinkWriterEnded(sink) {
		t.Fatal("the writer did not end after the pipe was read")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := <-read; uint64(got)+sink.Dropped() != lines+1 {
		t.Errorf("%d lines read and %d dropped of %d", got, sink.Dropped(), lines+1)
	}
}

// sinkWriterEnded waits until the goroutine of a closed sink has ended.
func sinkWriterEnded(s *logsink.Sink) bool {
	deadline := time.Now().Add(10 * time.Second)
	for s.Close() != nil {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

func TestSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out slowWriter
		log, sink, err := logsink.New(logsink.Config{W: &out, CloseTimeout: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			log.Info("slow")
		}
		if err := log.Sync(); err != nil {
			t.Fatal(err)
		}
		if out.lines != 3 {
			t.Errorf("Sync returned with %d of 3 lines written", out.lines)
		}
		for range 30 {
			log.Info("slow")
		}
		start := time.Now()
		if err := log.Sync(); err == nil {
			t.Error("Sync reports 30 s of writing done")
		}
		if got := time.Since(start); got != 10*time.Second {
			t.Errorf("Sync waited %v of at most 10s", got)
		}
		// Close has another 10 s, so 20 of the 30 lines are out, or in hand.
		if err := sink.Close(); err == nil {
			t.Error("Close reports 30 s of writing done")
		}
		synctest.Wait()
		if sink.Dropped() < 9 || sink.Dropped() > 11 {
			t.Errorf("%d lines dropped, want about 10", sink.Dropped())
		}
		time.Sleep(time.Second) //nolint:forbidigo // the clock of synctest; the last write
	})
}

// slowWriter takes a second for each line.
type slowWriter struct{ lines int }

func (w *slowWriter) Write(p []byte) (int, error) {
	time.Sleep(time.Second) //nolint:forbidigo // the clock of synctest
	w.lines++
	return len(p), nil
}

func TestBrokenStderr(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()                   //nolint:errcheck // nothing can be written
	if err := r.Close(); err != nil { // from here on a write gives EPIPE
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stderr = w
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != childOK {
		t.Errorf("child with a broken stderr: %v, want exit status %d; it says %q", err, childOK, out)
	}
}
