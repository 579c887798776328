// Command bench measures tproxyd side by side with its peers: HAProxy, nginx
// stream, a plain Go io.Copy proxy, and no proxy at all.
//
//	go run ./bench --json --rounds 3 --work tcp_keepalive_64,tcp_connect_64
//
// All of them stand in the same lab of three network namespaces, are reached
// over the same virtual address, connect to the same backend with the client's
// own address as source, and carry the load of the same generator. They take
// turns: in every round each work is done by every subject, and who begins
// changes from round to round, so that what disturbs the machine disturbs all.
// Every measurement starts the proxy anew.
//
// The proxy has a processor of its own; clients, backend and this program
// share another one. What is counted is the time of the proxy's threads, to
// the nanosecond (see the package procstat), and with it what the kernel's
// network code did on their behalf.
//
// A measurement with a single wrong or missing byte, a failed connection, or a
// connection that does not come from the client's address is reported as
// failed, its figures are dropped, and the exit code is 1.
package main
