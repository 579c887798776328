package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/bench/wire"
	"github.com/tproxyd/tproxyd/zcsend"
)

// frameShape is what the frames of a work look like.
type frameShape struct {
	size     int // of a frame on the wire, without its check sequence
	segments int // that a super-frame is of; 1: an ordinary frame
}

// bytes of a frame as the interface counts it.
func (f frameShape) bytes() int { return len(wire.Frame(f.size, f.segments)) }

// sentReport is what a part that sends frames answers.
type sentReport struct {
	Sent uint64 `json:"sent"` // frames; a super-frame is one
}

const frameBatch = 64

// runFrames sends frames by a method of zcsend until it is told to stop, at a
// rate or, if that is 0, as fast as it goes.
func runFrames(args []string) error {
	if len(args) != 5 {
		return errArguments
	}
	size, err1 := strconv.Atoi(args[2])
	segments, err2 := strconv.Atoi(args[3])
	rate, err3 := strconv.ParseFloat(args[4], 64)
	cfg, err4 := senderConfig(args[1])
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	cfg.Interface, cfg.SuperFrames = args[0], segments > 1 && cfg.Method != zcsend.GSO
	s, err := zcsend.Open(cfg)
	if err != nil {
		return err
	}
	frames := make([]zcsend.Frame, max(cfg.Batch, frameBatch))
	for i := range frames {
		frames[i].Data = wire.Frame(size, segments)
		if segments > 1 {
			frames[i].SegmentSize = wire.Payload(size)
		}
	}
	ctx := context.Background()
	err = sendUntilStopped(rate, len(frames), func(n int) error {
		_, err := s.Send(ctx, frames[:n])
		return err
	}, func() sentReport {
		st := s.Stats()
		return sentReport{Sent: st.Sent + st.InFlight}
	})
	return errors.Join(err, s.Close())
}

// senderConfig knows the methods of zcsend, and two of its rings that bypass the
// queueing discipline, as trafgen's does.
func senderConfig(method string) (cfg zcsend.Config, err error) {
	if method == "ring-bypass" {
		return zcsend.Config{Method: zcsend.Ring, Batch: 256, Bypass: true}, nil
	}
	cfg.Method, err = zcsend.ParseMethod(method)
	return cfg, err
}

// runPlain sends frames by sendto or sendmmsg alone.
func runPlain(args []string) error {
	if len(args) != 3 {
		return errArguments
	}
	size, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	p, err := wire.OpenPlain(args[0], wire.Frame(size, 1), frameBatch)
	if err != nil {
		return err
	}
	send := p.SendTo
	if args[1] == "sendmmsg" {
		send = p.SendMMsg
	}
	var sent atomic.Uint64
	err = sendUntilStopped(0, frameBatch, func(n int) error {
		n, err := send(n)
		sent.Add(uint64(n))
		return err
	}, func() sentReport { return sentReport{Sent: sent.Load()} })
	return errors.Join(err, p.Close())
}

// sendUntilStopped calls send until its input says stop or ends. It answers
// every line with a report, and begins with one.
func sendUntilStopped(rate float64, batch int, send func(int) error, report func() sentReport) error {
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() { stopped <- pace(stop, rate, batch, send) }()
	enc := json.NewEncoder(os.Stdout)
	if err := enc.Encode(report()); err != nil {
		return err
	}
	var failed error
	for scan := bufio.NewScanner(os.Stdin); scan.Scan(); {
		if scan.Text() == "stop" {
			close(stop)
			failed = <-stopped
			stop = nil
		}
		if err := errors.Join(failed, enc.Encode(report())); err != nil {
			return err
		}
	}
	if stop != nil {
		close(stop)
		failed = <-stopped
	}
	return failed
}

const (
	paceStep = time.Millisecond
	// paceDebt is how late a sender may be and still catch up: a longer stop of
	// the machine is not made good by a burst.
	paceDebt = 20 * time.Millisecond
)

func pace(stop <-chan struct{}, rate float64, batch int, send func(int) error) error {
	begin, sent := time.Now(), 0.0
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		n := batch
		if rate > 0 {
			due := rate * time.Since(begin).Seconds()
			sent = max(sent, due-rate*paceDebt.Seconds())
			if n = min(batch, int(due-sent)); n == 0 {
				time.Sleep(paceStep)
				continue
			}
		}
		if err := send(n); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("send frames: %w", err)
		}
		sent += float64(n)
	}
}

// strangerIP is whom all frames are for: an address of the network between client
// and proxy that nobody has.
var strangerIP = netip.MustParseAddr(wire.Destination)
