package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// livePackets is how many packets the viewer wants.
const livePackets = 12

// tapTables switch the tap on: viewers, and the recorder, with its files in dir.
func tapTables(dir string) string {
	return fmt.Sprintf(`
[tap]
block_size = "256KiB"
blocks = 16
[tap.recorder]
memory = "8MiB"
directory = %q
after = "100ms"
triggers = ["upstream-reset"]
`, dir)
}

func (d *demo) dumps() string { return filepath.Join(d.daemon.dir, "dumps") }

// captures shows what the tap makes of flows. The tap is there only meanwhile.
func (d *demo) captures(ctx context.Context) {
	d.out.step("Captures that know the flows")
	on := d.tapped(ctx, true)
	for _, s := range []struct {
		name, what string
		show       func(context.Context) error
	}{
		{"tap_linked_flow", "a dump from memory has both legs of a flow, SYN to FIN, under one id", d.linkedFlow},
		{"tap_recorder_dump", "a reset by a backend makes the recorder write the flow to a file", d.recorderDump},
		{"tap_live", fmt.Sprintf("a viewer gets the next %d packets of a service while they pass, and no others", livePackets), d.liveView},
	} {
		err := on
		if err == nil {
			err = s.show(ctx)
		}
		d.out.outcome(s.name, s.what, err)
	}
	if err := d.tapped(ctx, false); err != nil {
		d.out.say("the tap cannot be taken away: %v", err)
	}
}

// tapped switches the tap on or off by a reload.
func (d *demo) tapped(ctx context.Context, on bool) error {
	text := configuration() + addedService()
	if on {
		text += tapTables(d.dumps())
	}
	if err := errors.Join(d.daemon.configure(text), d.daemon.signal(unix.SIGHUP)); err != nil {
		return err
	}
	return d.eventually(ctx, func() error {
		err := adminGet(ctx, "/api/v1/tap", func(io.Reader) error { return nil })
		if (err == nil) == on {
			return nil
		}
		return fmt.Errorf("the tap is not as it was configured%s", because(err))
	})
}

// linkedFlow makes a request and finds it in the recorder's memory.
func (d *demo) linkedFlow(ctx context.Context) error {
	e, err := d.get(ctx, families[0].vip)
	if err != nil {
		return err
	}
	return d.eventually(ctx, func() error {
		return adminGet(ctx, "/api/v1/tap/dump?service=vip&last=1m", func(r io.Reader) error {
			packets, err := readPackets(r)
			if err != nil {
				return final{err}
			}
			return linked(packets, e.client)
		})
	})
}

// linked wants both legs of the flow of client, and one id on them.
func linked(packets []captured, client string) error {
	i := slices.IndexFunc(packets, func(p captured) bool { return p.has(flagSYN) && p.from == client && p.to == families[0].vip })
	if i < 0 {
		return fmt.Errorf("no SYN of %s among %d packets", client, len(packets))
	}
	id := packets[i].id
	var backend string
	var fins int
	for _, p := range packets {
		if p.id != id {
			continue
		}
		if p.has(flagSYN) && p.from == client && p.to != families[0].vip {
			backend = p.to
		}
		if p.has(flagFIN) {
			fins++
		}
	}
	if id == 0 || backend == "" || fins < 4 {
		return fmt.Errorf("flow %x: SYN to backend %q and %d FINs, want one and 4 of both legs", id, backend, fins)
	}
	return nil
}

// recorderDump has a server reset a connection, and reads what was written.
func (d *demo) recorderDump(ctx context.Context) error {
	if _, err := d.reset(ctx); err != nil {
		return err
	}
	server := net.JoinHostPort(lab.ForeignIP4, resetPort)
	return d.eventually(ctx, func() error {
		files, err := filepath.Glob(filepath.Join(d.dumps(), "*upstream-reset*.pcapng"))
		if err != nil || len(files) == 0 {
			return fmt.Errorf("no file yet%s", because(err))
		}
		f, err := os.Open(files[0])
		if err != nil {
			return err
		}
		packets, err := readPackets(f)
		_ = f.Close() // only read
		if err != nil {
			return final{err}
		}
		if !slices.ContainsFunc(packets, func(p captured) bool { return p.has(flagRST) && p.from == server }) {
			return final{fmt.Errorf("no RST of %s among the %d packets of %s", server, len(packets), filepath.Base(files[0]))}
		}
		d.out.say("%s: %d packets", filepath.Base(files[0]), len(packets))
		return nil
	})
}

// liveView watches a service while there is traffic of it, and of another.
func (d *demo) liveView(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.step)
	defer cancel()
	viewed := make(chan error, 1)
	var packets []captured
	go func() {
		viewed <- adminGet(ctx, fmt.Sprintf("/api/v1/tap/live?service=vip&count=%d", livePackets), func(r io.Reader) (err error) {
			packets, err = readPackets(r)
			return err
		})
	}()
	for {
		for _, address := range []string{families[0].vip, families[1].foreign} {
			if _, err := d.get(ctx, address); err != nil {
				cancel()
				return errors.Join(err, <-viewed)
			}
		}
		select {
		case err := <-viewed:
			return watched(packets, err)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), <-viewed)
		default:
		}
	}
}

// watched wants as many packets as were asked for, of no other service.
func watched(packets []captured, err error) error {
	if err != nil {
		return err
	}
	if len(packets) != livePackets {
		return fmt.Errorf("%d packets", len(packets))
	}
	other := families[1].foreign
	if i := slices.IndexFunc(packets, func(p captured) bool { return p.from == other || p.to == other || p.id == 0 }); i >= 0 {
		return fmt.Errorf("packet %+v is none of the service's", packets[i])
	}
	return nil
}
