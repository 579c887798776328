package config

import "time"

// Ejection is the passive check: a backend that fails flows in a row gets none
// for a while.
type Ejection struct {
	Failures          int           // in a row, never 0
	BaseTime          time.Duration // of the first ejection, doubled for each further one
	MaxTime           time.Duration // never below BaseTime
	MaxEjectedPercent int           // of the backends of a pool
}

// readEjection reads [service.ejection].
func (t table) readEjection(s *Service) {
	t, ok := t.nested(kindEjection)
	if !ok {
		return
	}
	allowed := span{least: 10 * time.Millisecond, most: 24 * time.Hour}
	e := &Ejection{
		Failures:          int(t.between("failures", 1, maxResults)),
		BaseTime:          t.duration("base_time", allowed),
		MaxTime:           t.duration("max_time", allowed),
		MaxEjectedPercent: int(t.integer("max_ejected_percent", 100)),
	}
	e.MaxTime = t.notBelow("max_time", e.MaxTime, "base_time", e.BaseTime)
	s.Ejection = e
}

// notBelow gives the duration of a key that must not be below another. A
// default follows the other.
func (t table) notBelow(key string, d time.Duration, other string, least time.Duration) time.Duration {
	if d == 0 || d >= least { // 0: noted
		return d
	}
	if _, given := t.values[key]; given {
		t.r.failf(t.at(key), "write at least "+formatDuration(least)+", or a shorter "+other,
			"%s is shorter than %s, %s", formatDuration(d), other, formatDuration(least))
	}
	return least
}
