// Package healthcheck asks backends whether they are well, each at its interval,
// and reports the answers. What follows from them is decided by internal/health.
//
// Invariants:
//   - A check is bounded in time and in bytes, whatever the backend sends, and
//     one of a target runs at a time until the target changes.
//   - The time of a check is the time that this process ran. It is counted by a
//     timer in quarters, and a quarter whose timer fires late, because the process
//     or the whole machine stood still, does not count: the answer may have been
//     there all the while, and is read before the next quarter ends. A check
//     that sees too many of those ends as [Late].
//   - Of what says nothing about the backend, [Late] and [Failed] (no descriptor,
//     no capability), only metrics and the log tell. It is never reported.
//   - TCP connections of checks are closed by RST (SO_LINGER 0), so no TIME_WAIT is left here: one is
//     closed only when its answer is known, and a backend that is checked each
//     second would otherwise hold 60 ports of every address that checks come
//     from. HAProxy does the same.
//   - A check with a spoofed source that gets no answer at all is repeated at once
//     with the host's own address. If that one is well and the spoofed one, once more,
//     has no answer again, only the routes of the backend are wrong: [NoReturnPath]. Clients would get no answer either, so
//     it counts as a bad one.
//
// References: ip(7) for IP_TRANSPARENT and IP_BIND_ADDRESS_NO_PORT, RFC 1035 for
// DNS messages, RFC 9112 for HTTP.
package healthcheck
