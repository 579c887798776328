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

func TestSockAddrParts(t *testing.T) {
	for _, s := range []string{
		"198.18.1.2:80", "0.0.0.0:0", "255.255.255.255:65535", "[2001:db8::1]:80", "[::]:256", "[fe80::1%7]:1",
	} {
		want := netip.MustParseAddrPort(s)
		var a SockAddr
		a.Set(want)
		ip, zone, port, v4 := a.Parts()
		if ip != want.Addr().As16() || port != want.Port() || v4 != want.Addr().Is4() || (zone == 7) != (want.Addr().Zone() == "7") {
			t.Errorf("%s is %v, zone %d, port %d, v4 %v", s, ip, zone, port, v4)
		}
	}
}

func TestSockAddrEqual(t *testing.T) {
	// As a socket for both families has it; Set makes v4 of it.
	var mapped SockAddr
	mapped.raw.Family = unix.AF_INET6
	mapped.raw.Addr = netip.MustParseAddr("198.18.1.2").As16()
	var none SockAddr
	all := []*SockAddr{&none, &mapped}
	for _, s := range []string{
		"198.18.1.2:0", "198.18.1.2:1", "198.18.1.3:0", "0.0.0.0:0", "[::]:0", "[2001:db8::1]:1", "[2001:db8::2]:1", "[fe80::1%1]:1", "[fe80::1%2]:1",
	} {
		var a SockAddr
		a.Set(netip.MustParseAddrPort(s))
		all = append(all, &a)
	}
	for i, a := range all {
		for j, b := range all {
			want := i == j || i+j == 3 && i*j == 2 // the mapped one and the same as v4
			if got := a.Equal(b); got != want {
				t.Errorf("%v and %v: equal %v", a.AddrPort(), b.AddrPort(), got)
			}
		}
	}
}
