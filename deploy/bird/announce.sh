#!/bin/sh
# Announces the virtual addresses of a node while tproxyd is ready: enables the
# protocols of node.conf by birdc, and disables them when tproxyd has not been ready
# FALL times in a row, or this script ends. Run it under systemd, for instance:
#
#   [Service]
#   ExecStart=/usr/share/tproxyd/bird/announce.sh
#   Restart=always
#
# It says what it wants each time, not only when that changes, so a BIRD that was
# restarted announces again.
set -u

CHECK=${CHECK:-/usr/sbin/tproxyd status --check}
BIRDC=${BIRDC:-birdc}
PROTOCOLS=${PROTOCOLS:-vip4 vip6}
INTERVAL=${INTERVAL:-1} # seconds
RISE=${RISE:-2}
FALL=${FALL:-2}

# tell enables or disables all protocols.
tell() {
	for protocol in $PROTOCOLS; do
		# shellcheck disable=SC2086 # both may have arguments
		$BIRDC $1 "$protocol" >/dev/null || echo "announce: cannot $1 $protocol" >&2
	done
}

# go_to logs a change and makes it so.
go_to() {
	if [ "$state" != "$1" ]; then
		echo "announce: $1 $PROTOCOLS"
		state=$1
	fi
	tell "$state"
}

state=none
trap 'go_to disable; exit 0' TERM INT HUP
good=0
bad=0
go_to disable
while :; do
	if $CHECK >/dev/null 2>&1; then
		good=$((good + 1)) bad=0
	else
		bad=$((bad + 1)) good=0
	fi
	if [ "$good" -ge "$RISE" ]; then
		go_to enable
	elif [ "$bad" -ge "$FALL" ]; then
		go_to disable
	fi
	# In the background, as a shell hears signals only between commands.
	sleep "$INTERVAL" &
	wait $!
done
