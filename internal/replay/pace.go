package replay

import (
	"context"
	"time"
)

// Pace says when frames are due. The zero value is the recorded speed.
type Pace struct {
	Speed    float64 // a multiple of the recorded speed; 0 is 1
	PPS      float64 // frames per second, whatever was recorded; 0 is not used
	TopSpeed bool    // at once
}

// schedule is a Pace at work.
type schedule struct {
	Pace
	frames uint64        // so far
	offset time.Duration // of the last frame from the first, as recorded
	last   time.Time     // its recorded time
}

// next returns when the next frame is due after the first one. A time that
// goes backwards, or is missing, counts as no time passed.
func (s *schedule) next(recorded time.Time) time.Duration {
	n := s.frames
	s.frames++
	if s.TopSpeed {
		return 0
	}
	if s.PPS > 0 {
		return time.Duration(float64(n) / s.PPS * float64(time.Second))
	}
	if !recorded.IsZero() {
		if gap := recorded.Sub(s.last); !s.last.IsZero() && gap > 0 {
			s.offset += gap
		}
		s.last = recorded
	}
	if s.Speed > 0 {
		return time.Duration(float64(s.offset) / s.Speed)
	}
	return s.offset
}

// again begins another round: its first frame is due with the last of the one
// before.
func (s *schedule) again() { s.last = time.Time{} }

// Clock tells the time and lets it pass.
type Clock interface {
	Now() time.Time
	// Wait returns at a time, or with ctx's error when that ends first.
	Wait(ctx context.Context, until time.Time) error
}

// wall is the real clock.
type wall struct{}

// Now is the time of day.
func (wall) Now() time.Time { return time.Now() }

// Wait sleeps.
func (wall) Wait(ctx context.Context, until time.Time) error {
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
