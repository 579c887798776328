#!/bin/sh
# Policy routing for tproxyd: packets with MARK are delivered to this host,
# whatever their destination address. The rules in nft/ and iptables/ set the
# mark. Needs root (CAP_NET_ADMIN).
#
#   policy-routing.sh up      add what is missing; again does no harm
#   policy-routing.sh down    remove it
#
# It does not survive a reboot: run it before the rules are loaded.
set -eu

MARK=${MARK:-0x7471}    # the same as in nft/ and iptables/
TABLE=${TABLE:-29809}   # a routing table of its own
PRIORITY=${PRIORITY:-1000} # before 32766, the main table

# families prints 4, and 6 unless IPv6 is switched off.
families() {
	echo 4
	if grep -qsx 0 /proc/sys/net/ipv6/conf/lo/disable_ipv6; then
		echo 6
	fi
}

has_rule() {
	[ -n "$(ip "-$1" rule list priority "$PRIORITY" fwmark "$MARK" table "$TABLE")" ]
}

up() {
	# A "local" route delivers to the host itself: ip-route(8). The route comes
	# first, because the rule without it would send marked packets to main.
	ip "-$1" route replace local default dev lo table "$TABLE"
	if ! has_rule "$1"; then
		ip "-$1" rule add priority "$PRIORITY" fwmark "$MARK" lookup "$TABLE"
	fi
}

down() {
	while has_rule "$1"; do
		ip "-$1" rule del priority "$PRIORITY" fwmark "$MARK" lookup "$TABLE"
	done
	# An empty or unknown table is an error, and what we want.
	ip "-$1" route flush table "$TABLE" 2>/dev/null || true
}

case ${1-} in
up | down)
	for family in $(families); do
		"$1" "$family"
	done
	;;
*)
	echo "usage: $0 up|down" >&2
	exit 2
	;;
esac
