package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/rules"
)

const (
	adminAddress  = "127.0.0.1:9180"
	interceptPort = 15001
	daemonMark    = 0x7470
	addedVIP      = "203.0.113.20" // served after the reload
)

// plan is the rules that go with the configuration.
func plan() rules.Plan {
	return rules.Plan{
		ExemptMark: daemonMark,
		Intercepts: []rules.Intercept{{
			Name: "demo",
			DestPrefixes: []netip.Prefix{
				netip.MustParsePrefix(lab.ForeignNet4), netip.MustParsePrefix(lab.ForeignNet6),
			},
			IifName:   lab.ClientLink,
			ToPort:    interceptPort,
			OnFailure: rules.Block,
		}},
	}
}

func configuration() string {
	return fmt.Sprintf(`[daemon]
mark = %d
drain_timeout = "10s"

[log]
format = "json"
access = "json"

[admin]
listen = %q

[[service]]
name = "vip"
mode = "vip"
listen = ["%s:80", "[%s]:80"]
source = "client"
%s
[[service]]
name = "intercept"
mode = "intercept"
listen = ["0.0.0.0:%d", "[::]:%[6]d"]
source = "client"

[[service]]
name = "dns"
protocol = "udp"
mode = "vip"
listen = ["%[3]s:53", "[%[4]s]:53"]
source = "client"
responses = 1
%[7]s
[[service]]
name = "dns-intercept"
protocol = "udp"
mode = "intercept"
listen = ["0.0.0.0:%[6]d", "[::]:%[6]d"]
source = "client"
responses = 1
`, daemonMark, adminAddress, lab.VIP4, lab.VIP6,
		backends(backendPort, lab.ServerIP4, lab.Server2IP4, lab.ServerIP6, lab.Server2IP6), interceptPort,
		backends(dnsPort, lab.ServerIP4, lab.Server2IP4, lab.ServerIP6, lab.Server2IP6)) + balancing() + mirrorTable()
}

func addedService() string {
	return fmt.Sprintf(`
[[service]]
name = "added"
mode = "vip"
listen = ["%s:80"]
source = "client"
%s`, addedVIP, backends(backendPort, lab.ServerIP4))
}

func backends(port string, addrs ...string) string {
	var b strings.Builder
	for _, a := range addrs {
		fmt.Fprintf(&b, "\n  [[service.backend]]\n  address = %q\n", net.JoinHostPort(a, port))
	}
	return b.String()
}

// daemon is the program under demonstration.
type daemon struct {
	dir, config string
	cmd         *lab.Cmd
	records     *records
	log         *tail
	ended       chan struct{}
	err         error // of the process, once ended is closed
}

// startDaemon runs the daemon in a host and waits until it is ready.
func startDaemon(ctx context.Context, host *lab.Host, exe string) (*daemon, error) {
	dir, err := os.MkdirTemp("", "tproxyd-demo-")
	if err != nil {
		return nil, err
	}
	dm := &daemon{
		dir: dir, config: filepath.Join(dir, "tproxyd.toml"),
		records: &records{}, log: &tail{}, ended: make(chan struct{}),
	}
	err = dm.configure(configuration())
	if err == nil {
		// It has to outlive ctx, to end by itself.
		dm.cmd = host.Command(context.WithoutCancel(ctx), exe, "run", "--config", dm.config)
		dm.cmd.Stdout, dm.cmd.Stderr = dm.records, dm.log
		err = dm.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	go dm.wait()
	err = eventually(ctx, stepLimit, func() error {
		select {
		case <-dm.ended:
			return final{fmt.Errorf("it ended: %w", dm.err)}
		default:
			return ready(ctx)
		}
	})
	if err != nil {
		err = fmt.Errorf("start %s run: %w; its last words: %s", exe, err, dm.log)
		return nil, errors.Join(err, dm.close())
	}
	return dm, nil
}

func (dm *daemon) wait() {
	dm.err = dm.cmd.Wait()
	close(dm.ended)
}

func (dm *daemon) pid() int { return dm.cmd.Process.Pid }

func (dm *daemon) configure(text string) error {
	return os.WriteFile(dm.config, []byte(text), 0o600)
}

func (dm *daemon) signal(s unix.Signal) error {
	if err := dm.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("send %v to the daemon: %w; its last words: %s", s, err, dm.log)
	}
	return nil
}

// exit waits for the daemon's end, which has to come by itself.
func (dm *daemon) exit(ctx context.Context) error {
	select {
	case <-dm.ended:
		if dm.err != nil {
			return fmt.Errorf("it ended with %w; its last words: %s", dm.err, dm.log)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("it goes on: %w; its last words: %s", ctx.Err(), dm.log)
	}
}

// close ends the daemon if it still runs, and removes its configuration.
func (dm *daemon) close() error {
	select {
	case <-dm.ended:
	default:
		// Nothing depends on how it ends now.
		_ = dm.cmd.Process.Kill()
		<-dm.ended
	}
	return os.RemoveAll(dm.dir)
}
