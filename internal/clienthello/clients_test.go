package clienthello_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/clienthello"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// TestGoClients parses what crypto/tls sends with many configurations.
func TestGoClients(t *testing.T) {
	for _, name := range []string{"www.example.org", "API.Example.ORG", "198.18.1.2", "2001:db8::1", strings.Repeat("n", 63) + ".example.org"} {
		for _, protocols := range [][]string{nil, {"h2", "http/1.1"}, {strings.Repeat("p", 255)}} {
			for _, newest := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
				for _, curves := range [][]tls.CurveID{nil, {tls.X25519MLKEM768}, {tls.CurveP521, tls.X25519MLKEM768, tls.X25519}} {
					stream := capture(&tls.Config{
						ServerName: name, NextProtos: protocols, MinVersion: tls.VersionTLS10, MaxVersion: newest, CurvePreferences: curves,
					})
					checkCapture(t, stream)
					if pq := newest == tls.VersionTLS13 && curves == nil; pq && len(stream) < 1400 {
						t.Errorf("a hello of %d bytes: where is its X25519MLKEM768 key share?", len(stream))
					}
				}
			}
		}
	}
}

func checkCapture(t *testing.T, stream []byte) {
	t.Helper()
	if class := compare(t, stream); class != "legal" {
		t.Errorf("%q: %s", stream, class)
	}
	if n := checkPieces(t, stream); n != len(stream) {
		t.Errorf("%q: accepted after %d of %d bytes", stream, n, len(stream))
	}
	message, _ := unrecord(stream)
	if class := compare(t, inRecords(message, 100)); class != "legal" {
		t.Errorf("%q: %s in small records", stream, class)
	}
}

// TestECH sees the outer name only.
func TestECH(t *testing.T) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	config := vector(2, []byte{1, 0x00, 0x20}, // id, DHKEM(X25519, HKDF-SHA256)
		vector(2, key.PublicKey().Bytes()), vector(2, []byte{0, 1, 0, 1}), // HKDF-SHA256, AES-128-GCM
		[]byte{64}, vector(1, []byte("outer.example.org")), vector(2))
	stream := capture(&tls.Config{
		ServerName: "secret.example.org", MinVersion: tls.VersionTLS13,
		EncryptedClientHelloConfigList: vector(2, []byte{0xfe, 0x0d}, config),
	})
	checkCapture(t, stream)
	h, err := clienthello.Parse(stream)
	if err != nil || !h.ECH || string(h.ServerName()) != "outer.example.org" {
		t.Errorf("name %q, ECH %v, %v", h.ServerName(), h.ECH, err)
	}
	if h := hello(t, "www.example.org"); h.ECH {
		t.Error("ECH in a hello that has none")
	}
}

// TestPrograms parses what openssl and curl send.
func TestPrograms(t *testing.T) {
	openssl, curl := netnstest.Need(t, "openssl", "openssl"), netnstest.Need(t, "curl", "curl")
	for _, c := range []struct {
		call      []string // followed by the address
		protocols []string
	}{
		{[]string{openssl, "s_client", "-servername", "WWW.example.org", "-alpn", "h2,x", "-connect"}, []string{"h2", "x"}},
		{[]string{openssl, "s_client", "-servername", "www.example.org", "-tls1_2", "-connect"}, nil},
		{[]string{curl, "--silent", "--http2", "https://www.example.org/", "--connect-to"}, []string{"h2", "http/1.1"}},
	} {
		stream := record(t, c.call)
		checkCapture(t, stream)
		h, err := clienthello.Parse(stream)
		if err != nil || string(h.ServerName()) != "www.example.org" {
			t.Errorf("%s: %q, %v", c.call, h.ServerName(), err)
		}
		var got []string
		for p := range h.Protocols {
			got = append(got, string(p))
		}
		if !slices.Equal(got, c.protocols) {
			t.Errorf("%s: %q, want %q", c.call, got, c.protocols)
		}
	}
}

// record is the hello that a program sends to a listener of ours.
func record(t *testing.T, call []string) []byte {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	address := l.Addr().String()
	if strings.HasSuffix(call[0], "curl") {
		address = "www.example.org:443:" + address
	}
	cmd := exec.CommandContext(t.Context(), call[0], append(call[1:len(call):len(call)], address)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }() // it fails, as nobody answers it
	defer func() { _ = cmd.Process.Kill() }()
	deadline := time.Now().Add(30 * time.Second)
	if err := l.(*net.TCPListener).SetDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatalf("%s: %v", call, err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	var s clienthello.Scanner
	var stream []byte
	for {
		if _, err := s.Parse(stream, 0); !errors.Is(err, clienthello.ErrShort) {
			return stream
		}
		more := make([]byte, s.Need()-len(stream))
		if _, err := io.ReadFull(conn, more); err != nil {
			t.Fatalf("%s: %v", call, err)
		}
		stream = append(stream, more...)
	}
}
