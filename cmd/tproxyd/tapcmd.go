package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"

	"github.com/tproxyd/tproxyd/internal/admin"
	"golang.org/x/sys/unix"
)

func tapCommands() group {
	return group{"tap", []command{
		{"list", "list the captures, viewers and interfaces", cmdTapList},
		{"stats", "the same, for machines with --json", cmdTapStats},
		{"start", "start a capture", cmdTapStart},
		{"stop", "stop a capture and complete its file", cmdTapStop},
		{"live", "write packets to standard output as they come, as pcapng", cmdTapLive},
		{"dump", "write what the recorder has in memory, as pcapng", cmdTapDump},
	}}
}

const tapPath = "/api/v1/tap"

func cmdTapList(ctx context.Context, e env, args []string) error {
	return showTap(ctx, e, "tap list", args, writeCaptures)
}

func cmdTapStats(ctx context.Context, e env, args []string) error {
	return showTap(ctx, e, "tap stats", args, writeTapStats)
}

func showTap(ctx context.Context, e env, name string, args []string, write func(io.Writer, admin.TapStatus) error) error {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	to := addClientFlags(fs)
	asJSON := fs.Bool("json", false, "print the answer of "+tapPath)
	if err := parse(e, fs, args); err != nil {
		return err
	}
	var status admin.TapStatus
	if shown, err := to.show(ctx, e, *asJSON, tapPath, nil, &status); shown || err != nil {
		return err
	}
	return write(e.stdout, status)
}

func writeCaptures(w io.Writer, s admin.TapStatus) error {
	t := newTable("CAPTURE", "STATE", "PACKETS", "BYTES", "LOST", "FILES", "DIRECTORY", "ERROR")
	for _, c := range s.Captures {
		state := "stopped"
		if c.Running {
			state = "running"
		}
		t.row(c.Name, state, decimal(c.Packets), decimal(c.Bytes), decimal(c.RingDrops+c.SinkDrops), strconv.FormatInt(c.Files, 10), c.Directory, c.LastError)
	}
	return t.write(w)
}

func writeTapStats(w io.Writer, s admin.TapStatus) error {
	t := newTable("OF", "NAME", "PACKETS", "BYTES", "RING DROPS", "FREEZES", "SINK DROPS")
	row := func(of string, c admin.TapCounts) {
		t.row(of, c.Name, decimal(c.Packets), decimal(c.Bytes), decimal(c.RingDrops), decimal(c.Freezes), decimal(c.SinkDrops))
	}
	for _, c := range s.Captures {
		row("capture", c.TapCounts)
	}
	for _, v := range s.Viewers {
		row("viewer", v)
	}
	for _, i := range s.Interfaces {
		of := "interface"
		if i.Recorder {
			of = "recorder"
		}
		t.row(of, i.Name, decimal(i.Packets), "", decimal(i.Drops), decimal(i.Freezes), "")
	}
	return t.write(w)
}

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }

func cmdTapStart(ctx context.Context, e env, args []string) error {
	return setCapture(ctx, e, "start", "started", args)
}

func cmdTapStop(ctx context.Context, e env, args []string) error {
	return setCapture(ctx, e, "stop", "stopped", args)
}

func setCapture(ctx context.Context, e env, state, done string, args []string) error {
	// The name may come before the flags, where package flag would stop.
	var name string
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		name, args = args[0], args[1:]
	}
	fs := flag.NewFlagSet("tap "+state+" CAPTURE", flag.ContinueOnError)
	to := addClientFlags(fs)
	if err := parse(e, fs, args); err != nil {
		return err
	}
	if name == "" {
		return usageError{fmt.Errorf("tap %s: want the name of a capture, as tproxyd tap list has it", state)}
	}
	c, err := to.client()
	if err != nil {
		return err
	}
	if _, err := c.do(ctx, http.MethodPost, tapPath+"/captures/"+segment(name), []byte(`{"state": "`+state+`"}`)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "capture %s is %s\n", name, done)
	return err
}

// packetFlags are what chooses packets.
type packetFlags struct {
	service, backend, client, flow, protocol, direction, filter, profile string
	all                                                                  bool
}

func addPacketFlags(fs *flag.FlagSet) *packetFlags {
	f := addFlowFlags(fs)
	fs.StringVar(&f.backend, "backend", "", "only flows to the backend of this `name`")
	fs.StringVar(&f.protocol, "protocol", "", "only this `protocol`: tcp or udp")
	fs.StringVar(&f.direction, "direction", "both", "`direction` as the interfaces see it: both, in or out")
	fs.StringVar(&f.filter, "filter", "", "only packets that match this `expression` of tcpdump, such as 'port 443'")
	return f
}

// addFlowFlags adds those that Wireshark offers, too.
func addFlowFlags(fs *flag.FlagSet) *packetFlags {
	f := &packetFlags{}
	fs.StringVar(&f.service, "service", "", "only flows of the service of this `name`")
	fs.StringVar(&f.client, "client", "", "only flows of clients in this `prefix`, or of this address")
	fs.StringVar(&f.flow, "flow", "", "only the flow of this `id`, both legs")
	fs.StringVar(&f.profile, "profile", "payload", "headers: cut packets behind their TCP or UDP header; or `payload`")
	fs.BoolVar(&f.all, "all", false, "also packets that belong to no flow")
	return f
}

func (f *packetFlags) query(more ...string) url.Values {
	q := query(append(more, "service", f.service, "backend", f.backend, "client", f.client, "flow", f.flow,
		"protocol", f.protocol, "direction", f.direction, "filter", f.filter, "profile", f.profile)...)
	if f.all {
		q.Set("all", "true")
	}
	return q
}

// check finds what the daemon would refuse, without asking it.
func (f *packetFlags) check(command string, q url.Values, parse func(string) (admin.TapQuery, error)) error {
	_, err := parse(q.Encode())
	if err == nil {
		if err = checkFilter(f.filter); err != nil {
			err = fmt.Errorf("--filter: %w", err)
		}
	}
	if err != nil {
		return usageError{fmt.Errorf("%s: %w", command, err)}
	}
	return nil
}

func cmdTapLive(ctx context.Context, e env, args []string) error {
	fs := flag.NewFlagSet("tap live", flag.ContinueOnError)
	to, packets := addClientFlags(fs), addPacketFlags(fs)
	count := fs.Int("count", 0, "end after this `number` of packets; 0: never")
	gso := fs.String("gso", "host", "wire: cut super-frames to what the wire has; or `host`")
	err := parse(e, fs, args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(e.stdout, "For example: tproxyd tap live --service web | wireshark -k -i -")
	}
	if err != nil {
		return err
	}
	q := packets.query("count", strconv.Itoa(*count), "gso", *gso)
	if err := packets.check("tap live", q, admin.ParseLiveQuery); err != nil {
		return err
	}
	if isTerminal(e.stdout) {
		return usageError{errors.New("tap live: packets are not for a terminal: write tproxyd tap live | wireshark -k -i -, or > FILE")}
	}
	return streamPackets(ctx, to, tapPath+"/live", q, e.stdout)
}

// streamPackets copies packets to w, until they end, the reader of w goes, or a
// signal comes: all of these are a good end.
func streamPackets(ctx context.Context, to *clientFlags, path string, q url.Values, w io.Writer) error {
	c, err := to.client()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM, unix.SIGPIPE)
	defer stop()
	err = c.stream(ctx, path, q, &wholeBlocks{w: w})
	if ctx.Err() != nil || errors.Is(err, unix.EPIPE) {
		return nil
	}
	return err
}

func cmdTapDump(ctx context.Context, e env, args []string) error {
	fs := flag.NewFlagSet("tap dump", flag.ContinueOnError)
	to, packets := addClientFlags(fs), addPacketFlags(fs)
	last := fs.Duration("last", 0, "how far back, such as 30s; 0s: all there is")
	output := fs.String("output", "", "write to this `file`, which is replaced when all is there, and not to standard output")
	if err := parse(e, fs, args); err != nil {
		return err
	}
	var back string
	if *last != 0 {
		back = last.String()
	}
	q := packets.query("last", back)
	if err := packets.check("tap dump", q, admin.ParseDumpQuery); err != nil {
		return err
	}
	switch {
	case *output != "":
		return writeDump(ctx, to, q, *output)
	case isTerminal(e.stdout):
		return usageError{errors.New("tap dump: packets are not for a terminal: give --output FILE")}
	}
	return streamPackets(ctx, to, tapPath+"/dump", q, e.stdout)
}

// writeDump makes a file that is whole as soon as it has its name. Packets are not
// for everybody, so that it is only its owner's.
func writeDump(ctx context.Context, to *clientFlags, q url.Values, path string) error {
	c, err := to.client()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	defer stop()
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return fmt.Errorf("write dump: %w", err)
	}
	err = c.stream(ctx, tapPath+"/dump", q, f)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
