#!/bin/sh
# Rules for services of mode "vip": the virtual addresses that tproxyd binds
# are delivered to it, though no interface of this host has them, and so are
# the answers of backends to connections and UDP flows that carry the client's
# address, and the ICMP errors about them.
#
#   policy-routing.sh up && vip.sh up    load, or replace
#   vip.sh down                          remove
#
# Only the chain TPROXYD_VIP and the jump to it are touched. Needs root.
set -eu

# The virtual addresses.
VIP4=${VIP4:-203.0.113.10}
VIP6=${VIP6:-2001:db8:f::10}

# What happens to new connections and UDP flows to them while tproxyd does not
# listen: block drops them, bypass lets them pass to where the routes lead.
WHEN_DOWN=${WHEN_DOWN:-block}

# The protocols that WHEN_DOWN is about. Without udp, say, what this host itself
# serves by UDP at these addresses is left alone.
PROTOCOLS=${PROTOCOLS:-tcp udp}

# policy-routing.sh delivers what has this mark.
STEER_MARK=${STEER_MARK:-0x7471}

CHAIN=TPROXYD_VIP

# rules VIPS ICMP prints the chain. A transparent socket, listening or
# connected, is bound to just the address and port that the packet goes to;
# listeners on any address do not count. ICMP errors belong to the socket of
# the packet that they quote. The socket match makes the kernel put fragments
# together before any rule: only the first one has ports to find a socket by.
rules() {
	echo '*mangle'
	echo ":$CHAIN - [0:0]"
	for protocol in tcp udp "$2"; do
		echo "-A $CHAIN -p $protocol -m socket --transparent -j MARK --set-mark $STEER_MARK"
		echo "-A $CHAIN -p $protocol -m socket --transparent -j ACCEPT"
	done
	if [ "$WHEN_DOWN" = block ]; then
		for vip in $1; do
			for protocol in $PROTOCOLS; do
				echo "-A $CHAIN -d $vip -p $protocol -j DROP"
			done
		done
	fi
	echo COMMIT
}

# up IPTABLES VIPS ICMP replaces the whole chain in one step.
up() {
	rules "$2" "$3" | "$1-restore" --wait --noflush
	"$1" --wait -t mangle -C PREROUTING -j "$CHAIN" 2>/dev/null ||
		"$1" --wait -t mangle -I PREROUTING -j "$CHAIN" # before intercept.sh's
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

for protocol in $PROTOCOLS; do
	case $protocol in
	tcp | udp) ;;
	*)
		echo "$0: PROTOCOLS has '$protocol'; it can have tcp and udp" >&2
		exit 2
		;;
	esac
done

case ${1-} in
up | down)
	"$1" iptables "$VIP4" icmp
	if [ -e /proc/net/if_inet6 ]; then
		"$1" ip6tables "$VIP6" ipv6-icmp
	fi
	;;
*)
	echo "usage: [VIP4='ADDRESS...'] [VIP6=...] [WHEN_DOWN=block|bypass] [PROTOCOLS='tcp udp'] $0 up|down" >&2
	exit 2
	;;
esac
