package balance_test

import (
	"testing"

	"github.com/tproxyd/tproxyd/internal/balance"
)

func TestSetIsBounded(t *testing.T) {
	var s balance.Set
	for i := range 3 * balance.MaxTries {
		s.Add(1000 + i)
		s.Add(1000 + i) // twice is once
	}
	if s.Len() != balance.MaxTries || !s.Has(1000) || !s.Has(1000+balance.MaxTries-1) || s.Has(1000+balance.MaxTries) || s.Has(0) {
		t.Errorf("%d members: %v", s.Len(), s)
	}
}
