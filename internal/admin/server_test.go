package admin_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tproxyd/tproxyd/internal/admin"
)

func TestNewRefuses(t *testing.T) {
	if _, err := admin.New(admin.Config{Addr: "127.0.0.1:0"}); err == nil {
		t.Error("nothing to show: no error")
	}
	taken := serve(t, admin.Config{})
	_, err := admin.New(admin.Config{
		Addr: taken, Gatherer: prometheus.NewRegistry(), Live: isWell, Ready: isWell, Status: status,
	})
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), taken) {
		t.Errorf("second server on %s: %v", taken, err)
	}
}

// The server ends although a client is in the middle of its request.
func TestRunEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := admin.New(admin.Config{
		Listener: l, Gatherer: prometheus.NewRegistry(), Live: isWell, Ready: isWell, Status: status,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	if resp, _ := get(t, "http://"+s.Addr().String()+"/healthz"); resp.StatusCode != 200 {
		t.Error(resp.Status)
	}
	slow := dial(t, s.Addr().String(), "GET / HT")
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	waitCut(t, slow)
}

// A listener that breaks is an error, not a silent end.
func TestRunFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := admin.New(admin.Config{
		Listener: l, Gatherer: prometheus.NewRegistry(), Live: isWell, Ready: isWell, Status: status,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run on a closed listener: %v", err)
	}
}
