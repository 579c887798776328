package main

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/tproxyd/tproxyd/config"
	"github.com/tproxyd/tproxyd/internal/accesslog"
)

// accessLog is the access log in the format that the configuration now asks
// for. Workers of the data plane call Get and Offer. There is a sink for each
// format from the start to the end, so that a reload loses no record and no
// count of lost ones.
type accessLog struct {
	json, haproxy *accesslog.Sink
	current       atomic.Pointer[accesslog.Sink]

	cancel context.CancelFunc
	done   sync.WaitGroup
}

// newAccessLog starts the sinks, which write to w.
func newAccessLog(w io.Writer, onError func(error)) (*accessLog, error) {
	newSink := func(f accesslog.Format) (*accesslog.Sink, error) {
		return accesslog.New(accesslog.Config{W: w, Format: f, OnError: onError})
	}
	a := &accessLog{}
	var err, err2 error
	a.json, err = newSink(accesslog.FormatJSON)
	a.haproxy, err2 = newSink(accesslog.FormatHAProxy)
	if err = errors.Join(err, err2); err != nil {
		return nil, err
	}
	a.current.Store(a.json)
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	for _, sink := range []*accesslog.Sink{a.json, a.haproxy} {
		a.done.Go(func() { _ = sink.Run(ctx) }) // always nil
	}
	return a, nil
}

// set changes the format. Off leaves the last one in place for flows that
// began before.
func (a *accessLog) set(access config.Access) {
	switch access {
	case config.AccessJSON:
		a.current.Store(a.json)
	case config.AccessHAProxy:
		a.current.Store(a.haproxy)
	case config.AccessOff:
	}
}

// close writes what is queued, for a bounded time.
func (a *accessLog) close() {
	a.cancel()
	a.done.Wait()
}

// Get implements proxy.Records.
func (a *accessLog) Get() []accesslog.Record { return a.current.Load().Get() }

// Offer implements proxy.Records.
func (a *accessLog) Offer(b []accesslog.Record) bool { return a.current.Load().Offer(b) }

// dropped is the number of records that were lost.
func (a *accessLog) dropped() uint64 { return a.json.Dropped() + a.haproxy.Dropped() }
