#!/bin/sh
# Rules for services of mode "intercept": connections and datagrams to anybody
# on the given ports are handed to tproxyd, which finds the original destination
# by itself.
#
#   policy-routing.sh up && intercept.sh up    load, or replace
#   intercept.sh down                          remove
#
# Only the chain TPROXYD_INTERCEPT and the jump to it are touched. Needs root.
set -eu

# The destination ports to intercept, of TCP and of UDP; "none" is none. For UDP
# there has to be a service of its own, with protocol = "udp".
PORTS=${PORTS:-80 443}
UDP_PORTS=${UDP_PORTS:-none}

# What happens to new connections and UDP flows while tproxyd does not listen.
#
# block drops them: that is what the TPROXY target does without a listener.
# The service listens on LISTEN_IP4, LISTEN_IP6 and LISTEN_PORT. On the
# loopback addresses nobody can reach it in another way than through here.
#
# bypass lets them pass to their destination unproxied. TPROXY cannot do that,
# the socket match can: the service has to listen on any address, and on the
# intercepted ports themselves: "0.0.0.0:80", "[::]:80" and so on.
WHEN_DOWN=${WHEN_DOWN:-block}
LISTEN_IP4=${LISTEN_IP4:-127.0.0.1}
LISTEN_IP6=${LISTEN_IP6:-::1}
LISTEN_PORT=${LISTEN_PORT:-15001}

# policy-routing.sh delivers what has this mark.
STEER_MARK=${STEER_MARK:-0x7471}

CHAIN=TPROXYD_INTERCEPT

# deliver MATCH... prints the rules that take a packet to this host.
deliver() {
	echo "-A $CHAIN $* -j MARK --set-mark $STEER_MARK"
	echo "-A $CHAIN $* -j ACCEPT"
}

# intercept LISTEN_IP PROTOCOL PORT... prints the rules that hand the ports to
# tproxyd.
intercept() {
	listen_ip=$1
	protocol=$2
	shift 2
	for port in "$@"; do
		if [ "$port" = none ]; then
			continue
		fi
		if [ "$WHEN_DOWN" = block ]; then
			echo "-A $CHAIN -p $protocol --dport $port -j TPROXY --on-ip $listen_ip --on-port $LISTEN_PORT --tproxy-mark $STEER_MARK"
		else
			# --nowildcard counts listeners on any address, too.
			deliver -p "$protocol" --dport "$port" -m socket --transparent --nowildcard
		fi
	done
}

# rules LISTEN_IP ICMP prints the chain.
rules() {
	echo '*mangle'
	echo ":$CHAIN - [0:0]"
	# Packets of connections and flows that tproxyd has, on either side. ICMP
	# errors belong to the socket of the packet that they quote. A SYN goes to
	# TPROXY, which knows how to reopen a connection in TIME_WAIT. The socket
	# match makes the kernel put fragments together before any rule.
	deliver -p tcp ! --syn -m socket --transparent
	deliver -p udp -m socket --transparent
	deliver -p "$2" -m socket --transparent
	# Services of this host itself stay reachable, and so does what goes to
	# several hosts at once, like DHCP. IPv6 has no broadcast.
	echo "-A $CHAIN -m addrtype --dst-type LOCAL -j RETURN"
	echo "-A $CHAIN -m addrtype --dst-type MULTICAST -j RETURN"
	if [ "$2" = icmp ]; then
		echo "-A $CHAIN -m addrtype --dst-type BROADCAST -j RETURN"
	fi
	# Each port is a word.
	# shellcheck disable=SC2086
	intercept "$1" tcp $PORTS
	# shellcheck disable=SC2086
	intercept "$1" udp $UDP_PORTS
	echo COMMIT
}

# up IPTABLES LISTEN_IP ICMP replaces the whole chain in one step.
up() {
	rules "$2" "$3" | "$1-restore" --wait --noflush
	"$1" --wait -t mangle -C PREROUTING -j "$CHAIN" 2>/dev/null ||
		"$1" --wait -t mangle -A PREROUTING -j "$CHAIN"
}

down() {
	while "$1" --wait -t mangle -D PREROUTING -j "$CHAIN" 2>/dev/null; do :; done
	if "$1" --wait -t mangle -F "$CHAIN" 2>/dev/null; then
		"$1" --wait -t mangle -X "$CHAIN"
	fi
}

case $WHEN_DOWN in
block | bypass) ;;
*)
	echo "$0: WHEN_DOWN is '$WHEN_DOWN'; it can be block or bypass" >&2
	exit 2
	;;
esac

case ${1-} in
up | down)
	"$1" iptables "$LISTEN_IP4" icmp
	if [ -e /proc/net/if_inet6 ]; then
		"$1" ip6tables "$LISTEN_IP6" ipv6-icmp
	fi
	;;
*)
	echo "usage: [PORTS='PORT...'] [UDP_PORTS='PORT...'] [WHEN_DOWN=block|bypass] [LISTEN_PORT=...] $0 up|down" >&2
	exit 2
	;;
esac
