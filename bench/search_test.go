package main

import (
	"errors"
	"math"
	"strings"
	"testing"
)

// limited is a proxy that loses nothing up to its limit.
func limited(limit float64, trials *int) func(float64) (bool, error) {
	return func(rate float64) (bool, error) {
		*trials++
		return rate <= limit, nil
	}
}

func never() bool { return false }

func TestSearchFindsLimit(t *testing.T) {
	for _, limit := range []float64{600, 999, 20_000, 87_654, 150_000, 1_234_567} {
		for _, s := range []search{{guess: 20_000, step: 2}, {guess: limit, step: 1.2}, {guess: limit * 3, step: 1.2}} {
			trials := 0
			s.try, s.expired = limited(limit, &trials), never
			got, err := s.run()
			if err != nil || got > limit || got < limit/searchPrecision {
				t.Errorf("limit %v, guess %v: found %v, %v, want within a factor of %v below", limit, s.guess, got, err, searchPrecision)
			}
			if trials > searchAttempts*searchTrials {
				t.Errorf("limit %v, guess %v: %d trials", limit, s.guess, trials)
			}
		}
	}
}

// A disturbance makes a rate lose that would not; it is tried again.
func TestSearchToleratesDisturbance(t *testing.T) {
	const limit = 100_000
	calls := 0
	s := search{guess: 20_000, step: 2, expired: never, try: func(rate float64) (bool, error) {
		calls++
		return rate <= limit && calls%2 == 0, nil // every other trial is disturbed
	}}
	if got, err := s.run(); err != nil || got < limit/searchPrecision || got > limit {
		t.Errorf("found %v, %v, want just below %v", got, err, limit)
	}
}

// When the time is over a rate that works is still found, and no better one.
func TestSearchBoundedInTime(t *testing.T) {
	trials := 0
	s := search{guess: 20_000, step: 2, expired: func() bool { return true }, try: limited(3000, &trials)}
	got, err := s.run()
	if err != nil || got != 2500 {
		t.Errorf("found %v, %v, want 2500, the first rate that works", got, err)
	}
	if want := 3*searchAttempts + 1; trials != want {
		t.Errorf("%d trials, want %d", trials, want)
	}
}

// A factor of 1 never gets anywhere.
func TestSearchBoundedInCount(t *testing.T) {
	trials := 0
	s := search{guess: 20_000, step: 1, expired: never, try: limited(math.Inf(1), &trials)}
	if got, err := s.run(); err != nil || trials != searchTrials || got != 20_000 {
		t.Errorf("found %v, %v in %d trials, want an end after %d", got, err, trials, searchTrials)
	}
	s.step = 2
	if got, err := s.run(); err != nil || got < searchCeiling {
		t.Errorf("found %v, %v, want the ceiling", got, err)
	}
}

// A guess that has become far too high costs few trials.
func TestSearchStepGrows(t *testing.T) {
	trials := 0
	s := search{guess: 1_000_000, step: 1.2, expired: func() bool { return true }, try: limited(100_000, &trials)}
	if got, err := s.run(); err != nil || got > 100_000 || trials > 5*searchAttempts+1 {
		t.Errorf("found %v, %v in %d trials, want at most 5 rates that are too high", got, err, trials)
	}
}

func TestSearchFails(t *testing.T) {
	trials := 0
	s := search{guess: 20_000, step: 2, expired: never, try: limited(0, &trials)}
	if _, err := s.run(); err == nil || !strings.Contains(err.Error(), "even at 500 a second") {
		t.Errorf("error = %v, want one that names the lowest rate", err)
	}
	broken := errors.New("proxy ended")
	s.try = func(float64) (bool, error) { return false, broken }
	if _, err := s.run(); !errors.Is(err, broken) {
		t.Errorf("error = %v, want %v", err, broken)
	}
	s.step, s.try = 1, limited(0, &trials)
	if _, err := s.run(); err == nil || !strings.Contains(err.Error(), "no rate without loss") {
		t.Errorf("error = %v, want one that tells of too many trials", err)
	}
}
