#!/bin/bash
# Runs the Go tests under the race detector: race.sh TIMEOUT
#
# The builds use all CPUs. The test binaries that make namespaces run one at a
# time: they share the machine's descriptors and pipes, and two ends of every
# load. The others have nothing in common and run side by side.
#
# The checks of go vet are left out here, as "make lint" runs all of them.
set -euo pipefail

timeout=$1
go=${GO:-go}
namespaces=github.com/tproxyd/tproxyd/internal/netnstest

alone=() together=()
while read -r package imports; do
	if [[ " $imports " == *" $namespaces "* || $package == "$namespaces" ]]; then
		alone+=("$package")
	else
		together+=("$package")
	fi
done < <("$go" list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{join .TestImports " "}} {{join .XTestImports " "}}{{end}}' ./...)

if [[ ${#alone[@]} -eq 0 || ${#together[@]} -eq 0 ]]; then
	echo 'race: packages with or without namespaces not found; has the search rotted?' >&2
	exit 1
fi

# Both, whatever becomes of the first.
status=0
"$go" test -race -count 1 -vet=off -timeout "$timeout" "${together[@]}" || status=1
"$go" test -race -count 1 -vet=off -p 1 -timeout "$timeout" "${alone[@]}" || status=1
exit $status
