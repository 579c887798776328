# make          build bin/tproxyd
# make demo     build and show it at work in a lab of its own; needs Go, not root
# make test     everything CI runs; installs missing Debian packages if it may
# make lint     format, vet, module files, linters, shell scripts
# make race     the Go tests alone, under the race detector
# make soak     fuzz every target for FUZZTIME, then run the tests COUNT times
# make bench    side by side with HAProxy, nginx and others (bench/)
# make install  into DESTDIR and PREFIX
# make clean

GO       ?= go
PREFIX   ?= /usr
SYSCONFDIR ?= /etc
UNITDIR  ?= /lib/systemd/system
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

FUZZTIME ?= 20s
COUNT    ?= 5
# Per package. The slowest ones boot a whole systemd.
TIMEOUT  ?= 10m

# A program with the race detector sleeps for a second before it ends, and the
# tests start hundreds: their sandboxes and daemons.
export GORACE ?= atexit_sleep_ms=50

GOFUMPT  = $(GO) tool -modfile=tools/gofumpt/go.mod gofumpt
GOLANGCI = $(GO) tool -modfile=tools/golangci-lint/go.mod golangci-lint
SHELL_SCRIPTS = .ci/run $(wildcard scripts/*.sh deploy/*.sh deploy/*/*.sh)

.PHONY: build demo test deps lint race benchmarks soak bench install clean need-go

build: need-go
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/tproxyd ./cmd/tproxyd

need-go:
	@sh scripts/need-go.sh

demo: build
	bin/tproxyd demo

# One after the other, whatever -j says: the tests measure counters of the
# kernel. go test comes last, so that its summary ends the output.
test: need-go
	$(MAKE) deps
	$(MAKE) lint
	$(MAKE) benchmarks
	$(MAKE) race

deps:
	scripts/deps.sh install

lint: need-go
	@test -z "$$($(GOFUMPT) -l .)" || { $(GOFUMPT) -d .; echo 'lint: not in gofumpt form; run: $(GOFUMPT) -w .' >&2; exit 1; }
	$(GO) vet ./...
	$(GO) mod tidy -diff
	$(GOLANGCI) run ./...
	shellcheck $(SHELL_SCRIPTS)

# Once each, so that they cannot rot. Packages without any are not even linked.
benchmarks: need-go
	$(GO) test -vet=off -run '^$$' -bench . -benchtime 1x -timeout $(TIMEOUT) \
		$$(grep -rl --include='*_test.go' '^func Benchmark' . | xargs -n 1 dirname | sort -u)

race: need-go
	$(GO) build -race ./...
	GO='$(GO)' scripts/race.sh '$(TIMEOUT)'

soak: need-go
	GO='$(GO)' scripts/soak.sh '$(FUZZTIME)' '$(COUNT)'

bench: build
	$(GO) run ./bench --rounds 3

# Builds first unless bin/tproxyd is there: "make" as a user, then
# "sudo make install" without Go in root's PATH.
install:
	test -x bin/tproxyd || $(MAKE) build
	install -D -m 0755 bin/tproxyd $(DESTDIR)$(PREFIX)/sbin/tproxyd
	install -D -m 0644 tproxyd.toml.example $(DESTDIR)$(PREFIX)/share/doc/tproxyd/tproxyd.toml.example
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/doc/tproxyd README.md LICENSE docs/*.md
	install -d $(DESTDIR)$(PREFIX)/share/tproxyd $(DESTDIR)$(UNITDIR)
	cp -R deploy/nft deploy/iptables deploy/policy-routing.sh deploy/sysctl.d deploy/prometheus deploy/keepalived deploy/bird $(DESTDIR)$(PREFIX)/share/tproxyd/
	sed 's|/usr/sbin/|$(PREFIX)/sbin/|; s|/etc/tproxyd/|$(SYSCONFDIR)/tproxyd/|' deploy/tproxyd.service >$(DESTDIR)$(UNITDIR)/tproxyd.service
	chmod 0644 $(DESTDIR)$(UNITDIR)/tproxyd.service
	test -e $(DESTDIR)$(SYSCONFDIR)/tproxyd/tproxyd.toml || install -D -m 0644 tproxyd.toml.example $(DESTDIR)$(SYSCONFDIR)/tproxyd/tproxyd.toml

clean:
	rm -rf bin dist
