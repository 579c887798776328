package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// batch is how many frames are handed over together when all of them are due.
const batch = 64

// progressEvery is the time between two calls of Config.Progress.
const progressEvery = 200 * time.Millisecond

// Sender sends frames and returns how many it took, and why it refused the
// first that it did not. The frames are the caller's again when it returns.
type Sender interface {
	Send(ctx context.Context, frames [][]byte) (int, error)
}

// Config of a replay.
type Config struct {
	// Open opens the capture from its beginning, once for each round.
	Open    func() (io.ReadCloser, error)
	Sender  Sender
	Pace    Pace
	Rewrite Rewrite
	Rounds  int // 0 is one

	Clock    Clock         // the real one if nil
	Progress func(Summary) // called now and then, if not nil
}

// Summary is what was done.
type Summary struct {
	Sent      uint64        `json:"sent"`
	Refused   uint64        `json:"refused"`
	Truncated uint64        `json:"truncated"` // not sent: the capture has only a part
	Skipped   uint64        `json:"skipped"`   // not sent: no Ethernet
	Rounds    int           `json:"rounds"`
	Duration  time.Duration `json:"-"`
	// Refusal is the reason of the first that was refused.
	Refusal error `json:"-"`
}

// player is a replay at work.
type player struct {
	Config
	summary  Summary
	schedule schedule
	start    time.Time
	reported time.Time
	frames   [][]byte
}

// Run replays a capture. Frames that are refused do not end it; the error is
// about reading, or ctx's.
func Run(ctx context.Context, cfg Config) (Summary, error) {
	p := &player{Config: cfg, schedule: schedule{Pace: cfg.Pace}}
	if p.Clock == nil {
		p.Clock = wall{}
	}
	p.start = p.Clock.Now()
	p.reported = p.start
	var err error
	for range max(1, cfg.Rounds) {
		if err = p.round(ctx); err != nil {
			break
		}
		p.summary.Rounds++
		p.schedule.again()
	}
	if err == nil {
		err = p.flush(ctx)
	}
	p.summary.Duration = p.Clock.Now().Sub(p.start)
	return p.summary, err
}

func (p *player) round(ctx context.Context) (err error) {
	file, err := p.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	r, err := NewReader(file)
	if err != nil {
		return err
	}
	defer r.Close()
	defer func() { p.summary.Skipped += r.Skipped() }()
	for {
		packet, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errors.Join(err, p.flush(ctx))
		}
		if err := p.play(ctx, packet); err != nil {
			return err
		}
	}
}

// play sends a packet when it is due, together with those that were due before
// it and have not been handed over yet.
func (p *player) play(ctx context.Context, packet Packet) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	due := p.start.Add(p.schedule.next(packet.Time))
	if packet.Length > len(packet.Data) {
		p.summary.Truncated++
		return nil
	}
	if due.After(p.Clock.Now()) {
		if err := p.flush(ctx); err != nil {
			return err
		}
		if err := p.Clock.Wait(ctx, due); err != nil {
			return fmt.Errorf("replay: %w", err)
		}
	}
	p.frames = append(p.frames, p.Rewrite.Apply(packet.Data))
	if len(p.frames) >= batch {
		return p.flush(ctx)
	}
	return nil
}

// flush hands over what is due.
func (p *player) flush(ctx context.Context) error {
	if len(p.frames) == 0 {
		return nil
	}
	n, err := p.Sender.Send(ctx, p.frames)
	p.summary.Sent += uint64(n)
	p.summary.Refused += uint64(len(p.frames) - n)
	if err != nil && p.summary.Refusal == nil {
		p.summary.Refusal = err
	}
	clear(p.frames)
	p.frames = p.frames[:0]
	if now := p.Clock.Now(); p.Progress != nil && now.Sub(p.reported) >= progressEvery {
		p.reported = now
		s := p.summary
		s.Duration = now.Sub(p.start)
		p.Progress(s)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	return nil
}
