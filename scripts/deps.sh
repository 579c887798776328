#!/bin/bash
# The one list of Debian packages that building and testing need, and why.
#
#   scripts/deps.sh list      print the names
#   scripts/deps.sh missing   print what is not installed; exit 1 if anything
#   scripts/deps.sh install   install what is missing, as root or by sudo -n
#
# Installing never starts a service: a package that brings a daemon (nginx,
# redis, sshd) would otherwise open a port on the developer's machine.
set -euo pipefail

# name              what needs it
PACKAGES='
bird2               deploy/bird is run for real
ca-certificates     Go modules are fetched over TLS
debian-archive-keyring  mmdebstrap checks the signatures of the systemd box
curl                end-to-end tests: an HTTP client that is not ours
dnsperf             end-to-end tests: many DNS queries
gcc                 the race detector links with cgo
git                 the version in the binary comes from git describe
haproxy             bench: the peer to beat
iperf3              end-to-end tests and bench: bulk TCP and UDP
iproute2            policy routing in deploy/ and in the lab
iptables            deploy/iptables is applied for real
keepalived          deploy/keepalived is run for real
knot                end-to-end tests and look-ups of backends: a DNS server
knot-dnsutils       end-to-end tests: kdig, a DNS client, reads the query log too
knot-module-dnstap  end-to-end tests: the query log of the DNS server
libc6-dev           the race detector links with cgo
libnginx-mod-stream bench: nginx as a TCP proxy
make                the entry point
mmdebstrap          builds the root directory of the systemd box
netsniff-ng         bench: netsniff-ng captures, trafgen sends frames
nftables            deploy/nft is applied for real
nginx               end-to-end tests: an HTTP server that is not ours
openssh-client      end-to-end tests: a long interactive session
openssh-server      end-to-end tests: a long interactive session
openssl             a TLS client whose ClientHello is parsed
postgresql          end-to-end tests: a database
procps              sysctl checks deploy/sysctl.d
prometheus          promtool checks metrics and alert rules
redis-server        end-to-end tests: many small requests
redis-tools         end-to-end tests: redis-benchmark
shellcheck          lint of every shell script
sip-tester          end-to-end tests: SIP calls
socat               end-to-end tests: half-closed connections
strace              tests that count system calls
systemd             systemd-analyze checks the unit
systemd-container   systemd-nspawn boots the systemd box
tcpdump             tests that look at the wire; bench: captures
tcpreplay           bench: sends frames
tshark              tests that look at the wire
util-linux          nsenter for the systemd box; unshare for servers of the end-to-end tests that do not run as root
wireshark-common    tests of capture files: capinfos, editcap, mergecap; bench: dumpcap captures
wrk                 end-to-end tests and bench: HTTP load
'

names() { awk 'NF { print $1 }' <<<"$PACKAGES"; }

missing() {
	local name
	while read -r name; do
		# shellcheck disable=SC2016 # ${...} is dpkg-query's own syntax
		if [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) != installed ]]; then
			echo "$name"
		fi
	done < <(names)
}

# as_root runs a command with root's rights, or says why it cannot.
as_root() {
	if [[ $EUID -eq 0 ]]; then
		"$@"
	elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
		sudo -n "$@"
	else
		return 77
	fi
}

# hold_services makes invoke-rc.d and deb-systemd-invoke refuse every start
# (policy 101) until release_services puts back what was there.
POLICY=/usr/sbin/policy-rc.d
KEPT=$POLICY.tproxyd-kept

hold_services() {
	release_services # what an earlier run left behind when it was killed
	if [[ -e $POLICY || -L $POLICY ]]; then
		as_root mv "$POLICY" "$KEPT"
	fi
	trap release_services EXIT
	printf '#!/bin/sh\n# tproxyd scripts/deps.sh\nexit 101\n' | as_root tee "$POLICY" >/dev/null
	as_root chmod 755 "$POLICY"
}

release_services() {
	if grep -qsxF '# tproxyd scripts/deps.sh' "$POLICY"; then
		as_root rm -f "$POLICY"
	fi
	if [[ -e $KEPT || -L $KEPT ]]; then
		as_root mv "$KEPT" "$POLICY"
	fi
}

apt() {
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq \
		-o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" </dev/null
}

# update tries again while another apt holds the lists, which
# DPkg::Lock::Timeout does not wait for. A repository that cannot be reached
# is no reason to stop: the lists that are there may do.
update() {
	local try
	for try in {1..6}; do
		apt update && return
		echo "deps: apt-get update did not go through (try $try of 6)" >&2
		sleep 5
	done
	echo 'deps: going on with the package lists that are there' >&2
}

install_missing() {
	local -a want
	mapfile -t want < <(missing)
	if [[ ${#want[@]} -eq 0 ]]; then
		return
	fi
	if ! command -v apt-get >/dev/null; then
		echo "deps: not a Debian system; install what gives you these Debian packages: ${want[*]}" >&2
		return 1
	fi
	if ! as_root true; then
		echo "deps: these packages are missing: ${want[*]}" >&2
		echo "deps: as root: apt-get install --no-install-recommends ${want[*]}" >&2
		return 1
	fi
	echo "deps: installing ${want[*]}"
	hold_services
	update
	apt install -y --no-install-recommends "${want[@]}"
	mapfile -t want < <(missing)
	if [[ ${#want[@]} -ne 0 ]]; then
		echo "deps: still missing after apt-get install: ${want[*]}" >&2
		return 1
	fi
}

case ${1-} in
list) names ;;
missing)
	out=$(missing)
	[[ -z $out ]] || { echo "$out"; exit 1; }
	;;
install) install_missing ;;
*)
	echo "usage: $0 list|missing|install" >&2
	exit 2
	;;
esac
