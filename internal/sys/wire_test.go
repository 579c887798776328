package sys

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
	"github.com/tproxyd/tproxyd/internal/netnstest"
)

// capture sees the IP packets on a link of this namespace, both ways.
type capture struct {
	fd      int
	packets [][]byte
}

func startCapture(t testing.TB, link string) *capture {
	t.Helper()
	ifi, err := net.InterfaceByName(link)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Close(fd) })
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifi.Index}); err != nil {
		t.Fatal(err)
	}
	return &capture{fd: fd}
}

// wait collects packets until there are n, neighbour discovery aside.
func (c *capture) wait(t testing.TB, n int) {
	t.Helper()
	b := make([]byte, 1<<16)
	netnstest.Eventually(t, patience, func() bool {
		for len(c.packets) < n {
			got, e := Recv(c.fd, b)
			if e == unix.EAGAIN {
				return false
			}
			if e != 0 {
				t.Fatal(e)
			}
			if ours(b[:got]) {
				c.packets = append(c.packets, bytes.Clone(b[:got]))
			}
		}
		return true
	}, "the packets are seen")
}

// ours says whether b is UDP or an ICMP error.
func ours(b []byte) bool {
	switch {
	case len(b) >= ip4Header && b[0]>>4 == 4:
		return b[9] == unix.IPPROTO_UDP || b[9] == unix.IPPROTO_ICMP
	case len(b) > ip6Header && b[0]>>4 == 6:
		return b[6] == unix.IPPROTO_UDP || b[6] == unix.IPPROTO_FRAGMENT || b[6] == unix.IPPROTO_ICMPV6 && b[ip6Header] < 128
	}
	return false
}

// write makes a pcap file of the packets, of the link type LINKTYPE_RAW.
func (c *capture) write(t testing.TB) string {
	t.Helper()
	b := binary.NativeEndian.AppendUint32(nil, 0xa1b2c3d4)
	b = binary.NativeEndian.AppendUint16(b, 2)
	b = binary.NativeEndian.AppendUint16(b, 4)
	for _, v := range []uint32{0, 0, 1 << 16, 101} {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	for i, p := range c.packets {
		for _, v := range []uint32{uint32(i), 0, uint32(len(p)), uint32(len(p))} {
			b = binary.NativeEndian.AppendUint32(b, v)
		}
		b = append(b, p...)
	}
	name := filepath.Join(t.TempDir(), "wire.pcap")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// fields has tshark read the packets, checksums and all, and returns a row of
// the fields for each. A field that a packet has twice, as the headers quoted
// by ICMP, has both values.
func (c *capture) fields(t testing.TB, names ...string) []string {
	t.Helper()
	tshark := netnstest.Need(t, "tshark", "tshark")
	args := []string{"-n", "-r", c.write(t), "-T", "fields", "-E", "separator=;"}
	for _, p := range []string{"ip.check_checksum", "udp.check_checksum"} {
		args = append(args, "-o", p+":TRUE")
	}
	for _, n := range names {
		args = append(args, "-e", n)
	}
	out, err := exec.CommandContext(t.Context(), tshark, args...).Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

// wire has, for each of the packets of TestWire, what they must look like.
// Checksum status 1 is good; 2 is one that cannot be computed, as part of the
// datagram is missing.
var wire = map[string]struct{ fields, packets []string }{
	"v4": {
		[]string{"ip.src", "ip.checksum.status", "icmp.checksum.status", "icmp.type", "icmp.code", "icmp.mtu", "ip.len", "ip.flags.df", "udp.srcport", "udp.checksum.status"},
		[]string{
			"198.18.3.1,198.18.1.2;1,1;1;3;3;;155,127;0,0;40001;1",
			"198.18.3.1,198.18.1.2;1,1;1;3;3;;576,2028;0,0;40001;2",
			"198.18.1.1,198.18.1.2;1,1;1;3;4;1300;576,1428;0,1;40001;2",
			"198.18.3.1;1;;;;;127;0;40002;1",
			"198.18.3.1;1;;;;;1500;0;;",
			"198.18.3.1;1;;;;;548;0;40002;1",
		},
	},
	"v6": {
		[]string{"ipv6.src", "icmpv6.checksum.status", "icmpv6.type", "icmpv6.code", "icmpv6.mtu", "ipv6.plen", "ipv6.fraghdr.offset", "udp.srcport", "udp.checksum.status"},
		[]string{
			"2001:db8:3::1,2001:db8:1::2;1;1;4;;155,107;;40001;1",
			"2001:db8:3::1,2001:db8:1::2;1;1;4;;1240,2008;;40001;2",
			"2001:db8:1::1,2001:db8:1::2;1;2;0;1300;1240,1408;;40001;2",
			"2001:db8:3::1;;;;;107;;40002;1",
			"2001:db8:3::1;;;;;1456;0;;",
			"2001:db8:3::1;;;;;568;181;40002;1",
		},
	},
}

// TestWire has another program judge what ICMP and RawUDP make.
func TestWire(t *testing.T) {
	for name, w := range wire {
		t.Run(name, func(t *testing.T) {
			l := netnstest.New(t)
			f := udpFamilies[name]
			from, to := at(f.client, 40001), at(f.foreign, 40002)
			udpIn(t, l.Client, from, to)
			c := startCapture(t, lab.ClientLink)
			icmp, raw := openICMP(t, 0), openRawUDP(t, f.family, 0)
			for i, e := range []Errno{
				icmp.PortUnreachable(from, to, pattern(99, 1)),
				icmp.PortUnreachable(from, to, pattern(2000, 1)),
				icmp.TooBig(from, to, 1400, 1300, pattern(1400, 1)),
				raw.Send(sockAddr(to), sockAddr(from), pattern(99, 1)),
				raw.Send(sockAddr(to), sockAddr(from), pattern(2000, 1)), // in two fragments
			} {
				if e != 0 {
					t.Fatalf("send %d: %v", i, e)
				}
			}
			c.wait(t, len(w.packets))
			got := c.fields(t, w.fields...)
			if diff := cmp.Diff(w.packets, got); diff != "" {
				t.Errorf("%s: -want +got:\n%s", strings.Join(w.fields, ";"), diff)
			}
		})
	}
}
