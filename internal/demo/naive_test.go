package demo

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// naive is a proxy that connects with its own address to the one backend that
// it knows, turns a reset into an end, ends both directions when one does,
// neither counts nor reloads, and dies at the first signal.
func naive() error {
	lc := net.ListenConfig{Control: transparent}
	lc.SetMultipathTCP(false)
	for network, address := range map[string]string{"tcp4": families[0].vip, "tcp6": families[1].vip} {
		backend := net.JoinHostPort(map[string]string{"tcp4": lab.ServerIP4, "tcp6": lab.ServerIP6}[network], backendPort)
		for _, listen := range []string{address, fmt.Sprintf(":%d", interceptPort)} {
			ln, err := lc.Listen(context.Background(), network, listen)
			if err != nil {
				return err
			}
			to := backend
			if listen != address {
				to = ""
			}
			go naiveAccept(ln, to)
		}
	}
	for network, address := range map[string]string{"udp4": families[0].vipDNS, "udp6": families[1].vipDNS} {
		pc, err := lc.ListenPacket(context.Background(), network, address)
		if err != nil {
			return err
		}
		go naiveDatagrams(pc, net.JoinHostPort(map[string]string{"udp4": lab.ServerIP4, "udp6": lab.ServerIP6}[network], dnsPort))
	}
	admin := http.NewServeMux()
	admin.HandleFunc("/", func(http.ResponseWriter, *http.Request) {})
	return http.ListenAndServe(adminAddress, admin)
}

// naiveDatagrams knows its virtual addresses alone, and one question at a time.
func naiveDatagrams(pc net.PacketConn, backend string) {
	b := make([]byte, dnsSize)
	for {
		n, from, err := pc.ReadFrom(b)
		if err != nil {
			return
		}
		up, err := net.Dial("udp", backend)
		if err != nil {
			continue
		}
		if _, err = up.Write(b[:n]); err == nil {
			n, err = up.Read(b)
		}
		if err == nil {
			_, _ = pc.WriteTo(b[:n], from)
		}
		_ = up.Close()
	}
}

func transparent(network, _ string, c syscall.RawConn) error {
	var err error
	ctrl := c.Control(func(fd uintptr) {
		if strings.HasSuffix(network, "6") {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1)
		}
	})
	if ctrl != nil {
		return ctrl
	}
	return err
}

func naiveAccept(ln net.Listener, backend string) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		to := backend
		if to == "" {
			to = c.LocalAddr().String()
		}
		go naiveRelay(c, to)
	}
}

func naiveRelay(c net.Conn, to string) {
	defer c.Close()
	b, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer b.Close()
	ended := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{b, c}, {c, b}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1])
			ended <- struct{}{}
		}()
	}
	<-ended
}
