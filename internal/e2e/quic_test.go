package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

const (
	quicPort = 4433
	quicName = "server.example" // in the certificate
	quicSize = 3 << 20
)

// quicTLS returns what server and client need to trust each other.
func quicTLS(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{quicName},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	protocols := []string{"echo"}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: protocols},
		&tls.Config{RootCAs: roots, ServerName: quicName, NextProtos: protocols}
}

// quicConfig leaves a slow machine its time.
func quicConfig() *quic.Config {
	return &quic.Config{HandshakeIdleTimeout: patience, MaxIdleTimeout: 2 * patience}
}

// quicServer answers on an address of the server until the end of the test: on
// each stream, first whom it talks to, and then what it is sent.
func (s *site) quicServer(ip string, config *tls.Config) {
	s.t.Helper()
	pc, err := s.Server.ListenPacket("udp", addrPort(ip, quicPort).String())
	if err != nil {
		s.t.Fatal(err)
	}
	ln, err := quic.Listen(pc, config, quicConfig())
	if err != nil {
		s.t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := ln.Accept(context.Background())
			if err != nil {
				return // closed
			}
			serving.Go(func() { quicEcho(conn) })
		}
	})
	s.t.Cleanup(func() {
		_ = ln.Close() // the clients have what they wanted
		_ = pc.Close() // has nothing to say that reading has not
		serving.Wait()
	})
}

// quicEcho serves a connection. What goes wrong is missed at the client's end.
func quicEcho(conn *quic.Conn) {
	defer func() { <-conn.Context().Done() }() // the client closes it
	stream, err := conn.AcceptStream(conn.Context())
	if err != nil {
		return
	}
	if _, err := fmt.Fprintln(stream, conn.RemoteAddr()); err == nil {
		_, _ = io.Copy(stream, stream)
	}
	_ = stream.Close()
}

// quicExchange sends data from the client to a server and returns whom the
// server talks to and what it sends back.
func quicExchange(ctx context.Context, pc net.PacketConn, to net.Addr, config *tls.Config, data []byte) (seen string, back []byte, err error) {
	conn, err := quic.Dial(ctx, pc, to, config, quicConfig())
	if err != nil {
		return "", nil, fmt.Errorf("dial: %w", err)
	}
	defer func() { err = errors.Join(err, conn.CloseWithError(0, "")) }()
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return "", nil, fmt.Errorf("open stream: %w", err)
	}
	var sending sync.WaitGroup
	var sendErr error
	sending.Go(func() {
		_, sendErr = stream.Write(data)
		sendErr = errors.Join(sendErr, stream.Close())
	})
	r := bufio.NewReader(stream)
	seen, err = r.ReadString('\n')
	if err == nil {
		back, err = io.ReadAll(r)
	}
	if err != nil {
		stream.CancelWrite(0)
	}
	sending.Wait()
	return strings.TrimSuffix(seen, "\n"), back, errors.Join(err, sendErr)
}

func TestQUIC(t *testing.T) {
	t.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true") // smaller ones do here
	s := newUDPSite(t, quicPort, "")
	server, client := quicTLS(t)
	for _, ip := range serverIPs {
		s.quicServer(ip, server)
	}
	data := make([]byte, quicSize)
	_, _ = rand.Read(data) // never fails
	for _, w := range ways {
		pc, err := s.Client.ListenPacket("udp", addrPort(w.client, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		seen, back, err := quicExchange(ctx, pc, net.UDPAddrFromAddrPort(addrPort(w.ip, quicPort)), client, data)
		cancel()
		if err != nil {
			t.Errorf("%s: %v", w.name, err)
		}
		if seen != pc.LocalAddr().String() {
			t.Errorf("%s: the server talks to %s, the client is %s", w.name, seen, pc.LocalAddr())
		}
		if len(back) != len(data) || !bytes.Equal(sum(back), sum(data)) {
			t.Errorf("%s: %d bytes came back that are not the %d that were sent", w.name, len(back), len(data))
		}
		_ = pc.Close() // has nothing to say that reading has not
	}
	// Its congestion control finds its rate by what is lost in socket buffers.
	s.wantUDP("client_reset", "receive_overflow", "send_buffer_full")
	for _, service := range udpServices {
		for direction, n := range s.udpSamples("tproxyd_udp_gso_datagrams_total", service, "direction") {
			if n == 0 {
				t.Errorf("%s: nothing has left several to a send in direction %s", service, direction)
			}
		}
	}
}

func sum(data []byte) []byte {
	h := sha256.Sum256(data)
	return h[:]
}
