package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/packet"
	"github.com/tproxyd/tproxyd/internal/replay"
	"github.com/tproxyd/tproxyd/zcsend"
)

// replayFlags is the command line of replay.
type replayFlags struct {
	file, device, method string
	force, asJSON        bool
	cfg                  replay.Config
}

func cmdReplay(ctx context.Context, e env, args []string) error {
	f, err := parseReplay(e, args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := refuseDefaultRoute(f.device, f.force); err != nil {
		return err
	}
	method, err := zcsend.ParseMethod(f.method)
	if err != nil {
		return usageError{fmt.Errorf("replay: %w", err)}
	}
	sender, err := zcsend.Open(zcsend.Config{Interface: f.device, Method: method})
	if err != nil {
		return err
	}
	out := &replaySender{sender: sender}
	f.cfg.Sender = out
	f.cfg.Open = func() (io.ReadCloser, error) { return os.Open(f.file) }
	if isTerminal(e.stderr) && !f.asJSON {
		f.cfg.Progress = func(s replay.Summary) {
			fmt.Fprintf(e.stderr, "\r%s ", replayLine(s, sender.Stats()))
		}
	}
	summary, err := replay.Run(ctx, f.cfg)
	if f.cfg.Progress != nil {
		fmt.Fprint(e.stderr, "\r\x1b[K")
	}
	stats := sender.Stats()
	err = errors.Join(err, sender.Close())
	return errors.Join(printReplay(e, f, summary, stats), replayResult(f.file, summary, err))
}

// replayResult is the error of a replay that did not send all it could.
func replayResult(file string, s replay.Summary, err error) error {
	switch {
	case err != nil:
		return fmt.Errorf("replay %s: %w", file, err)
	case s.Refused > 0:
		return fmt.Errorf("replay %s: %d frames were refused, the first because: %w", file, s.Refused, s.Refusal)
	}
	return nil
}

func parseReplay(e env, args []string) (*replayFlags, error) {
	f := &replayFlags{}
	fs := flag.NewFlagSet("replay", flag.ContinueOnError)
	pace, maps := &f.cfg.Pace, &f.cfg.Rewrite
	fs.StringVar(&f.device, "interface", "", "send by this `interface`")
	fs.StringVar(&f.method, "method", "auto", "send by this `method`: ring, mmsg, gso, splice-udp, splice-raw; gso cuts TCP frames longer than the MTU")
	fs.BoolVar(&f.force, "force", false, "also on an interface with a default route")
	fs.BoolVar(&f.asJSON, "json", false, "print the summary as JSON")
	fs.Float64Var(&pace.PPS, "pps", 0, "send `N` frames per second")
	fs.Float64Var(&pace.Speed, "speed", 0, "send at `X` times the recorded speed (default 1)")
	fs.BoolVar(&pace.TopSpeed, "topspeed", false, "send as fast as it goes")
	fs.IntVar(&f.cfg.Rounds, "loop", 1, "send the file `N` times")
	fs.Func("map-ip", "rewrite an address, or a prefix into one of the same length: `OLD=NEW`; may be repeated", maps.AddIP)
	fs.Func("map-port", "rewrite a port of TCP and UDP: `OLD=NEW`; may be repeated", maps.AddPort)
	fs.Func("map-mac", "rewrite an Ethernet address: `OLD=NEW`; may be repeated", maps.AddMAC)
	fs.Func("vlan", "put all frames into VLAN `ID`, or none", maps.SetVLAN)
	fs.BoolVar(&maps.Checksums, "checksums", false, "compute the checksums of all frames, not only of those that are rewritten")
	var err error
	if f.file, err = parseFile(e, fs, args); err != nil {
		return nil, err
	}
	modes := 0
	for _, set := range []bool{pace.PPS != 0, pace.Speed != 0, pace.TopSpeed} {
		if set {
			modes++
		}
	}
	switch {
	case f.device == "":
		err = errors.New("--interface is missing")
	case modes > 1:
		err = errors.New("only one of --pps, --speed and --topspeed can be")
	case !(pace.PPS >= 0) || !(pace.Speed >= 0): // NaN too
		err = errors.New("--pps and --speed have to be positive")
	case f.cfg.Rounds < 1:
		err = errors.New("--loop has to be at least 1")
	}
	if err != nil {
		return nil, usageError{fmt.Errorf("replay: %w", err)}
	}
	return f, nil
}

// parseFile reads flags and the one argument before or behind them.
func parseFile(e env, fs *flag.FlagSet, args []string) (string, error) {
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		return args[0], parse(e, fs, args[1:])
	}
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	if err := fs.Parse(args); err != nil {
		return "", parse(e, fs, args) // to say it as ever
	}
	if fs.NArg() == 0 {
		return "", usageError{fmt.Errorf("%s: FILE is missing; see tproxyd %s --help", fs.Name(), fs.Name())}
	}
	return fs.Arg(0), parse(e, fs, fs.Args()[1:])
}

// replaySummary is the summary as JSON.
type replaySummary struct {
	File      string `json:"file"`
	Interface string `json:"interface"`
	replay.Summary
	Bytes   uint64  `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

func printReplay(e env, f *replayFlags, s replay.Summary, stats zcsend.Stats) error {
	if f.asJSON {
		return printJSON(e.stdout, replaySummary{f.file, f.device, s, stats.Bytes, s.Duration.Seconds()})
	}
	_, err := fmt.Fprintln(e.stdout, replayLine(s, stats))
	return err
}

func replayLine(s replay.Summary, stats zcsend.Stats) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d frames, %d bytes in %v", s.Sent, stats.Bytes, s.Duration.Round(time.Millisecond))
	if sec := s.Duration.Seconds(); sec > 0 {
		fmt.Fprintf(&b, ", %.0f frames/s", float64(s.Sent)/sec)
	}
	for _, other := range []struct {
		n    uint64
		text string
	}{{s.Refused, "refused"}, {s.Truncated, "cut short by the capture and not sent"}, {s.Skipped, "not Ethernet and not sent"}} {
		if other.n > 0 {
			fmt.Fprintf(&b, ", %d %s", other.n, other.text)
		}
	}
	return b.String()
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// replaySender gives frames to a zcsend.Sender.
type replaySender struct {
	sender *zcsend.Sender
	frames []zcsend.Frame
}

func (r *replaySender) Send(ctx context.Context, frames [][]byte) (int, error) {
	r.frames = r.frames[:0]
	for _, b := range frames {
		r.frames = append(r.frames, zcsend.Frame{Data: b, SegmentSize: r.segment(b)})
	}
	return r.sender.Send(ctx, r.frames)
}

// segment is the size that a TCP frame longer than the MTU is cut into, which a
// capture has where the kernel had not cut or had joined it yet. A datagram of
// UDP cannot be cut without becoming several.
func (r *replaySender) segment(frame []byte) int {
	if r.sender.Method() != zcsend.GSO {
		return 0
	}
	l, _ := packet.Parse(frame)
	if l.Protocol != unix.IPPROTO_TCP || l.Payload == 0 || l.End-l.L3 <= r.sender.MTU() {
		return 0
	}
	return max(0, r.sender.MTU()-(l.Payload-l.L3))
}
