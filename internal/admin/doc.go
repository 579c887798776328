// Package admin is the HTTP side door of the daemon: metrics, health, status, and
// the control of what runs.
//
//	/metrics        Prometheus text or OpenMetrics
//	/healthz        200 while the process works, else 503 and why
//	/readyz         200 while it takes connections, else 503 and why
//	/api/v1/status  a [Status] as JSON
//	/               the same for a person
//
//	/api/v1/services, /api/v1/services/{service}
//	/api/v1/backends?service=&state=
//	/api/v1/flows?service=&backend=&client=&protocol=&state=&sort=&order=&limit=
//	/api/v1/services/{service}/backends/{backend}  POST changes it
//	/api/v1/flows/{id}                             DELETE cuts it
//
//	/api/v1/tap                                    what is captured, a [TapStatus]
//	/api/v1/tap/captures/{name}                    POST starts or stops it
//	/api/v1/tap/live?service=&filter=&count=&...   pcapng while packets come, see [ParseLiveQuery]
//	/api/v1/tap/dump?last=&flow=&service=&all=...  pcapng of the recorder, see [ParseDumpQuery]
//
// Callers give it functions that return values, and it never calls them while
// holding a lock. What is changed here lasts until the daemon ends.
//
// Invariants, also against hostile clients:
//   - A request has 16 KiB of header, no body, or one of 64 KiB if it changes
//     something, and one time-out to arrive in; the answer has the same time-out
//     to be taken. Packets may take for ever, while others do not need the
//     connection.
//   - Packets are handed out like changes are made: see the next.
//   - Nothing is changed over TCP unless Config.Write says so, nor at the request
//     of a web page: its Origin is refused, and a type of content demanded that a
//     browser asks about first. Over a unix socket everybody may change things whom
//     its mode lets connect.
//   - No more than Config.MaxConns connections are open. One more ends the one
//     that has been longest without progress, so that clients that sit and wait
//     cannot lock a scraper out.
//   - What goes into the page is escaped by html/template, and the page loads
//     nothing.
package admin
