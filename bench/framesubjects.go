package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/tproxyd/tproxyd/bench/wire"
)

// The subjects of the works with frames. Ours captures to files that it writes
// over, and sends by the method that zcsend chooses.
const (
	theNewFile    = "tproxyd-new-file"
	theTcpdump    = "tcpdump"
	theDumpcap    = "dumpcap"
	theNetsniff   = "netsniff-ng"
	theGopacket   = "gopacket"
	theRing       = "zc-ring"
	theRingBypass = "zc-ring-bypass"
	theMMsg       = "zc-mmsg"
	theGSO        = "zc-gso"
	theSpliceUDP  = "zc-splice-udp"
	theSpliceRaw  = "zc-splice-raw"
	theTrafgen    = "trafgen"
	theTcpreplay  = "tcpreplay"
	theSendTo     = "sendto"
	theSendMMsg   = "sendmmsg"
)

// frameSubjects are all but ours, which is a proxy, too.
func frameSubjects() []subject {
	return []subject{
		{name: theNewFile, capture: captureToNewFile, asked: true},
		{name: theTcpdump, capture: tcpdumpCommand, version: versionOf(theTcpdump, "--version")},
		{name: theDumpcap, capture: dumpcapCommand, version: versionOf(theDumpcap, "--version")},
		{name: theNetsniff, capture: netsniffCommand, version: netsniffVersion(theNetsniff)},
		{name: theGopacket, capture: gopacketCommand, asked: true, version: gopacketVersion},
		{name: theRing, send: method("ring"), use: sendAll},
		{name: theRingBypass, send: method("ring-bypass"), use: sendIFB},
		{name: theMMsg, send: method("mmsg"), use: sendPlain},
		{name: theGSO, send: method("gso"), use: sendPlain},
		{name: theSpliceUDP, send: method("splice-udp"), use: sendRouted},
		{name: theSpliceRaw, send: method("splice-raw"), use: sendRouted},
		{name: theTrafgen, send: trafgenCommand, version: netsniffVersion(theTrafgen)},
		{name: theTcpreplay, send: tcpreplayCommand, version: versionOf(theTcpreplay, "--version")},
		{name: theSendTo, send: plain("sendto")},
		{name: theSendMMsg, send: plain("sendmmsg")},
	}
}

func versionOf(name string, args ...string) func(context.Context, *options) (string, error) {
	return func(ctx context.Context, _ *options) (string, error) { return firstLine(ctx, name, args...) }
}

// netsniffVersion asks a program of netsniff-ng, whose exit code after that is 1.
func netsniffVersion(name string) func(context.Context, *options) (string, error) {
	return func(ctx context.Context, _ *options) (string, error) {
		out, err := exec.CommandContext(ctx, name, "--version").CombinedOutput()
		line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		if !strings.HasPrefix(line, name) {
			return "", fmt.Errorf("run %s --version: %w (install netsniff-ng, or leave it out with --subjects): %s", name, err, line)
		}
		return line, nil
	}
}

func gopacketVersion(context.Context, *options) (string, error) {
	info, _ := debug.ReadBuildInfo()
	if info != nil {
		for _, m := range info.Deps {
			if m.Path == "github.com/gopacket/gopacket" {
				return m.Version, nil
			}
		}
	}
	return "unknown", nil
}

// captureSpec is what a capturing subject is told.
type captureSpec struct {
	link, dir string
	work      work
}

func selfCommand(args ...string) ([]string, error) {
	self, err := os.Executable()
	return append([]string{self}, args...), err
}

func captureCommand(c captureSpec) ([]string, error) {
	encoding := c.work.tap.encoding
	return selfCommand(partRingcap, encoding, c.link, c.dir, fmt.Sprint(c.work.tap.fileBytes))
}

func captureToNewFile(c captureSpec) ([]string, error) {
	return selfCommand(partRingcap, c.work.tap.encoding, c.link, c.dir, "0")
}

// tcpdumpCommand: -Z root because in the sandbox there is no other user, -p as
// none of the others is promiscuous either.
func tcpdumpCommand(c captureSpec) ([]string, error) {
	return []string{
		"tcpdump", "-i", c.link, "-n", "-p", "-Z", "root", "-B", fmt.Sprint(ringBytes >> 10), "-s", "0",
		"-w", filepath.Join(c.dir, "tcpdump.pcap"),
	}, nil
}

func dumpcapCommand(c captureSpec) ([]string, error) {
	return []string{"dumpcap", "-q", "-i", c.link, "-p", "-B", fmt.Sprint(ringBytes >> 20), "-w", filepath.Join(c.dir, "dumpcap.pcapng")}, nil
}

func netsniffCommand(c captureSpec) ([]string, error) {
	return []string{
		"netsniff-ng", "--in", c.link, "--out", filepath.Join(c.dir, "netsniff.pcap"), "--silent", "--mmap", "--no-promisc", "--no-hwtimestamp",
		"--ring-size", fmt.Sprintf("%dMiB", ringBytes>>20),
	}, nil
}

func gopacketCommand(c captureSpec) ([]string, error) {
	return selfCommand(partGopacket, c.link, c.dir)
}

// sendSpec is what a sending subject is told.
type sendSpec struct {
	link, dir string
	work      work
}

// sendUse says at which works a way of sending is worth a row.
type sendUse uint8

const (
	sendAll    sendUse = iota
	sendPlain          // ordinary frames
	sendIFB            // only to an interface that takes frames where they lie
	sendRouted         // only where a route leads
)

func (u sendUse) fits(s *sendShape) bool {
	switch u {
	case sendAll:
		return true
	case sendPlain:
		return s.segments == 1
	case sendIFB:
		return s.ifb
	case sendRouted:
		return s.segments == 1 && !s.ifb
	}
	return true
}

// method sends by a method of zcsend.
func method(name string) func(sendSpec) ([]string, error) {
	return func(s sendSpec) ([]string, error) {
		return selfCommand(partFrames, s.link, name, fmt.Sprint(s.work.send.size), fmt.Sprint(s.work.send.segments), "0")
	}
}

func plain(call string) func(sendSpec) ([]string, error) {
	return func(s sendSpec) ([]string, error) {
		return selfCommand(partPlain, s.link, call, fmt.Sprint(s.work.send.size))
	}
}

// trafgenCommand: one process, in which trafgen uses its ring and bypasses the
// queueing discipline by default.
func trafgenCommand(s sendSpec) ([]string, error) {
	var b strings.Builder
	b.WriteString("{")
	for i, c := range wire.Frame(s.work.send.size, 1) {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, " 0x%02x", c)
	}
	b.WriteString(" }\n")
	path, err := writeConfig(s.dir, "trafgen.cfg", b.String())
	return []string{"trafgen", "--dev", s.link, "--conf", path, "--cpus", "1", "--num", "0", "--no-cpu-stats", "--notouch-irq"}, err
}

// tcpreplayCommand: 1,000 frames, read into memory before they are sent.
func tcpreplayCommand(s sendSpec) ([]string, error) {
	const frames = 1000
	frame := wire.Frame(s.work.send.size, 1)
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	put := func(v ...uint32) {
		for _, x := range v {
			_, _ = w.Write(binary.NativeEndian.AppendUint32(nil, x)) // to memory
		}
	}
	put(0xa1b2c3d4, 4<<16|2, 0, 0, 1<<18, 1)
	for i := range uint32(frames) {
		put(1, i, uint32(len(frame)), uint32(len(frame)))
		_, _ = w.Write(frame)
	}
	_ = w.Flush()
	path, err := writeConfig(s.dir, "frames.pcap", b.String())
	return []string{"tcpreplay", "--intf1", s.link, "--preload-pcap", "--topspeed", "--loop", "0", "--quiet", path}, err
}
