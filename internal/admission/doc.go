// Package admission decides who may open a flow: by lists of prefixes, by how
// many flows a client has, and by how fast it opens them. The event loops ask
// it once per new flow; it never allocates there and never waits for more than
// the few instructions that another worker holds a shard for.
//
// Invariants:
//   - The lists never change. A reload makes a new Control.
//   - The longest prefix of both lists that matches decides. The same prefix in
//     both denies. An address that none matches is admitted if there is no allow
//     list. An IPv4-mapped IPv6 address, or prefix, is the IPv4 one.
//   - A client is a prefix. What is known of it is the number of its flows and one
//     stamp, the theoretical arrival time of GCRA: the time at which its bucket of
//     tokens is full. With no flows and the stamp in the past, an entry says
//     nothing that a missing one would not say, so it may be given to another
//     client at any time: taking it never changes a verdict.
//   - The table has room for MaxClients. When no entry of the client's shard is
//     found that says nothing, a newcomer is let in without being remembered
//     (TableFull): whoever can fill the table has that many clients' allowances
//     already, and refusing newcomers would let it lock out everybody else for no
//     more than that. Clients in the table stay limited.
//   - Every Admitted is ended by one Done, and nothing else is: not TableFull,
//     which counted nothing.
//   - Done goes to the Control that admitted the flow. If an Adopt between two
//     Controls said true, they have one table, and it may as well go to the
//     other. If it said false, it may not: that would end a flow which another
//     admitted.
//
// Reference: ITU-T I.371, annex A (generic cell rate algorithm, virtual
// scheduling).
package admission
