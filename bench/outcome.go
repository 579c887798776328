package main

import (
	"time"

	"github.com/tproxyd/tproxyd/bench/load"
)

// outcome is what became of one run of datagrams.
type outcome struct {
	rate     float64       // asked for
	seconds  float64       // in which it was sent
	delay    time.Duration // that the backend took for an answer
	sent     load.DatagramReport
	received load.DatagramReport
}

// loss is a share of what was sent; all, if nothing was.
func (o outcome) loss() float64 {
	if o.sent.Sent == 0 || o.received.Received > o.sent.Sent {
		return 1
	}
	return float64(o.sent.Sent-o.received.Received) / float64(o.sent.Sent)
}

func (o outcome) reordered() float64 {
	if o.received.Received == 0 {
		return 0
	}
	return float64(o.received.Reordered) / float64(o.received.Received)
}

// achieved is the rate at which it was sent.
func (o outcome) achieved() float64 { return float64(o.sent.Sent) / o.seconds }

// good tells whether the proxy can go on like this for ever.
func (o outcome) good() bool {
	if o.loss() > tolerableLoss {
		return false
	}
	return o.rate <= slowRate || o.keptUp() && !o.lagged()
}

// keptUp tells whether the client sent what it should. Less, and it is the client
// that was measured.
func (o outcome) keptUp() bool { return o.achieved() >= 0.9*o.rate }

// lagged tells whether the last one sent was late: then there was a queue.
func (o outcome) lagged() bool {
	sending := time.Duration(o.sent.LastSentNS - o.sent.FirstSentNS)
	late := time.Duration(o.received.LastReceivedNS-o.sent.LastSentNS) - o.delay
	return late > max(tolerableLag, time.Duration(tolerableLagShare*float64(sending)))
}

// rates are the highest without loss, as found by the last search, by work and
// subject.
type rates map[string]map[string]float64

func (r rates) set(work, subject string, rate float64) {
	if r[work] == nil {
		r[work] = map[string]float64{}
	}
	r[work][subject] = rate
}

// common is a rate at which all subjects do the work without loss; 0 if none is
// known.
func (r rates) common(work string) float64 {
	const margin = 0.7
	least := 0.0
	for _, rate := range r[work] {
		if least == 0 || rate < least {
			least = rate
		}
	}
	return least * margin
}
