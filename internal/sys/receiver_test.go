package sys

import (
	"bytes"
	"net/netip"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// TestLargest sends what is the largest over each family, and one byte more.
func TestLargest(t *testing.T) {
	eachUDP(t, func(t *testing.T, _ *lab.Lab, f udpFamily) {
		from, to := pair(t, f)
		s := NewSender(4)
		for _, n := range []int{f.largest, 0, 1, 0} {
			s.Add(nil, 0, pattern(n, 7))
		}
		sendAll(t, s, from)
		all := receive(t, to, 4)
		for i, n := range []int{f.largest, 0, 1, 0} {
			if !bytes.Equal(all[i].data, pattern(n, 7)) || all[i].control.Truncated {
				t.Errorf("%d bytes came as %d, truncated %v", n, len(all[i].data), all[i].control.Truncated)
			}
		}
		s.Add(nil, 0, pattern(f.largest+1, 7))
		if n, e := s.Send(from, 0); n != 0 || e != unix.EMSGSIZE {
			t.Errorf("a byte more: %d sent, %v", n, e)
		}
	})
}

// TestOverflow fills a queue and looks at what the kernel says was lost.
func TestOverflow(t *testing.T) {
	eachUDP(t, func(t *testing.T, _ *lab.Lab, f udpFamily) {
		to := listenUDP(t, at(f.loopback, 40002), true, false)
		if e := SetReceiveBuffer(to, 20000); e != 0 {
			t.Fatal(e)
		}
		from := boundUDP(t, at(f.loopback, 40001))
		target := sockAddr(at(f.loopback, 40002))
		sent, received, lost := 0, 0, 0
		send := func(n int) {
			for range n {
				if e := SendTo(from, target, make([]byte, 500)); e != 0 {
					t.Fatal(e)
				}
			}
			sent += n
		}
		send(300)
		r := NewReceiver(16)
		netnstest.Eventually(t, patience, func() bool {
			n, e := r.Receive(to, 0)
			for ; e == 0; n, e = r.Receive(to, 0) {
				lost = int(r.Control(n - 1).Overflow)
				received += n
			}
			if e != unix.EAGAIN {
				t.Fatal(e)
			}
			if lost > 0 && received+lost == sent {
				return true
			}
			send(1) // what was lost is said with the next one that is not
			return false
		}, "all datagrams have come or are said to be lost")
	})
}

// TestMapped has a v4 client at a socket for both families.
func TestMapped(t *testing.T) {
	newLab(t)
	to, e := UDPSocket(unix.AF_INET6)
	if e != 0 {
		t.Fatal(e)
	}
	defer Close(to)
	for _, o := range []option{
		{"IPV6_V6ONLY", unix.SOL_IPV6, unix.IPV6_V6ONLY, 0},
		{"IPV6_RECVORIGDSTADDR", unix.SOL_IPV6, unix.IPV6_RECVORIGDSTADDR, 1},
		{"IP_RECVORIGDSTADDR", unix.SOL_IP, unix.IP_RECVORIGDSTADDR, 1},
	} {
		if e := SetInt(to, o.level, o.number, o.value); e != 0 {
			t.Fatal(o.name, e)
		}
	}
	if e := Bind(to, sockAddr(at("::", 40002))); e != 0 {
		t.Fatal(e)
	}
	from := boundUDP(t, at("127.0.0.1", 40001))
	if e := SendTo(from, sockAddr(at("127.0.0.1", 40002)), []byte("hello")); e != 0 {
		t.Fatal(e)
	}
	r := NewReceiver(1)
	netnstest.Eventually(t, patience, func() bool {
		n, _ := r.Receive(to, 0)
		return n == 1
	}, "the datagram comes")
	c := r.Control(0)
	for name, a := range map[string]struct {
		got  *SockAddr
		want netip.AddrPort
	}{
		"sender": {r.From(0), at("127.0.0.1", 40001)}, "destination": {&c.Dest, at("127.0.0.1", 40002)},
	} {
		ip, _, port, v4 := a.got.Parts()
		if ip != a.want.Addr().As16() || port != a.want.Port() || !v4 || !a.got.Equal(sockAddr(a.want)) {
			t.Errorf("%s %v %d, v4 %v; want %v", name, ip, port, v4, a.want)
		}
	}
	// The way back needs the address as it is.
	s := NewSender(1)
	s.Add(r.From(0), 0, []byte("back"))
	sendAll(t, s, to)
	if got := receive(t, from, 1)[0]; string(got.data) != "back" {
		t.Errorf("got %q", got.data)
	}
}

// TestReceiveSlots fills some slots behind others, which stay as they are.
func TestReceiveSlots(t *testing.T) {
	newLab(t)
	from, to := pair(t, udpFamilies["v4"])
	r := NewReceiver(3)
	send := func(text string) {
		if _, e := Send(from, []byte(text), false); e != 0 {
			t.Fatal(e)
		}
	}
	want := func(first, n int) {
		t.Helper()
		got := 0
		var e Errno
		netnstest.Eventually(t, patience, func() bool {
			got, e = r.Receive(to, first)
			return e != unix.EAGAIN
		}, "a datagram comes")
		if got != n || e != 0 {
			t.Fatalf("received %d, %v", got, e)
		}
	}
	send("one")
	want(0, 1)
	send("two")
	want(1, 1)
	send("three")
	send("four")
	want(2, 1)
	for i, text := range []string{"one", "two", "three"} {
		if got := string(r.Data(i)); got != text || r.From(i).AddrPort().Port() != 40001 {
			t.Errorf("slot %d has %q from %v", i, got, r.From(i).AddrPort())
		}
	}
	want(0, 1)
	if got := string(r.Data(0)); got != "four" || r.Slots() != 3 || string(r.Data(2)) != "three" {
		t.Errorf("slot 0 has %q", got)
	}
	if n, e := r.Receive(to, 0); n != 0 || e != unix.EAGAIN {
		t.Errorf("%d, %v", n, e)
	}
}

// TestDatagramAllocations has datagrams go by all calls of the steady path.
func TestDatagramAllocations(t *testing.T) {
	eachUDP(t, func(t *testing.T, _ *lab.Lab, f udpFamily) {
		to := listenUDP(t, at(f.loopback, 40002), true, true)
		from := boundUDP(t, at(f.loopback, 40001))
		target := sockAddr(at(f.loopback, 40002))
		r, s := NewReceiver(4), NewSender(4)
		data := pattern(300, 0)
		allocs := testing.AllocsPerRun(100, func() {
			s.Add(target, 0, data[:100])
			if !s.Extend(0, data[100:200]) || !s.Extend(0, data[200:250]) {
				t.Fatal("not extended")
			}
			for d := range s.Datagrams(0) {
				if len(d) > 100 {
					t.Fatal(len(d))
				}
			}
			if n, e := s.Send(from, 0); n != 1 || e != 0 {
				t.Fatal(n, e)
			}
			s.Reset()
			for {
				n, e := r.Receive(to, 0)
				if e == unix.EAGAIN {
					runtime.Gosched()
					continue
				}
				if n != 1 || e != 0 {
					t.Fatal(n, e)
				}
				break
			}
			c := r.Control(0)
			if _, _, port, _ := r.From(0).Parts(); port != 40001 || len(r.Data(0)) != 250 || c.Segment != 100 || !c.HasDest || !c.Dest.Equal(target) {
				t.Fatal(port, len(r.Data(0)), c)
			}
			if _, e := ReadError(from, nil); e != unix.EAGAIN {
				t.Fatal(e)
			}
			if e := SendTo(from, target, data); e != 0 {
				t.Fatal(e)
			}
			for {
				if _, e := r.Receive(to, 0); e == 0 {
					break
				}
				runtime.Gosched()
			}
		})
		if allocs != 0 {
			t.Errorf("%v allocations", allocs)
		}
	})
}

// TestTruncated has less room than a datagram needs, which no Receiver has by
// itself.
func TestTruncated(t *testing.T) {
	newLab(t)
	from, to := pair(t, udpFamilies["v4"])
	for name, cut := range map[string]func(*Receiver){
		"data":    func(r *Receiver) { r.iovecs[0].SetLen(10) },
		"control": func(r *Receiver) { r.headers[0].Hdr.SetControllen(20) },
	} {
		if e := SetPacketInfo(to, unix.AF_INET); e != 0 {
			t.Fatal(e)
		}
		r := NewReceiver(1)
		cut(r)
		if _, e := Send(from, pattern(100, 0), false); e != 0 {
			t.Fatal(e)
		}
		netnstest.Eventually(t, patience, func() bool {
			n, _ := r.Receive(to, 0)
			return n == 1
		}, "the datagram comes")
		if !r.Control(0).Truncated || !bytes.HasPrefix(pattern(100, 0), r.Data(0)) {
			t.Errorf("%s: %d bytes, truncated %v", name, len(r.Data(0)), r.Control(0).Truncated)
		}
	}
}
