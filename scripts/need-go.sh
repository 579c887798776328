#!/bin/sh
# Says what to do when Go is missing or older than go.mod asks for: an old go
# command would stop at go.mod with a message about its syntax.
set -eu

need=$(awk '$1 == "go" { print $2; exit }' go.mod)

if ! command -v go >/dev/null; then
	echo "tproxyd is built with Go $need or newer, and there is no 'go' in PATH." >&2
	echo "Install Go (https://go.dev/dl, or your distribution's golang package if it is new enough)," >&2
	echo "put its bin directory into PATH and run make again." >&2
	exit 1
fi

# In this directory a go command since 1.21 answers for the toolchain that
# go.mod made it fetch, unless GOTOOLCHAIN=local forbids that.
have=$(go env GOVERSION 2>/dev/null) || have=0-unknown
have=${have#go}
oldest=$(printf '%s\n%s\n' "$need" "${have%% *}" | sort -V | head -n 1)
if [ "$oldest" != "$need" ]; then
	echo "tproxyd is built with Go $need or newer; $(command -v go) is ${have}." >&2
	echo "Install a newer Go (https://go.dev/dl), put its bin directory first in PATH and run make again." >&2
	exit 1
fi
