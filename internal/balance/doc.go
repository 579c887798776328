// Package balance chooses a backend for a flow. It is pure: no sockets, no
// clock, no goroutines.
//
// A Pool holds the members of a service and their state. A View of it is what
// one kind of flow may choose from, such as the members of one address family.
// Each worker has a Selector of its own over a View.
//
// Invariants:
//   - The members of a Pool and their order never change. What changes is their
//     State, by the control plane and under a lock, and their Load, by the
//     workers.
//   - Whoever changes a State computes what choosing needs from it, such as the
//     table of Maglev, and publishes it whole behind an atomic pointer. A
//     Selector compares one pointer per choice: it is never locked, never
//     allocates and never sees half a change.
//   - Maglev and SourceHash depend on the seed, the names, the weights and
//     nothing else: not on the order of the members, not on the architecture.
//     Nodes that agree on these choose alike, whatever their version; the golden
//     files of the tests are that promise.
//   - A member is chosen only if it is up, its weight is above 0, it is below
//     its limit and the flow has not tried it. Backups are chosen only when no
//     other member is left by these rules but the limit: a full member is
//     waited for.
//
// References: Eisenbud et al., "Maglev: A Fast and Reliable Software Network
// Load Balancer", NSDI 2016, section 3.4; Thaler and Ravishankar, "Using
// Name-Based Mappings to Increase Hit Rates", 1998 (rendezvous hashing);
// Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001.
package balance
