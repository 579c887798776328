package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// tellSystemd sends lines of sd_notify(3). Without a service manager it does
// nothing; one that cannot be reached is no reason to stop.
func tellSystemd(lines ...string) {
	_, _ = daemon.SdNotify(false, strings.Join(lines, "\n"))
}

// monotonic is the time stamp that a reload message carries (sd_notify(3)).
func monotonic() string {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return ""
	}
	return fmt.Sprintf("MONOTONIC_USEC=%d", ts.Nano()/int64(time.Microsecond))
}

// watchdog feeds systemd's watchdog while every worker turns, at a third of its
// period. It does not log on the way, because a log may block.
func watchdog(d *server, stop <-chan struct{}, done chan<- struct{}) {
	defer close(done)
	period, err := daemon.SdWatchdogEnabled(false)
	if err != nil || period == 0 {
		return
	}
	tick := time.NewTicker(period / 3)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if err := d.proxy.Alive(period / 3); err != nil {
			d.log.Error("watchdog not fed", zap.Error(err))
			continue
		}
		tellSystemd(daemon.SdNotifyWatchdog)
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
