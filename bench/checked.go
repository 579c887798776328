package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"strconv"
	"sync/atomic"
)

// firstCheckedPort is that of what health checks go to.
const firstCheckedPort = 9000

// checkedReport is what runChecked answers to stat.
type checkedReport struct {
	Accepted uint64 `json:"accepted"` // since the start of the process
}

// runChecked is what health checks go to: it accepts connections at so many
// ports, and closes them. It ends with its input.
func runChecked(args []string) error {
	if len(args) != 3 {
		return errArguments
	}
	first, err1 := strconv.Atoi(args[1])
	count, err2 := strconv.Atoi(args[2])
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	var accepted atomic.Uint64
	failed := make(chan error, count)
	for i := range count {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false)
		ln, err := lc.Listen(context.Background(), "tcp4", net.JoinHostPort(args[0], strconv.Itoa(first+i)))
		if err != nil {
			return err
		}
		go func() { failed <- acceptChecks(ln, &accepted) }()
	}
	return answerStat(failed, func() any { return checkedReport{Accepted: accepted.Load()} })
}

// answerStat writes a report when it begins, which tells that the part listens, and
// for each line of the input, until that ends.
func answerStat(failed <-chan error, report func() any) error {
	lines := make(chan string)
	go func() {
		defer close(lines)
		lines <- ""
		for scan := bufio.NewScanner(os.Stdin); scan.Scan(); {
			lines <- scan.Text()
		}
	}()
	for {
		select {
		case err := <-failed:
			return err
		case _, ok := <-lines:
			if !ok {
				return nil
			}
			if err := json.NewEncoder(os.Stdout).Encode(report()); err != nil {
				return err
			}
		}
	}
}

func acceptChecks(ln net.Listener, accepted *atomic.Uint64) error {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		accepted.Add(1)
		_ = conn.Close() // the checker may have reset it
	}
}
