package demo

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/proxyproto"
)

const (
	sparePort  = "8181" // HTTP, of backends one of which ends and comes back
	headerPort = "8182" // expects a PROXY header
	tlsPort    = "8443"
)

// header is what a server tells of a PROXY header and its connection.
type header struct {
	Peer, Source, Destination, Rest string
}

// startPools runs the servers of the services that balancing is about.
func (s *servers) startPools(host *lab.Host) error {
	if _, err := s.web(host, net.JoinHostPort(lab.ServerIP4, sparePort), "one"); err != nil {
		return err
	}
	if err := s.startSpare(host); err != nil {
		return err
	}
	certificate, err := selfSigned()
	if err != nil {
		return err
	}
	for address, script := range map[string]func(*net.TCPConn) error{
		net.JoinHostPort(lab.ServerIP4, headerPort):    serveHeader,
		net.JoinHostPort(lab.ServerIP4, tlsPort):       serveTLS(certificate, "backend-1"),
		net.JoinHostPort(lab.Server2IP4, tlsPort):      serveTLS(certificate, "backend-2"),
		net.JoinHostPort(lab.ServerIP4, receiverPort):  serveReceiver,
		net.JoinHostPort(lab.Server2IP4, receiverPort): serveReceiver,
	} {
		if err := s.script(host, address, script); err != nil {
			return err
		}
	}
	return nil
}

// startSpare runs the server that ends and comes back.
func (s *servers) startSpare(host *lab.Host) (err error) {
	s.spare, err = s.web(host, net.JoinHostPort(lab.Server2IP4, sparePort), "two")
	return err
}

// web runs an HTTP server.
func (s *servers) web(host *lab.Host, address, name string) (*http.Server, error) {
	ln, err := host.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	srv := &http.Server{Handler: handler(name), ReadHeaderTimeout: stepLimit}
	s.closers = append(s.closers, srv)
	s.done.Go(func() { _ = srv.Serve(ln) }) // ends with Close
	return srv, nil
}

// script runs a server that does the same with each connection.
func (s *servers) script(host *lab.Host, address string, script func(*net.TCPConn) error) error {
	ln, err := host.Listen("tcp", address)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, ln)
	s.done.Go(func() { s.accept(ln, script) })
	return nil
}

// serveHeader reads a PROXY header and what follows it, and tells of both.
func serveHeader(c *net.TCPConn) error {
	var got []byte
	for {
		buf := make([]byte, 512)
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		got = append(got, buf[:n]...)
		h, length, err := proxyproto.Parse(got)
		if errors.Is(err, proxyproto.ErrShort) || err == nil && length == len(got) {
			continue
		}
		if err != nil {
			return err
		}
		return json.NewEncoder(c).Encode(header{
			Peer: c.RemoteAddr().String(), Source: h.Source.String(), Destination: h.Destination.String(), Rest: string(got[length:]),
		})
	}
}

// serveTLS says its name and ends.
func serveTLS(certificate tls.Certificate, name string) func(*net.TCPConn) error {
	cfg := &tls.Config{Certificates: []tls.Certificate{certificate}}
	return func(c *net.TCPConn) error {
		secured := tls.Server(c, cfg)
		_, err := io.WriteString(secured, name)
		return errors.Join(err, secured.Close())
	}
}

// selfSigned makes a certificate that nobody has to trust.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), DNSNames: []string{"*.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
