package main

import (
	"fmt"
	"math"
)

const (
	// searchPrecision ends a search: the rate that lost is at most this much
	// above the one that did not.
	searchPrecision = 1.08
	// searchAttempts is how often a rate is tried. Whatever disturbs the
	// machine can only add to the loss, so one attempt without is enough.
	searchAttempts = 2
	// searchTrials bounds the rates that are tried in one search.
	searchTrials = 24
	maxStep      = 2
	// searchFloor is the rate at which a loss is no matter of speed.
	searchFloor = 500
	// searchCeiling is beyond what one processor can send.
	searchCeiling = 64e6
)

// search looks for the highest rate at which nothing is lost.
type search struct {
	guess float64 // where it begins
	step  float64 // factor to the next rate while the other bound is not known; it grows to maxStep
	// try tells whether a rate works.
	try func(rate float64) (bool, error)
	// expired tells that the time is over. The search still goes down until
	// there is a rate that works.
	expired func() bool
}

// run returns the highest rate seen to work. It is an error if none is.
func (s search) run() (float64, error) {
	good, bad := 0.0, math.Inf(1)
	rate, step := s.guess, s.step
	for range searchTrials {
		ok, err := s.attempt(rate)
		if err != nil {
			return 0, err
		}
		if ok {
			good = rate
		} else {
			bad = rate
		}
		switch {
		case good == 0:
			if bad <= searchFloor {
				return 0, fmt.Errorf("datagrams are lost even at %s a second", number(bad))
			}
			rate = max(searchFloor, bad/step)
		case s.expired() || bad/good <= searchPrecision || good >= searchCeiling:
			return good, nil
		case math.IsInf(bad, 1):
			rate = good * step
		default:
			rate = math.Sqrt(good * bad)
		}
		step = min(step*step, maxStep)
	}
	if good == 0 {
		return 0, fmt.Errorf("no rate without loss in %d trials, the last at %s a second", searchTrials, number(bad))
	}
	return good, nil
}

func (s search) attempt(rate float64) (bool, error) {
	for range searchAttempts {
		ok, err := s.try(rate)
		if ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}
