// Command bench measures tproxyd side by side with its peers: HAProxy (TCP
// only), nginx stream, a plain Go proxy, and no proxy at all.
//
//	go run ./bench --json --rounds 3 --work tcp_keepalive_64,tcp_connect_64
//
// Four further subjects are tproxyd itself: tproxyd-full, the same program that
// checks its backends every second, holds every client against a list of 1,000
// prefixes and chooses by Maglev; tproxyd-shadow, which copies what clients send;
// tproxyd-tap, which records the headers of all packets; and with --other PATH,
// other, which is another build of it.
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
// UDP works are measured at a fixed rate, the same for all subjects. In the first
// round each subject's highest rate without loss is searched, and the common
// rate is 70 % of the lowest of them; later rounds search again, near the last
// result. That rate is a figure of its own (max_rate); that of direct is what
// the load generator can do. Loss counts to the last datagram, and is reported,
// because a disturbance of the machine is enough for some; a datagram that is
// damaged, doubled, or not from its client's address and port fails the
// measurement.
//
// shadow_cost is tcp_bulk_up with and without a shadow. copied is the share that
// it got: a copy that is given up costs nothing.
//
// health_200 has no clients: what is counted is the time that a daemon takes
// which checks 200 backends every second, per cent of one processor, next to one
// that checks none.
//
// The works tap_* and send_* have no proxy: they compare ringcap with tcpdump,
// dumpcap, netsniff-ng and gopacket, and zcsend with trafgen, tcpreplay, sendto
// and sendmmsg. Those who capture get the same frames at the same rate, and what
// their files lack is loss; those who send do so as fast as they can.
//
// A measurement with a single wrong or missing byte, a failed connection, or a
// connection that does not come from the client's address is reported as
// failed, its figures are dropped, and the exit code is 1.
package main
