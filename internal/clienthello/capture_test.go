package clienthello_test

import (
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"time"
)

// errSpoken is what a tape says to whoever waits for an answer.
var errSpoken = errors.New("no peer")

// tape is a connection that plays bytes and records those that are written.
type tape struct {
	play, written []byte
}

func (t *tape) Read(b []byte) (int, error) {
	if len(t.play) == 0 {
		return 0, errSpoken
	}
	n := copy(b, t.play)
	t.play = t.play[n:]
	return n, nil
}

func (t *tape) Write(b []byte) (int, error) {
	t.written = append(t.written, b...)
	return len(b), nil
}

func (*tape) Close() error                     { return nil }
func (*tape) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*tape) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*tape) SetDeadline(time.Time) error      { return nil }
func (*tape) SetReadDeadline(time.Time) error  { return nil }
func (*tape) SetWriteDeadline(time.Time) error { return nil }

// capture is what a client of crypto/tls sends first.
func capture(c *tls.Config) []byte {
	var t tape
	if err := tls.Client(&t, c).Handshake(); !errors.Is(err, errSpoken) {
		panic(err)
	}
	return t.written
}

// verdict is what a server made of a hello.
type verdict struct {
	Legal     bool
	Name      string
	Protocols []string
}

// judge asks crypto/tls.
func judge(stream []byte) verdict {
	var v verdict
	config := &tls.Config{GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
		v = verdict{Legal: true, Name: i.ServerName, Protocols: slices.Clone(i.SupportedProtos)}
		return nil, errSpoken
	}}
	if err := tls.Server(&tape{play: stream}, config).Handshake(); err == nil {
		panic("a handshake without an answer")
	}
	return v
}
