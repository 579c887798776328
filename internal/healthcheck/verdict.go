package healthcheck

import (
	"go.uber.org/zap"
)

// pathVerdict is whether answers to a spoofed address come back.
type pathVerdict uint8

const (
	pathUnknown pathVerdict = iota
	pathBroken
	pathOK
)

// log tells what is new about the target.
func (r *runner) log(result *Result, path pathVerdict) {
	log := r.checks.options.Log
	fields := func() []zap.Field {
		f := []zap.Field{
			zap.String("service", result.Service), zap.String("backend", result.Backend),
			zap.Stringer("address", r.target.Addr), zap.Stringer("result", result.Outcome), zap.String("detail", result.Detail),
		}
		if r.target.Spoof.IsValid() {
			f = append(f, zap.Stringer("source", r.target.Spoof))
		}
		return f
	}
	if path != pathUnknown && path != r.path {
		switch {
		case path == pathBroken:
			log.Warn("return path broken: "+returnPathDetail, fields()...)
		case r.path == pathBroken:
			log.Info("return path works again", fields()...)
		}
		r.path = path
	}
	if failed := result.Outcome == Failed; failed != r.failed && result.Outcome != Late {
		if failed {
			log.Error("health check cannot be made; the backend keeps its state", fields()...)
		} else {
			log.Info("health check can be made again", fields()...)
		}
		r.failed = failed
	}
	if ce := log.Check(zap.DebugLevel, "health check"); ce != nil {
		ce.Write(append(fields(), zap.Duration("duration", result.Duration))...)
	}
}
