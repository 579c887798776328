package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// runGoCopy is the proxy that one writes in an afternoon: two goroutines for
// each connection, io.Copy in each direction, which the net package turns into
// splice(2). It lives until it is killed.
func runGoCopy(pairs []string) error {
	if len(pairs) == 0 {
		return errArguments
	}
	errs := make(chan error, len(pairs))
	for _, pair := range pairs {
		listen, backend, found := strings.Cut(pair, "=")
		if !found {
			return errArguments
		}
		lc := net.ListenConfig{Control: controlTransparent}
		lc.SetMultipathTCP(false)
		ln, err := lc.Listen(context.Background(), "tcp4", listen)
		if err != nil {
			return err
		}
		go func() { errs <- copyAll(ln, backend) }()
	}
	return <-errs
}

func copyAll(ln net.Listener, backend string) error {
	for {
		client, err := ln.Accept()
		if err != nil {
			return err
		}
		go copyFlow(client.(*net.TCPConn), backend)
	}
}

func copyFlow(client *net.TCPConn, backend string) {
	defer func() { _ = client.Close() }() // both have been read to the end
	from := client.RemoteAddr().(*net.TCPAddr).IP
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Control: controlTransparent}
	d.SetMultipathTCP(false)
	conn, err := d.Dial("tcp4", backend)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer func() { _ = conn.Close() }()
	upstream := conn.(*net.TCPConn)
	var both sync.WaitGroup
	both.Go(func() { copyDirection(upstream, client) })
	copyDirection(client, upstream)
	both.Wait()
}

// copyDirection copies and passes on the end. Its errors are the flow's end
// like any other; the clients of the benchmark notice what is missing.
func copyDirection(to, from *net.TCPConn) {
	_, _ = io.Copy(to, from)
	_ = to.CloseWrite()
}

func controlTransparent(_, _ string, raw syscall.RawConn) error {
	var err error
	outer := raw.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1); err != nil {
			err = os.NewSyscallError("setsockopt(IP_TRANSPARENT)", err)
			return
		}
		err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		err = os.NewSyscallError("setsockopt(IP_BIND_ADDRESS_NO_PORT)", err)
	})
	return errors.Join(outer, err)
}
