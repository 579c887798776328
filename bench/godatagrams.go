package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// datagramIdle ends a flow of runGoDatagrams that is silent.
const datagramIdle = 30 * time.Second

// runGoDatagrams is the UDP proxy that one writes in an afternoon: a goroutine
// reads the clients' datagrams and a goroutine for each flow the answers. It
// lives until it is killed. After so many responses a flow ends; never with 0.
func runGoDatagrams(args []string) error {
	if len(args) != 3 {
		return errArguments
	}
	backend, err1 := netip.ParseAddrPort(args[1])
	responses, err2 := strconv.Atoi(args[2])
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	lc := net.ListenConfig{Control: controlDatagrams}
	conn, err := lc.ListenPacket(context.Background(), "udp4", args[0])
	if err != nil {
		return err
	}
	r := &goRelay{clients: conn.(*net.UDPConn), backend: backend, responses: responses, flows: map[netip.AddrPort]*net.UDPConn{}}
	if err := r.clients.SetReadBuffer(receiveBuffer); err != nil {
		return err
	}
	return r.run()
}

type goRelay struct {
	clients   *net.UDPConn
	backend   netip.AddrPort
	responses int

	mu    sync.Mutex
	flows map[netip.AddrPort]*net.UDPConn // by client
}

func (r *goRelay) run() error {
	buf := make([]byte, 1<<16)
	for {
		n, client, err := r.clients.ReadFromUDPAddrPort(buf)
		if err != nil {
			return err
		}
		upstream, err := r.flow(client)
		if err == nil {
			_, err = upstream.Write(buf[:n])
		}
		if err != nil && !errors.Is(err, net.ErrClosed) { // the flow ended just now
			fmt.Fprintln(os.Stderr, err)
		}
	}
}

// flow finds the client's flow or begins one.
func (r *goRelay) flow(client netip.AddrPort) (*net.UDPConn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if upstream := r.flows[client]; upstream != nil {
		return upstream, nil
	}
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(client), Control: controlDatagrams}
	conn, err := d.Dial("udp4", r.backend.String())
	if err != nil {
		return nil, err
	}
	upstream := conn.(*net.UDPConn)
	r.flows[client] = upstream
	go r.answers(client, upstream)
	return upstream, nil
}

// answers carries them to the client until the flow ends.
func (r *goRelay) answers(client netip.AddrPort, upstream *net.UDPConn) {
	defer func() {
		r.mu.Lock()
		delete(r.flows, client)
		r.mu.Unlock()
		_ = upstream.Close()
	}()
	buf := make([]byte, 1<<16)
	for n := 0; r.responses == 0 || n < r.responses; n++ {
		if err := upstream.SetReadDeadline(time.Now().Add(datagramIdle)); err != nil {
			return
		}
		size, err := upstream.Read(buf)
		if err != nil {
			return
		}
		if _, err := r.clients.WriteToUDPAddrPort(buf[:size], client); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
	}
}

func controlDatagrams(_, _ string, raw syscall.RawConn) error {
	var err error
	outer := raw.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1); err != nil {
			err = os.NewSyscallError("setsockopt(IP_TRANSPARENT)", err)
			return
		}
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		err = os.NewSyscallError("setsockopt(SO_REUSEADDR)", err)
	})
	return errors.Join(outer, err)
}
