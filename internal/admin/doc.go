// Package admin is the HTTP side door of the daemon: metrics, health, status.
//
//	/metrics        Prometheus text or OpenMetrics
//	/healthz        200 while the process works, else 503 and why
//	/readyz         200 while it takes connections, else 503 and why
//	/api/v1/status  a [Status] as JSON
//	/               the same for a person
//
// It only shows; nothing can be changed here. Callers give it functions that
// return values, and it never calls them while holding a lock.
//
// Invariants, also against hostile clients:
//   - A request has no body, 16 KiB of header and one time-out to arrive in;
//     the answer has the same time-out to be taken.
//   - No more than Config.MaxConns connections are open. One more ends the one
//     that has been longest without progress, so that clients that sit and wait
//     cannot lock a scraper out.
//   - What goes into the page is escaped by html/template, and the page loads
//     nothing.
package admin
