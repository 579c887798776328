#!/bin/bash
# Fuzzes every fuzz target of the repository for a while and then runs all
# tests several times over: soak.sh FUZZTIME COUNT
set -euo pipefail

fuzztime=$1
count=$2
go=${GO:-go}
found=0

while read -r package; do
	# go test -list prints the targets, then a line "ok  package".
	targets=$("$go" test -list '^Fuzz' "$package")
	while read -r target; do
		found=$((found + 1))
		echo "soak: $package $target for $fuzztime"
		"$go" test -run '^$' -fuzz "^$target\$" -fuzztime "$fuzztime" "$package"
	done < <(grep '^Fuzz' <<<"$targets")
done < <("$go" list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...)

if [[ $found -eq 0 ]]; then
	echo 'soak: no fuzz target found; has the search rotted?' >&2
	exit 1
fi

echo "soak: $found fuzz targets done; all tests $count times"
"$go" test -race -p 1 -timeout 60m -count "$count" ./...
