// Package health decides which members of a pool may be chosen and with what
// weight, from what active checks, the data plane and people say of them. It is
// pure: no sockets, no goroutines, and the time is what the caller says it is.
//
// A [Group] holds the members of one pool. It is told what happened, returns
// the [Transition]s that follow, and says by [Group.Effective] what the pool is
// to choose from. The checks themselves are made by internal/healthcheck.
//
// A member is out of use for one of these reasons, of which the first that holds
// is its [State]:
//
//	maintenance  a person took it out
//	down         active checks failed
//	drain        a person wants no new flows there, or its weight is 0
//	ejected      flows to it failed, for a time
//
// Invariants:
//   - A member goes down after Fall bad checks in a row and up after Rise good
//     ones, so checks that alternate change nothing if both are 2 or more.
//   - Of n members that would be in use but for ejection, primaries and backups
//     together, at most MaxEjectedPercent are ejected, rounded down, but one if n
//     is above 1 and the percentage above 0. When n shrinks, ejections end early, the
//     one nearest its end first. So the last member is never ejected at less than
//     100 per cent.
//   - An ejection lasts EjectBase; each further one twice as long, up to EjectMax.
//     For each EjectBase that passes after the first success since its return,
//     one doubling is forgiven.
//   - A member that comes up, comes back from ejection or leaves maintenance
//     starts slowly. One that is up when the process starts, or that passes all
//     of its first checks then, does not; one that is added later does.
//   - With PanicOpen, members that only checks or ejection exclude count as up
//     when nobody else is left. Drain and maintenance are a person's will and
//     hold even then.
//
// References: HAProxy's configuration manual for rise, fall, slowstart and the
// scaling of weights; Envoy's documentation of outlier detection and the panic
// threshold.
package health
