package sys

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// intMessage is a control message with an int.
func intMessage(level, kind int, v int32) []byte {
	return dataMessage(level, kind, binary.NativeEndian.AppendUint32(nil, uint32(v)))
}

func dataMessage(level, kind int, data []byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(data)))
	copy(putCmsg(b, level, kind, len(data)), data)
	return b
}

// sockaddr4 and sockaddr6 are 198.18.1.2:53 and [2001:db8::1%5]:53 in the
// kernel's layout.
func sockaddr4() []byte {
	b := binary.NativeEndian.AppendUint16(nil, unix.AF_INET)
	return append(b, 0, 53, 198, 18, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0)
}

func sockaddr6() []byte {
	b := binary.NativeEndian.AppendUint16(nil, unix.AF_INET6)
	b = append(b, 0, 53, 1, 2, 3, 4) // and a flow label
	b = append(b, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)
	return binary.NativeEndian.AppendUint32(b, 5)
}

func TestControl(t *testing.T) {
	gro := intMessage(unix.SOL_UDP, unix.UDP_GRO, 1200)
	dest4 := dataMessage(unix.SOL_IP, unix.IP_ORIGDSTADDR, sockaddr4())
	dest6 := dataMessage(unix.SOL_IPV6, unix.IPV6_ORIGDSTADDR, sockaddr6())
	for name, tt := range map[string]struct {
		in   []byte
		want Control
		dest string
	}{
		"nothing":             {nil, Control{}, ""},
		"run":                 {gro, Control{Segment: 1200}, ""},
		"padding missing":     {gro[:unix.CmsgLen(4)], Control{Segment: 1200}, ""},
		"cut":                 {gro[:unix.CmsgLen(4)-1], Control{}, ""},
		"header only":         {gro[:unix.SizeofCmsghdr], Control{}, ""},
		"less than a header":  {gro[:unix.SizeofCmsghdr-1], Control{}, ""},
		"negative":            {intMessage(unix.SOL_UDP, unix.UDP_GRO, -1), Control{}, ""},
		"too short":           {dataMessage(unix.SOL_UDP, unix.UDP_GRO, []byte{1, 2}), Control{}, ""},
		"overflow":            {intMessage(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, -2), Control{Overflow: math.MaxUint32 - 1}, ""},
		"overflow, too short": {dataMessage(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, []byte{1, 2, 3}), Control{}, ""},
		"fragment v4":         {intMessage(unix.SOL_IP, unix.IP_RECVFRAGSIZE, 1276), Control{Fragment: 1276}, ""},
		"fragment v6":         {intMessage(unix.SOL_IPV6, unix.IPV6_RECVFRAGSIZE, 1280), Control{Fragment: 1280}, ""},
		"interface v4":        {dataMessage(unix.SOL_IP, unix.IP_PKTINFO, append(binary.NativeEndian.AppendUint32(nil, 3), 1, 2, 3, 4, 5, 6, 7, 8)), Control{Interface: 3}, ""},
		"interface v6":        {dataMessage(unix.SOL_IPV6, unix.IPV6_PKTINFO, binary.NativeEndian.AppendUint32(sockaddr6()[8:24:24], 3)), Control{Interface: 3}, ""},
		"interface, short":    {dataMessage(unix.SOL_IPV6, unix.IPV6_PKTINFO, make([]byte, 10)), Control{}, ""},
		"destination v4":      {dest4, Control{HasDest: true}, "198.18.1.2:53"},
		"destination v6":      {dest6, Control{HasDest: true}, "[2001:db8::1%5]:53"},
		"destination, short":  {dataMessage(unix.SOL_IP, unix.IP_ORIGDSTADDR, sockaddr4()[:15]), Control{}, ""},
		"destination6, short": {dataMessage(unix.SOL_IPV6, unix.IPV6_ORIGDSTADDR, sockaddr6()[:27]), Control{}, ""},
		"no destination":      {dataMessage(unix.SOL_IP, unix.IP_ORIGDSTADDR, nil), Control{}, ""},
		"another family":      {dataMessage(unix.SOL_IP, unix.IP_ORIGDSTADDR, make([]byte, 28)), Control{}, ""},
		"unknown":             {slices.Concat(intMessage(unix.SOL_IP, 99, 7), intMessage(99, unix.UDP_GRO, 8), gro), Control{Segment: 1200}, ""},
		"all": {
			slices.Concat(intMessage(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 9), gro, dest4, intMessage(unix.SOL_IP, unix.IP_RECVFRAGSIZE, 8)),
			Control{Segment: 1200, Overflow: 9, Fragment: 8, HasDest: true},
			"198.18.1.2:53",
		},
	} {
		var got Control
		got.parse(tt.in)
		dest := ""
		if got.Dest.IsSet() {
			dest = got.Dest.AddrPort().String()
		}
		got.Dest = SockAddr{}
		if got != tt.want || dest != tt.dest {
			t.Errorf("%s: %+v to %q, want %+v to %q", name, got, dest, tt.want, tt.dest)
		}
	}
	if n := len(dest4) + len(dest6) + 3*len(gro) + unix.CmsgSpace(20) + unix.CmsgSpace(12); n > controlSpace {
		t.Errorf("all messages need %d bytes, there are %d", n, controlSpace)
	}
}

func extendedErr(offender []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.EMSGSIZE))
	b = append(b, unix.SO_EE_ORIGIN_ICMP, 3, 4, 0)
	b = binary.NativeEndian.AppendUint32(b, 1300)
	b = binary.NativeEndian.AppendUint32(b, 0)
	return append(b, offender...)
}

func TestSockErrorParse(t *testing.T) {
	for name, tt := range map[string]struct {
		in       []byte
		errno    Errno
		offender string
	}{
		"v4":          {dataMessage(unix.SOL_IP, unix.IP_RECVERR, extendedErr(sockaddr4())), unix.EMSGSIZE, "198.18.1.2:53"},
		"v6":          {dataMessage(unix.SOL_IPV6, unix.IPV6_RECVERR, extendedErr(sockaddr6())), unix.EMSGSIZE, "[2001:db8::1%5]:53"},
		"nobody":      {dataMessage(unix.SOL_IP, unix.IP_RECVERR, extendedErr(make([]byte, 16))), unix.EMSGSIZE, "invalid AddrPort"},
		"no offender": {dataMessage(unix.SOL_IP, unix.IP_RECVERR, extendedErr(nil)), unix.EMSGSIZE, "invalid AddrPort"},
		"short":       {dataMessage(unix.SOL_IP, unix.IP_RECVERR, extendedErr(nil)[:15]), 0, "invalid AddrPort"},
		"another":     {dataMessage(unix.SOL_SOCKET, unix.IP_RECVERR, extendedErr(sockaddr4())), 0, "invalid AddrPort"},
	} {
		var s SockError
		s.parse(tt.in)
		if s.Errno != tt.errno || s.Offender.AddrPort().String() != tt.offender {
			t.Errorf("%s: %v by %v, want %v by %v", name, s.Errno, s.Offender.AddrPort(), tt.errno, tt.offender)
		}
		if tt.errno != 0 && (s.Origin != unix.SO_EE_ORIGIN_ICMP || s.Type != 3 || s.Code != 4 || s.Info != 1300) {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// reference reads control messages by the parser of x/sys, and ok is false
// where that gives up.
func reference(b []byte) (found []cmsg, ok bool) {
	messages, err := unix.ParseSocketControlMessage(b)
	for _, m := range messages {
		found = append(found, cmsg{int(m.Header.Level), int(m.Header.Type), m.Data})
	}
	return found, err == nil
}

// FuzzControl reads arbitrary bytes as control messages: nothing panics,
// nothing is negative, and another parser finds the same messages.
func FuzzControl(f *testing.F) {
	f.Add(slices.Concat(
		intMessage(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 9),
		intMessage(unix.SOL_UDP, unix.UDP_GRO, 1200),
		dataMessage(unix.SOL_IP, unix.IP_ORIGDSTADDR, sockaddr4()),
		intMessage(unix.SOL_IP, unix.IP_RECVFRAGSIZE, 1500)))
	f.Add(slices.Concat(
		dataMessage(unix.SOL_IPV6, unix.IPV6_ORIGDSTADDR, sockaddr6()),
		dataMessage(unix.SOL_IPV6, unix.IPV6_PKTINFO, make([]byte, 20)),
		intMessage(unix.SOL_IPV6, unix.IPV6_RECVFRAGSIZE, 1280)))
	f.Add(dataMessage(unix.SOL_IP, unix.IP_RECVERR, extendedErr(sockaddr4())))
	f.Add(dataMessage(unix.SOL_IPV6, unix.IPV6_RECVERR, extendedErr(sockaddr6())))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c Control
		c.parse(b)
		if c.Segment < 0 || c.Fragment < 0 || c.Interface < 0 || c.HasDest != c.Dest.IsSet() || c.HasDest != c.Dest.AddrPort().IsValid() {
			t.Errorf("%+v", c)
		}
		var s SockError
		s.parse(b)
		if s.Offender.IsSet() != s.Offender.AddrPort().IsValid() {
			t.Errorf("%+v", s)
		}
		// The other parser counts on padding behind the last.
		whole := b[:len(b)/8*8]
		want, ok := reference(whole)
		var got []cmsg
		for rest := whole; ; {
			m, next, more := nextCmsg(rest)
			if !more {
				break
			}
			got = append(got, m)
			rest = next
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(cmsg{})); ok && diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}
