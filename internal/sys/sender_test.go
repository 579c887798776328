package sys

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tproxyd/tproxyd/internal/lab"
)

// sendAll sends what s has, all of it.
func sendAll(t testing.TB, s *Sender, fd int) {
	t.Helper()
	if n, e := s.Send(fd, 0); n != s.Len() || e != 0 {
		t.Fatalf("%d of %d messages sent: %v", n, s.Len(), e)
	}
	s.Reset()
}

// TestSegments sends the largest run there is in one message, to a socket that
// takes runs and to one that does not.
func TestSegments(t *testing.T) {
	eachUDP(t, func(t *testing.T, _ *lab.Lab, f udpFamily) {
		from, to := pair(t, f)
		s := NewSender(1)
		const size, tail = 1000, 700
		data := pattern((MaxSegments-1)*size+tail, 1)
		want := slices.Collect(slices.Chunk(data, size))
		for _, gro := range []bool{false, true} {
			if gro {
				if e := SetGRO(to); e != 0 {
					t.Fatal(e)
				}
			}
			s.Add(nil, size, data)
			if got := slices.Collect(s.Datagrams(0)); !slices.EqualFunc(want, got, bytes.Equal) {
				t.Errorf("Datagrams has %d, of %d", len(got), len(want))
			}
			if s.Count(0) != MaxSegments || s.Segment(0) != size {
				t.Errorf("%d datagrams of %d", s.Count(0), s.Segment(0))
			}
			sendAll(t, s, from)
			all := receive(t, to, MaxSegments)
			if got := split(all); !slices.EqualFunc(want, got, bytes.Equal) {
				t.Errorf("GRO %v: received %v", gro, lengths(got))
			}
			// On this device a run stays together all the way.
			if gro && len(all) != 1 || !gro && len(all) != MaxSegments {
				t.Errorf("GRO %v: came in %d pieces", gro, len(all))
			}
			for _, a := range all {
				if a.from != at(f.loopback, 40001) || a.control.Truncated {
					t.Errorf("from %v, truncated %v", a.from, a.control.Truncated)
				}
			}
		}
	})
}

// TestExtend sends random rows of datagrams, put together wherever Extend
// allows it, and looks for the same on the other side.
func TestExtend(t *testing.T) {
	eachUDP(t, func(t *testing.T, _ *lab.Lab, f udpFamily) {
		random := rand.New(rand.NewPCG(1, 2))
		from, to := pair(t, f)
		if e := SetGRO(to); e != 0 {
			t.Fatal(e)
		}
		sizes := []int{0, 1, 2, 9, 100, 100, 100, 200, 200, 1400, 9000, 40000}
		s := NewSender(8)
		extended := 0
		for range 200 {
			var want [][]byte
			total := 0
			for total < 60000 && len(want) < 100 {
				size := sizes[random.IntN(len(sizes))]
				segment, n := 0, size
				if size > 0 && random.IntN(3) == 0 { // a run, with or without a tail
					segment, n = size, min(size*(1+random.IntN(5))+random.IntN(size), 60000)
				}
				data := pattern(n, byte(random.Uint32()))
				if s.Len() == 0 && s.Full() {
					t.Fatal("empty and full")
				}
				if s.Len() > 0 && s.Extend(segment, data) {
					extended++
				} else {
					if s.Full() {
						sendAll(t, s, from)
					}
					s.Add(nil, segment, data)
				}
				total += n
				if segment == 0 || n == 0 {
					want = append(want, data)
				} else {
					want = slices.AppendSeq(want, slices.Chunk(data, segment))
				}
			}
			sendAll(t, s, from)
			if got := split(receive(t, to, len(want))); !slices.EqualFunc(want, got, bytes.Equal) {
				t.Fatalf("sent %v, received %v", lengths(want), lengths(got))
			}
		}
		if extended < 200 {
			t.Errorf("only %d were put together", extended)
		}
	})
}

func lengths(all [][]byte) []int {
	n := make([]int, len(all))
	for i, d := range all {
		n[i] = len(d)
	}
	return n
}

func TestExtendLimits(t *testing.T) {
	d := func(n int) []byte { return make([]byte, n) }
	type piece struct{ segment, n int }
	for _, tt := range []struct {
		name   string
		first  piece
		second piece
		ok     bool
		count  int
	}{
		{"same size", piece{0, 100}, piece{0, 100}, true, 2},
		{"a shorter one", piece{0, 100}, piece{0, 99}, true, 2},
		{"a longer one", piece{0, 100}, piece{0, 101}, false, 1},
		{"behind a shorter one", piece{100, 150}, piece{0, 50}, false, 2},
		{"an empty one", piece{0, 100}, piece{0, 0}, false, 1},
		{"behind an empty one", piece{0, 0}, piece{0, 1}, false, 1},
		{"empty ones", piece{0, 0}, piece{0, 0}, false, 1},
		{"a run", piece{0, 100}, piece{100, 350}, true, 5},
		{"a run of shorter ones", piece{0, 100}, piece{50, 100}, false, 1},
		{"a run that is one", piece{0, 100}, piece{200, 60}, true, 2},
		{"behind a run", piece{100, 300}, piece{0, 100}, true, 4},
		{"runs", piece{100, 300}, piece{100, 200}, true, 5},
		{"64", piece{10, 630}, piece{0, 10}, true, 64},
		{"65", piece{10, 640}, piece{0, 10}, false, 64},
		{"more than 64", piece{10, 400}, piece{10, 300}, false, 40},
		{"the longest", piece{0, 32754}, piece{0, 32753}, true, 2},
		{"too long", piece{0, 32754}, piece{0, 32754}, false, 1},
	} {
		s := NewSender(1)
		s.Add(nil, tt.first.segment, d(tt.first.n))
		if ok := s.Extend(tt.second.segment, d(tt.second.n)); ok != tt.ok || s.Count(0) != tt.count {
			t.Errorf("%s: %v with %d datagrams, want %v with %d", tt.name, ok, s.Count(0), tt.ok, tt.count)
		}
		if got := len(slices.Collect(s.Datagrams(0))); got != tt.count {
			t.Errorf("%s: %d datagrams, want %d", tt.name, got, tt.count)
		}
	}
	// The pieces of data run out before the messages do.
	s := NewSender(3)
	for range 3*MaxSegments - 1 {
		if s.Len() > 0 && s.Extend(0, d(5)) {
			continue
		}
		if s.Full() {
			break
		}
		s.Add(nil, 0, d(5))
	}
	if !s.Full() || s.Len() != 2 || s.Count(0)+s.Count(1) != MaxSegments+3 {
		t.Errorf("full %v with %d messages", s.Full(), s.Len())
	}
	for range s.Datagrams(0) {
		break // may be left early
	}
}

// TestSendPartly has a message in the middle that cannot go.
func TestSendPartly(t *testing.T) {
	eachUDP(t, func(t *testing.T, _ *lab.Lab, f udpFamily) {
		one, two := boundUDP(t, at(f.loopback, 40001)), boundUDP(t, at(f.loopback, 40002))
		from := boundUDP(t, at(f.loopback, 40003))
		if e := SetDontFragment(from, f.family, true); e != 0 {
			t.Fatal(e)
		}
		s := NewSender(5)
		targets := []*SockAddr{sockAddr(at(f.loopback, 40001)), sockAddr(at(f.loopback, 40002))}
		for i, n := range []int{10, 20, 65530, 30, 40} {
			s.Add(targets[i%2], 0, pattern(n, byte(i)))
		}
		if !s.Full() {
			t.Error("not full")
		}
		if n, e := s.Send(from, 0); n != 2 || e != unix.EMSGSIZE {
			t.Fatalf("%d sent, %v; want 2 and EMSGSIZE", n, e)
		}
		if !s.To(2).Equal(targets[0]) {
			t.Errorf("message 2 goes to %v", s.To(2).AddrPort())
		}
		if n, e := s.Send(from, 3); n != 2 || e != 0 {
			t.Fatalf("behind it: %d sent, %v", n, e)
		}
		if e := SendTo(from, targets[0], pattern(50, 5)); e != 0 {
			t.Fatal(e)
		}
		want := [][]byte{pattern(10, 0), pattern(40, 4), pattern(50, 5)}
		if diff := cmp.Diff(want, split(receive(t, one, 3))); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		want = [][]byte{pattern(20, 1), pattern(30, 3)}
		if diff := cmp.Diff(want, split(receive(t, two, 2))); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}
