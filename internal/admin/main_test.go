package admin_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/tproxyd/tproxyd/internal/admin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func isWell() error { return nil }

// status is a daemon in the middle of its life.
func status() admin.Status {
	started := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	return admin.Status{
		Version:       "1.2.3",
		Started:       started,
		UptimeSeconds: 273840,
		PID:           4711,
		Ready:         true,
		Config: admin.ConfigStatus{
			Path:              "/etc/tproxyd/tproxyd.toml",
			LastReloadSuccess: true,
			LastReloadTime:    started.Add(time.Hour),
		},
		Limits:      admin.Limits{MaxConnections: 261000, MaxFlows: 1_048_576, Descriptors: 524288, MaxPipes: 512},
		Connections: admin.Flows{Active: 1234, Total: 98765432},
		Flows:       admin.Flows{Active: 1500, Total: 2_000_000},
		Services: []admin.Service{
			{
				Name: "web", Mode: "vip", Protocol: "tcp", Source: "client",
				Listen: []string{"203.0.113.10:443", "[2001:db8::10]:443"},
				Active: 1200, Total: 98765000, Rejected: 7,
				BytesIn: 1023, BytesOut: 5 << 40, QueueLength: 3, Routes: []string{"api"},
				Shadow: &admin.Shadow{Address: "198.18.2.9:8443", Percent: 10, Active: 3, Total: 1000, Failed: 12, Mismatches: 7, BytesSent: 1 << 20},
				Backends: []admin.Backend{
					{
						Name: "web-1", Address: "198.18.2.2:8443", Active: 600, Total: 49000000,
						Weight: 5, State: admin.BackendUp, AdminState: admin.AdminReady, Override: true, MaxConnections: 1000,
					},
					{
						Name: "web-2", Address: "198.18.2.3:8443", Active: 600, Total: 49765000, Failed: 12,
						Weight: 1, State: admin.BackendDown, Reason: "check: connect: connection refused", AdminState: admin.AdminReady,
					},
					{
						Name: "api/198.18.2.4:80", Address: "198.18.2.4:80", Route: "api",
						Weight: 1, Backup: true, State: admin.BackendDrain, Reason: "set at run time", AdminState: admin.AdminDrain, Override: true,
					},
				},
			},
			{
				Name: "all", Mode: "intercept", Protocol: "tcp", Source: "prefer-client",
				Listen: []string{"0.0.0.0:15001"},
				Active: 34, Total: 432, BytesIn: 1 << 20, BytesOut: 1536, Draining: true,
			},
			{
				Name: "dns", Mode: "vip", Protocol: "udp", Source: "client",
				Listen: []string{"203.0.113.10:443", "203.0.113.53:53"},
				Active: 1500, Total: 2_000_000, BytesIn: 66 << 20, BytesOut: 142 << 20,
				Backends: []admin.Backend{{
					Name: "dns-1", Address: "198.18.2.53:53", Active: 1500, Total: 1_999_999, Failed: 1,
					Weight: 1, State: admin.BackendStarting, Reason: "slow start: 40 % of its weight", AdminState: admin.AdminReady,
				}},
			},
		},
		Workers: []admin.Worker{{ID: 0, Connections: 617}, {ID: 1, Connections: 617, AcceptPaused: true}},
	}
}

// broken is a daemon where everything is wrong, and hostile.
func broken() admin.Status {
	s := status()
	s.Version = ""
	s.Ready, s.ReadyReason = false, "draining: <b>5 connections</b>"
	s.Config.LastReloadSuccess = false
	s.Config.LastError = `tproxyd.toml:3: service.name: "<script>alert(1)</script>"`
	s.Services[0].Name = `"><img src=x onerror=alert(1)>`
	s.Services[0].Backends[0].State = admin.BackendEjected
	s.Services[0].Backends[0].Reason = `answer "<script>alert(2)</script>"`
	s.Services[1].Listen = nil
	s.Workers = nil
	return s
}

// serve runs a server on loopback until the end of the test. What cfg does not
// say is well.
func serve(t *testing.T, cfg admin.Config) (base string) {
	t.Helper()
	if cfg.Addr == "" && cfg.Listener == nil {
		cfg.Addr = "127.0.0.1:0"
	}
	if cfg.Gatherer == nil {
		cfg.Gatherer = prometheus.NewRegistry()
	}
	if cfg.Live == nil {
		cfg.Live = isWell
	}
	if cfg.Ready == nil {
		cfg.Ready = isWell
	}
	if cfg.Status == nil {
		cfg.Status = status
	}
	s, err := admin.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s.Addr().String()
}

// get makes one request on a connection of its own.
func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	resp, body, err := tryGet(url)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

func tryGet(url string) (*http.Response, string, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), errors.Join(err, resp.Body.Close())
}
