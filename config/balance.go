package config

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// What package balance takes; TestBalanceLimits of cmd holds that it is so.
const (
	maxWeight    = 256
	minTableSize = 3
	maxTableSize = 5_000_011
)

// algorithms are the values of balance.
var algorithms = []Algorithm{BalanceRoundRobin, BalanceLeastConn, BalanceRandomTwo, BalanceSourceHash, BalanceMaglev, BalanceFirst}

// aliases are what HAProxy, nginx and IPVS call our algorithms. It is never
// written to.
var aliases = map[string]Algorithm{
	"static-rr": BalanceRoundRobin, "rr": BalanceRoundRobin, "wrr": BalanceRoundRobin,
	"lc": BalanceLeastConn, "wlc": BalanceLeastConn,
	"random": BalanceRandomTwo, "random(2)": BalanceRandomTwo,
	"source": BalanceSourceHash, "ip_hash": BalanceSourceHash, "sh": BalanceSourceHash, "hash": BalanceSourceHash,
	"mh": BalanceMaglev,
}

// algorithmKeys are the keys that only some algorithms have. It is never written to.
var algorithmKeys = []struct {
	name string
	of   []Algorithm
}{
	{"hash", []Algorithm{BalanceMaglev}},
	{"maglev_table_size", []Algorithm{BalanceMaglev}},
	{"hash_seed", []Algorithm{BalanceSourceHash, BalanceMaglev}},
	{"slow_start", []Algorithm{BalanceRoundRobin, BalanceLeastConn, BalanceRandomTwo}},
}

// takes reports whether an algorithm has one of the algorithmKeys. Where it is not
// known every key is as good.
func (a Algorithm) takes(key string) bool {
	for _, k := range algorithmKeys {
		if k.name == key {
			return a == "" || slices.Contains(k.of, a)
		}
	}
	return true
}

// readBalance reads how flows are shared among the backends of s.
func (t table) readBalance(s *Service) {
	s.Balance = t.readAlgorithm()
	for _, k := range algorithmKeys {
		if !s.Balance.takes(k.name) {
			t.refuse(k.name, fmt.Sprintf("remove it, or write balance = %s", strings.ReplaceAll(quoteAll(k.of), ", ", " or ")),
				"balance = %q has no such key", string(s.Balance))
		}
	}
	if s.Balance.takes("hash") {
		s.Hash = choice(t, "hash", HashFiveTuple, HashClientIP)
		most := 0
		for _, p := range s.pools() {
			most = max(most, len(p.backends))
		}
		s.MaglevTableSize = t.tableSize(most)
	}
	if s.Balance.takes("hash_seed") {
		s.HashSeed = uint64(t.integer("hash_seed", math.MaxInt64)) // TOML has no greater integers
	}
	if s.Balance.takes("slow_start") {
		s.SlowStart = t.duration("slow_start", timeout)
	}
	for _, p := range s.pools() {
		t.checkWeights(p)
	}
}

// readAlgorithm gives the algorithm, or "" and notes why not.
func (t table) readAlgorithm() Algorithm {
	s, given, ok := t.text("balance")
	switch {
	case !ok:
		return ""
	case !given:
		return Algorithm(t.field("balance").value.(string))
	case slices.Contains(algorithms, Algorithm(s)):
		return Algorithm(s)
	}
	remedy := "write one of " + quoteAll(algorithms)
	if meant := nearest(s); meant != "" {
		remedy = fmt.Sprintf("write %q", string(meant))
	}
	t.r.failf(t.at("balance"), remedy, "%s is not known", quote(s))
	return ""
}

// nearest gives the algorithm that is meant, or "".
func nearest(s string) Algorithm {
	s = strings.ToLower(s)
	if a, ok := aliases[s]; ok {
		return a
	}
	for _, a := range algorithms {
		if distance(s, string(a)) <= len(a)/4 {
			return a
		}
	}
	return ""
}

// tableSize gives the number of slots of the Maglev table. It must be prime, so
// that every backend visits all slots, and each backend needs one.
func (t table) tableSize(backends int) int {
	before := len(t.r.errs)
	n := int(t.integer("maglev_table_size", maxTableSize))
	at := t.at("maglev_table_size")
	switch {
	case len(t.r.errs) > before: // noted
	case n < minTableSize:
		t.r.failf(at, fmt.Sprintf("write a prime number from %d to %d, such as 65537", minTableSize, maxTableSize), "%d is too small", n)
	case !prime(n):
		next := n + 1 // maxTableSize is prime: the search ends there
		for !prime(next) {
			next++
		}
		t.r.failf(at, fmt.Sprintf("write the next one, %d", next), "%d is no prime number", n)
	case n < backends:
		t.r.failf(at, "write a prime number that is 100 times as large or more, such as 65537", "%d slots are too few for %d backends", n, backends)
	}
	return n
}

func prime(n int) bool {
	for i := 2; i*i <= n; i++ {
		if n%i == 0 {
			return false
		}
	}
	return n > 1
}

// checkWeights notes pools that cannot be meant.
func (t table) checkWeights(p pool) {
	at := t.at(kindBackend)
	if p.route != "" {
		at = place{line: t.node.child(kindRoute).line, key: fmt.Sprintf("%s route %q backend", t.name, p.route)}
		for i, rt := range t.node.child(kindRoute).items {
			if i == p.index {
				at.line = rt.child(kindBackend).line
			}
		}
	}
	if !slices.ContainsFunc(p.backends, func(b Backend) bool { return b.Weight > 0 }) {
		t.r.warnf(at, "give one of them a weight above 0", "all backends have weight 0: all flows will be refused (no_backend)")
	}
	if !slices.ContainsFunc(p.backends, func(b Backend) bool { return !b.Backup }) {
		t.r.warnf(at, "remove backup from those that are to be used first", "all backends are backups: they are used as if none were")
	}
}
