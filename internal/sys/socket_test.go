package sys

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
	"golang.org/x/sys/unix"
)

const patience = 10 * time.Second

// connection returns the two ends of one over the loopback interface, through a
// listener with the given liveness.
func connection(t testing.TB, address string, l Liveness) (client, server int) {
	t.Helper()
	a := netip.MustParseAddrPort(address)
	ln, err := ListenTCP(a, 1, false)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(ln)
	if err := SetLiveness(ln, l); err != nil {
		t.Fatal(err)
	}
	client = tcp(t, Family(a.Addr()))
	var sa SockAddr
	sa.Set(a)
	if e := Connect(client, &sa); e != 0 && e != unix.EINPROGRESS {
		t.Fatal(e)
	}
	var e Errno
	netnstest.Eventually(t, patience, func() bool {
		server, e = Accept(ln, &sa)
		return e != unix.EAGAIN
	}, "a connection comes")
	if e != 0 {
		t.Fatal(e)
	}
	t.Cleanup(func() { Close(server) })
	if got := sa.AddrPort(); got.Addr() != a.Addr() {
		t.Errorf("peer %v, want one at %v", got, a.Addr())
	}
	return client, server
}

// newLab makes the loopback interface work.
func newLab(t testing.TB) { t.Helper(); netnstest.New(t) }

func get(t *testing.T, fd, level, option int) int {
	t.Helper()
	v, err := unix.GetsockoptInt(fd, level, option)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestListenOptions looks at what an accepted socket has from its listener.
func TestListenOptions(t *testing.T) {
	newLab(t)
	for _, address := range []string{"127.0.0.1:40000", "[::1]:40000", lab.VIP4 + ":40000", "[" + lab.VIP6 + "]:40000"} {
		if strings.Contains(address, lab.VIP4) || strings.Contains(address, lab.VIP6) {
			// Nobody's address: it can be bound, and that is all to be seen here.
			fd, err := ListenTCP(netip.MustParseAddrPort(address), 1, true)
			if err != nil {
				t.Errorf("listen on %s: %v", address, err)
				continue
			}
			Close(fd)
			continue
		}
		client, server := connection(t, address, Liveness{Keepalive: 30 * time.Second, UserTimeout: 7 * time.Second})
		for _, o := range []struct {
			name                string
			level, option, want int
		}{
			{"TCP_NODELAY", unix.SOL_TCP, unix.TCP_NODELAY, 1},
			{"SO_OOBINLINE", unix.SOL_SOCKET, unix.SO_OOBINLINE, 1},
			{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{"TCP_KEEPIDLE", unix.SOL_TCP, unix.TCP_KEEPIDLE, 30},
			{"TCP_KEEPINTVL", unix.SOL_TCP, unix.TCP_KEEPINTVL, 10},
			{"TCP_USER_TIMEOUT", unix.SOL_TCP, unix.TCP_USER_TIMEOUT, 7000},
		} {
			if got := get(t, server, o.level, o.option); got != o.want {
				t.Errorf("%s: accepted socket has %s = %d, want %d", address, o.name, got, o.want)
			}
		}
		for _, fd := range []int{client, server} {
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			if err != nil || flags&unix.O_NONBLOCK == 0 {
				t.Errorf("flags %#x, %v: want O_NONBLOCK", flags, err)
			}
			flags, err = unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			if err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("descriptor flags %#x, %v: want FD_CLOEXEC", flags, err)
			}
		}
	}
}

func TestSetLiveness(t *testing.T) {
	fd := tcp(t, unix.AF_INET)
	for _, tt := range []struct {
		l                     Liveness
		on, idle, every, user int
	}{
		{Liveness{time.Second, 2 * time.Second}, 1, 1, 1, 2000},
		{Liveness{time.Minute, 0}, 1, 60, 20, 0},
		{Liveness{0, 1500 * time.Millisecond}, 0, 60, 20, 1500}, // off; the times stay
		{Liveness{59001 * time.Millisecond, 0}, 1, 60, 20, 0},   // rounded up
		{Liveness{}, 0, 60, 20, 0},
	} {
		if err := SetLiveness(fd, tt.l); err != nil {
			t.Fatal(err)
		}
		got := [4]int{
			get(t, fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE), get(t, fd, unix.SOL_TCP, unix.TCP_KEEPIDLE),
			get(t, fd, unix.SOL_TCP, unix.TCP_KEEPINTVL), get(t, fd, unix.SOL_TCP, unix.TCP_USER_TIMEOUT),
		}
		if want := [4]int{tt.on, tt.idle, tt.every, tt.user}; got != want {
			t.Errorf("%+v: %v, want %v", tt.l, got, want)
		}
	}
	if err := SetLiveness(-1, Liveness{}); !errors.Is(err, unix.EBADF) || !strings.Contains(err.Error(), "SO_KEEPALIVE") {
		t.Errorf("%v, want EBADF and the option", err)
	}
}

func TestListenShared(t *testing.T) {
	newLab(t)
	for _, address := range []string{"127.0.0.1:40000", "[::1]:40000"} {
		a := netip.MustParseAddrPort(address)
		for _, tt := range []struct{ first, second, ok bool }{
			{true, true, true}, {true, false, false}, {false, true, false}, {false, false, false},
		} {
			one, err := ListenTCP(a, 1, tt.first)
			if err != nil {
				t.Fatal(err)
			}
			two, err := ListenTCP(a, 1, tt.second)
			if err == nil {
				Close(two)
			}
			Close(one)
			if tt.ok && err != nil || !tt.ok && !errors.Is(err, unix.EADDRINUSE) {
				t.Errorf("%s, shared %v and %v: %v", address, tt.first, tt.second, err)
			}
		}
	}
}

// TestBothFamilies listens on all addresses of both families at one port.
func TestBothFamilies(t *testing.T) {
	for _, s := range []string{"0.0.0.0:40000", "[::]:40000"} {
		fd, err := ListenTCP(netip.MustParseAddrPort(s), 1, false)
		if err != nil {
			t.Fatal(err)
		}
		defer Close(fd)
	}
}

// TestDataPath sends bytes through every call of the data path, none of which
// allocates.
func TestDataPath(t *testing.T) {
	newLab(t)
	client, server := connection(t, "127.0.0.1:40000", Liveness{})
	p, err := NewPipe(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	b := make([]byte, 100)
	var a SockAddr
	word := []byte("word")
	await := func(call func() (int, Errno)) int {
		for {
			if n, e := call(); e != unix.EAGAIN {
				if e != 0 {
					t.Fatal(e)
				}
				return n
			}
			runtime.Gosched()
		}
	}
	recv := func() (int, Errno) { return Recv(client, b) }
	fill := func() (int, Errno) { return Splice(server, p.W, p.Size) }
	allocs := testing.AllocsPerRun(100, func() {
		if n, e := Send(client, word, false); n != len(word) || e != 0 {
			t.Fatal(n, e)
		}
		if n := await(fill); n != len(word) {
			t.Fatalf("%d bytes spliced", n)
		}
		if n, e := Splice(p.R, server, len(word)); n != len(word) || e != 0 {
			t.Fatal(n, e)
		}
		if n := await(recv); string(b[:n]) != "word" {
			t.Fatalf("got %q", b[:n])
		}
		if e := LocalName(server, &a); e != 0 || a.AddrPort().Port() != 40000 {
			t.Fatal(a.AddrPort(), e)
		}
		if e := PeerName(client, &a); e != 0 || a.AddrPort().Port() != 40000 {
			t.Fatal(a.AddrPort(), e)
		}
		a.Set(a.AddrPort())
		if _, e := Recv(client, b); e != unix.EAGAIN {
			t.Fatal(e)
		}
		if _, e := Unsent(client); e != 0 {
			t.Fatal(e)
		}
		if e := SocketError(client); e != 0 {
			t.Fatal(e)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
	if e := ShutdownWrite(client); e != 0 {
		t.Fatal(e)
	}
	if n := await(func() (int, Errno) { return Recv(server, b) }); n != 0 {
		t.Errorf("%d bytes instead of the end", n)
	}
	if e := AbortOnClose(server); e != 0 {
		t.Fatal(e)
	}
	if v, err := unix.GetsockoptInt(server, unix.SOL_SOCKET, unix.SO_LINGER); err != nil || v == 0 {
		t.Errorf("SO_LINGER %d, %v", v, err)
	}
}

// TestAcceptAllocations has a queue of connections taken.
func TestAcceptAllocations(t *testing.T) {
	newLab(t)
	a := netip.MustParseAddrPort("[::1]:40000")
	const n = 50
	ln, err := ListenTCP(a, 2*n, true)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(ln)
	var sa, from SockAddr
	for range n + 1 { // AllocsPerRun makes one call more
		sa.Set(a)
		if e := Connect(tcp(t, unix.AF_INET6), &sa); e != 0 && e != unix.EINPROGRESS {
			t.Fatal(e)
		}
	}
	allocs := testing.AllocsPerRun(n, func() {
		for {
			fd, e := Accept(ln, &from)
			if e == unix.EAGAIN {
				runtime.Gosched()
				continue
			}
			if e != 0 || from.AddrPort().Addr() != a.Addr() {
				t.Fatal(from.AddrPort(), e)
			}
			Close(fd)
			return
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestPipe(t *testing.T) {
	for _, size := range []int{4096, 1 << 16, 1 << 20} {
		p, err := NewPipe(size)
		if err != nil {
			t.Fatal(err)
		}
		kernel, err := unix.FcntlInt(uintptr(p.R), unix.F_GETPIPE_SZ, 0)
		if err != nil || kernel != p.Size || p.Size < 4096 {
			t.Errorf("asked for %d: Size %d, the kernel says %d, %v", size, p.Size, kernel, err)
		}
		p.Close()
	}
	// More than fs.pipe-max-size is refused: the pipe keeps its first size.
	p, err := NewPipe(1 << 30)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.Size < 4096 || p.Size > 1<<30 {
		t.Errorf("size %d", p.Size)
	}
}

func TestDescriptors(t *testing.T) {
	before, err := OpenDescriptors()
	if err != nil {
		t.Fatal(err)
	}
	tcp(t, unix.AF_INET)
	if after, err := OpenDescriptors(); err != nil || after != before+1 {
		t.Errorf("%d descriptors and %v, want %d", after, err, before+1)
	}
	n, err := RaiseDescriptorLimit()
	if err != nil {
		t.Fatal(err)
	}
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil || l.Cur != l.Max || n != l.Cur {
		t.Errorf("%d, limits %+v, %v", n, l, err)
	}
}

func TestRoute(t *testing.T) {
	newLab(t)
	for s, want := range map[string]Errno{
		lab.ServerIP4 + ":80": 0, "[" + lab.ServerIP6 + "]:80": 0,
		"198.19.0.1:80": unix.ENETUNREACH, "[2001:db8:dead::1]:80": unix.ENETUNREACH,
	} {
		if e := Route(netip.MustParseAddrPort(s)); e != want {
			t.Errorf("route to %s: %v, want %v", s, e, want)
		}
	}
}

// capsEnv makes TestWithoutCapabilities, in a process of its own, give up what
// it names.
const capsEnv = "SYS_TEST_DROP"

func TestWithoutCapabilities(t *testing.T) {
	if os.Getenv(capsEnv) != "" {
		withoutCapabilities(t)
		return
	}
	if err := CheckTransparent(1); err != nil {
		t.Errorf("with all capabilities: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestWithoutCapabilities$", "-test.v")
	cmd.Env = append(os.Environ(), capsEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	for _, want := range []string{"setsockopt(IP_TRANSPARENT)", "CAP_NET_RAW", "operation not permitted"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
}

func withoutCapabilities(t *testing.T) {
	runtime.LockOSThread() // capabilities are a thread's; it ends with the test
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&hdr, &none[0]); err != nil {
		t.Fatal(err)
	}
	err := CheckTransparent(0)
	if !errors.Is(err, unix.EPERM) {
		t.Errorf("without capabilities: %v", err)
	}
	fmt.Println(err)
	if _, err := ListenTCP(netip.MustParseAddrPort("127.0.0.1:40000"), 1, true); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "IP_TRANSPARENT") {
		t.Errorf("listen without capabilities: %v", err)
	}
	if _, err := ListenUDP(netip.MustParseAddrPort("127.0.0.1:40000"), true, true); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "IP_TRANSPARENT") {
		t.Errorf("listen on UDP without capabilities: %v", err)
	}
	if _, err := OpenICMP(0); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "SOCK_RAW") {
		t.Errorf("ICMP without capabilities: %v", err)
	}
}
