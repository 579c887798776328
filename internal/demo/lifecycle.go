package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/rules"
)

// held is a connection that stays open over an event.
type held struct {
	net.Conn
	r *bufio.Reader
}

func (d *demo) holdOpen(ctx context.Context) (*held, error) {
	c, err := d.dial(ctx, net.JoinHostPort(lab.ForeignIP6, echoPort))
	if err != nil {
		return nil, err
	}
	h := &held{c, bufio.NewReader(c)}
	if err := h.ping(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return h, nil
}

func (h *held) ping() error { return sayLine(h.Conn, h.r, "still there?\n", "still there?\n") }

// reloads changes the configuration, to a good one and a bad one.
func (d *demo) reloads(ctx context.Context) {
	d.out.step("Reload by SIGHUP")
	d.out.outcome("reload",
		"a service is added while a connection is open: the one answers, the other lives on", d.reload(ctx))
	d.out.outcome("bad_reload_refused",
		"a wrong configuration is refused: everything goes on with the old one", d.badReload(ctx))
}

func (d *demo) reload(ctx context.Context) error {
	c, err := d.holdOpen(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := d.daemon.configure(configuration() + addedService()); err != nil {
		return err
	}
	if err := d.daemon.signal(unix.SIGHUP); err != nil {
		return err
	}
	address := net.JoinHostPort(addedVIP, "80")
	var e exchange
	err = d.eventually(ctx, func() error {
		e, err = d.get(ctx, address)
		return err
	})
	if err != nil {
		return fmt.Errorf("ask the added service %s: %w", address, err)
	}
	if e.Source != e.client {
		return fmt.Errorf("the added service shows %s to the backend, not %s", e.Source, e.client)
	}
	if err := c.ping(); err != nil {
		return fmt.Errorf("the open connection: %w", err)
	}
	return nil
}

func (d *demo) badReload(ctx context.Context) error {
	if err := d.daemon.configure(configuration() + "\nno_such_key = 1\n"); err != nil {
		return err
	}
	if err := d.daemon.signal(unix.SIGHUP); err != nil {
		return err
	}
	if err := d.waitReload(ctx, 0); err != nil {
		return err
	}
	for _, address := range []string{families[0].vip, families[1].foreign, net.JoinHostPort(addedVIP, "80")} {
		if _, err := d.get(ctx, address); err != nil {
			return fmt.Errorf("ask %s afterwards: %w", address, err)
		}
	}
	if err := d.daemon.configure(configuration() + addedService()); err != nil {
		return err
	}
	if err := d.daemon.signal(unix.SIGHUP); err != nil {
		return err
	}
	return d.waitReload(ctx, 1)
}

func (d *demo) waitReload(ctx context.Context, want float64) error {
	const name = "tproxyd_config_last_reload_success"
	return d.eventually(ctx, func() error {
		m, err := scrape(ctx)
		if err != nil {
			return err
		}
		if _, there := m[name]; !there || m.sum(name) != want {
			return fmt.Errorf("%s is %v, want %v", name, m.sum(name), want)
		}
		return nil
	})
}

// finish ends the daemon and looks at what it leaves.
func (d *demo) finish(ctx context.Context) {
	d.out.step("The end, by SIGTERM")
	took, err := d.drain(ctx)
	d.out.outcome("drain", fmt.Sprintf(
		"the daemon waits for an open connection, then ends well, %d ms after it", took.Milliseconds()), err)

	err = rules.Remove(plan())
	if err == nil {
		err = nothingLeft()
	}
	d.out.check("nothing_left", err == nil, "no listener, no nftables, no policy rule%s", because(err))
}

// drain sends SIGTERM while a connection is open, which may end by itself, and
// returns how long the daemon went on after it.
func (d *demo) drain(ctx context.Context) (took time.Duration, err error) {
	c, err := d.holdOpen(ctx)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := d.daemon.signal(unix.SIGTERM); err != nil {
		return 0, err
	}
	err = d.eventually(ctx, func() error {
		if ready(ctx) == nil {
			return errors.New("/readyz still says ready")
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	if err := c.ping(); err != nil {
		return 0, fmt.Errorf("the open connection: %w", err)
	}
	if err := c.Close(); err != nil {
		return 0, err
	}
	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, d.cfg.step)
	defer cancel()
	if err := d.daemon.exit(limited); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}

// nothingLeft looks into the proxy's namespace, which is this one.
func nothingLeft() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return err
	}
	for _, t := range tables {
		return fmt.Errorf("nftables table is left: %s", t.Name)
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := netlink.RuleList(family)
		if err != nil {
			return err
		}
		for _, r := range list {
			if r.Mark != 0 {
				return fmt.Errorf("policy rule is left: %v, mark %#x", r, r.Mark)
			}
		}
	}
	left, err := listeners("/proc/thread-self")
	for _, address := range left {
		return fmt.Errorf("listener is left: %s", address)
	}
	return err
}
