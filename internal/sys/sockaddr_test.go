package sys

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSockAddr(t *testing.T) {
	for _, tt := range []struct{ in, out string }{
		{"198.18.1.2:80", ""},
		{"0.0.0.0:0", ""},
		{"255.255.255.255:65535", ""},
		{"[2001:db8::1]:80", ""},
		{"[::]:256", ""},
		{"[::1]:65535", ""},
		{"[::ffff:198.18.1.2]:80", "198.18.1.2:80"},
		{"[fe80::1%1]:80", ""},
		{"[fe80::1%lo]:80", "[fe80::1%1]:80"},
		{"[fe80::1%nobody]:80", "[fe80::1]:80"},
		{"[fe80::1%4294967295]:80", ""},
	} {
		if tt.out == "" {
			tt.out = tt.in
		}
		a := SockAddr{}
		// What was there before must not shine through.
		a.Set(netip.MustParseAddrPort("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%9]:65535"))
		a.Set(netip.MustParseAddrPort(tt.in))
		if got := a.AddrPort().String(); got != tt.out {
			t.Errorf("%s became %s, want %s", tt.in, got, tt.out)
		}
	}
	var none SockAddr
	if got := none.AddrPort(); got.IsValid() {
		t.Errorf("an address of no family is %v", got)
	}
}

// TestSockAddrKernel has the kernel read an address and write it back.
func TestSockAddrKernel(t *testing.T) {
	newLab(t)
	for _, s := range []string{"127.0.0.1:40001", "[::1]:40001", "[::ffff:127.0.0.2]:40002", "0.0.0.0:40003", "[::]:40004"} {
		want := netip.MustParseAddrPort(s)
		fd := tcp(t, Family(want.Addr()))
		var a, b SockAddr
		a.Set(want)
		if e := Bind(fd, &a); e != 0 {
			t.Fatalf("bind to %s: %v", s, e)
		}
		if e := LocalName(fd, &b); e != 0 {
			t.Fatal(e)
		}
		want = netip.AddrPortFrom(want.Addr().Unmap(), want.Port())
		if got := b.AddrPort(); got != want {
			t.Errorf("bound to %v, the kernel says %v", want, got)
		}
	}
}

func TestFamily(t *testing.T) {
	for s, want := range map[string]int{"127.0.0.1": unix.AF_INET, "::ffff:127.0.0.1": unix.AF_INET, "::1": unix.AF_INET6, "fe80::1%lo": unix.AF_INET6} {
		if got := Family(netip.MustParseAddr(s)); got != want {
			t.Errorf("family of %s is %d, want %d", s, got, want)
		}
	}
}

// tcp opens a socket that is closed at the end of the test.
func tcp(t testing.TB, family int) int {
	t.Helper()
	fd, e := TCPSocket(family)
	if e != 0 {
		t.Fatal(e)
	}
	t.Cleanup(func() { Close(fd) })
	return fd
}
