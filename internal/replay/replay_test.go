package replay

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/klauspost/compress/zstd"

	"github.com/tproxyd/tproxyd/internal/netnstest"
)

var epoch = time.Date(2020, 1, 2, 3, 4, 5, 678_901_000, time.UTC)

// recording is what captures of the tests have in them: frame i is 14+i bytes
// long and comes i milliseconds after the one before.
func recording(n int) (frames [][]byte, times []time.Time) {
	at := epoch
	for i := range n {
		f := bytes.Repeat([]byte{byte(i)}, 14+i)
		f[12], f[13] = 0x88, 0xb5
		at = at.Add(time.Duration(i) * time.Millisecond)
		frames, times = append(frames, f), append(times, at)
	}
	return frames, times
}

func info(f []byte, at time.Time) gopacket.CaptureInfo {
	return gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(f), Length: len(f)}
}

func pcap(t testing.TB, frames [][]byte, times []time.Time) []byte {
	t.Helper()
	var b bytes.Buffer
	w := pcapgo.NewWriter(&b)
	if err := w.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for i, f := range frames {
		if err := w.WritePacket(info(f, times[i]), f); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func pcapng(t testing.TB, frames [][]byte, times []time.Time) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriter(&b, layers.LinkTypeEthernet)
	if err != nil {
		t.Fatal(err)
	}
	other, err := w.AddInterface(pcapgo.NgInterface{LinkType: layers.LinkTypeRaw, SnapLength: 0})
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range frames {
		if err := w.WritePacket(info(f, times[i]), f); err != nil {
			t.Fatal(err)
		}
		if i == 1 { // one that is not Ethernet
			ci := info(f, times[i])
			ci.InterfaceIndex = other
			if err := w.WritePacket(ci, f); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstandard(t testing.TB, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	out := w.EncodeAll(b, nil)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

// read returns all packets of a capture.
func read(file []byte) (packets []Packet, skipped uint64, err error) {
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		return nil, 0, err
	}
	defer r.Close()
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			return packets, r.Skipped(), nil
		}
		if err != nil {
			return packets, r.Skipped(), err
		}
		packets = append(packets, p)
	}
}

func TestFormats(t *testing.T) {
	frames, times := recording(20)
	var want []Packet
	for i, f := range frames {
		want = append(want, Packet{Data: f, Time: times[i], Length: len(f)})
	}
	files := map[string][]byte{
		"pcap": pcap(t, frames, times), "pcapng": pcapng(t, frames, times),
	}
	for name, b := range files {
		for packed, b := range map[string][]byte{"plain": b, "gzip": gzipped(t, b), "zstd": zstandard(t, b)} {
			t.Run(name+"/"+packed, func(t *testing.T) {
				got, skipped, err := read(b)
				if diff := cmp.Diff(want, got); err != nil || diff != "" {
					t.Errorf("%v; -want +got\n%s", err, diff)
				}
				if (skipped == 1) != (name == "pcapng") {
					t.Errorf("%d skipped", skipped)
				}
				if packed == "plain" {
					if _, _, err := read(b[:len(b)-3]); !errors.Is(err, io.ErrUnexpectedEOF) {
						t.Errorf("cut: %v", err)
					}
				}
			})
		}
	}
}

// TestOtherTools reads what text2pcap and editcap write.
func TestOtherTools(t *testing.T) {
	text2pcap := netnstest.Need(t, "text2pcap", "tshark")
	editcap := netnstest.Need(t, "editcap", "tshark")
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	const text = "0000 ff ff ff ff ff ff 02 00 00 00 00 01 88 b5 01 02 03\n0000 ff ff ff ff ff ff 02 00 00 00 00 01 88 b5 04\n"
	if err := os.WriteFile(file("hex"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) {
		if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v: %s", name, args, err, out)
		}
	}
	run(text2pcap, file("hex"), file("first"))
	for _, format := range []string{"pcapng", "pcap", "nsecpcap"} {
		run(editcap, "-F", format, file("first"), file(format))
		b, err := os.ReadFile(file(format))
		if err != nil {
			t.Fatal(err)
		}
		packets, _, err := read(b)
		if err != nil || len(packets) != 2 || packets[0].Length != 17 || !bytes.HasSuffix(packets[1].Data, []byte{0x88, 0xb5, 4}) {
			t.Errorf("%s: %+v, %v", format, packets, err)
		}
	}
}

// fake is a clock that only waiting moves, and a sender that notes the time.
type fake struct {
	now    time.Time
	sent   [][]byte
	at     []time.Duration
	refuse func([]byte) bool
}

func (f *fake) Now() time.Time { return f.now }

func (f *fake) Wait(ctx context.Context, until time.Time) error {
	f.now = until
	return ctx.Err()
}

var errRefused = errors.New("refused")

func (f *fake) Send(_ context.Context, frames [][]byte) (n int, err error) {
	for _, b := range frames {
		if f.refuse != nil && f.refuse(b) {
			err = errRefused
			continue
		}
		f.sent = append(f.sent, bytes.Clone(b))
		f.at = append(f.at, f.now.Sub(epoch))
		n++
	}
	return n, err
}

func file(b []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

// TestPace wants every frame at exactly its time, in order.
func TestPace(t *testing.T) {
	frames, times := recording(5)
	ms := func(n ...float64) (out []time.Duration) {
		for _, n := range n {
			out = append(out, time.Duration(n*float64(time.Millisecond)))
		}
		return out
	}
	backwards := append([]time.Time(nil), times...)
	backwards[2] = times[0].Add(-time.Second)
	for name, tt := range map[string]struct {
		pace   Pace
		times  []time.Time
		rounds int
		want   []time.Duration
	}{
		"recorded":  {want: ms(0, 1, 3, 6, 10)},
		"twice":     {pace: Pace{Speed: 2}, want: ms(0, .5, 1.5, 3, 5)},
		"half":      {pace: Pace{Speed: .5}, want: ms(0, 2, 6, 12, 20)},
		"pps":       {pace: Pace{PPS: 250}, want: ms(0, 4, 8, 12, 16)},
		"top speed": {pace: Pace{TopSpeed: true}, want: ms(0, 0, 0, 0, 0)},
		"backwards": {times: backwards, want: ms(0, 1, 1, 1007, 1011)},
		"two rounds": {
			rounds: 2, want: ms(0, 1, 3, 6, 10, 10, 11, 13, 16, 20),
		},
		"pps over rounds": {pace: Pace{PPS: 1000}, rounds: 2, want: ms(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.times == nil {
				tt.times = times
			}
			f := &fake{now: epoch}
			s, err := Run(t.Context(), Config{
				Open: file(pcap(t, frames, tt.times)), Sender: f, Clock: f, Pace: tt.pace, Rounds: tt.rounds,
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, f.at); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			want := frames
			if tt.rounds == 2 {
				want = append(frames[:5:5], frames...)
			}
			if diff := cmp.Diff(want, f.sent); diff != "" || s.Sent != uint64(len(want)) || s.Rounds != max(1, tt.rounds) {
				t.Errorf("%+v; -want +got\n%s", s, diff)
			}
			if s.Duration != tt.want[len(tt.want)-1] {
				t.Errorf("took %v", s.Duration)
			}
		})
	}
}

func TestRefusedAndTruncated(t *testing.T) {
	frames, times := recording(200)
	var b bytes.Buffer
	w := pcapgo.NewWriter(&b)
	if err := w.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for i, f := range frames {
		ci := info(f, times[i])
		if i%50 == 0 {
			ci.Length++
		}
		if err := w.WritePacket(ci, f); err != nil {
			t.Fatal(err)
		}
	}
	f := &fake{now: epoch, refuse: func(b []byte) bool { return len(b)%10 == 5 }}
	progress := 0
	s, err := Run(t.Context(), Config{Open: file(b.Bytes()), Sender: f, Clock: f, Progress: func(Summary) { progress++ }})
	want := Summary{Sent: 176, Refused: 20, Truncated: 4, Rounds: 1, Duration: s.Duration}
	if err != nil || !errors.Is(s.Refusal, errRefused) {
		t.Errorf("%v, %v", err, s.Refusal)
	}
	s.Refusal = nil
	if s != want {
		t.Errorf("%+v, want %+v", s, want)
	}
	if progress < 50 || progress > 100 { // of 20 seconds
		t.Errorf("progress was told %d times", progress)
	}
}

func TestRunErrors(t *testing.T) {
	frames, times := recording(3)
	b := pcap(t, frames, times)
	f := &fake{now: epoch}
	s, err := Run(t.Context(), Config{Open: file(b[:len(b)-1]), Sender: f, Clock: f})
	if !errors.Is(err, io.ErrUnexpectedEOF) || s.Sent != 2 {
		t.Errorf("%+v, %v: what is whole is sent", s, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, Config{Open: file(b), Sender: f}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// The real clock, with a frame that is due in years.
	times[2] = times[2].AddDate(10, 0, 0)
	ctx, cancel = context.WithCancel(t.Context())
	stop := &fake{refuse: func([]byte) bool { cancel(); return false }}
	if _, err := Run(ctx, Config{Open: file(pcap(t, frames, times)), Sender: stop}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	none := func() (io.ReadCloser, error) { return nil, os.ErrNotExist }
	if _, err := Run(t.Context(), Config{Open: none, Sender: f}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
