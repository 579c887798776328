package demo

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/http"
	"time"
)

const blockSize = 256 << 10

// newHash makes a checksum that costs less than the transfer it is for.
func newHash() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }

// source gives pseudo-random bytes, no block like another, and sums them up.
// It ends early when bulkLimit is over.
type source struct {
	block    []byte
	pending  []byte
	left     int64
	blocks   uint64
	sent     int64
	hash     hash.Hash
	deadline time.Time
	progress func(sent int64)
}

func newSource(total int64) *source {
	s := &source{block: make([]byte, blockSize), left: total, hash: newHash(), deadline: time.Now().Add(bulkLimit)}
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(s.block) // never fails
	return s
}

// Read implements [io.Reader].
func (s *source) Read(b []byte) (int, error) {
	if len(s.pending) == 0 {
		if s.left <= 0 || time.Now().After(s.deadline) {
			return 0, io.EOF
		}
		binary.BigEndian.PutUint64(s.block, s.blocks)
		s.blocks++
		s.pending = s.block[:min(s.left, blockSize)]
		s.left -= int64(len(s.pending))
	}
	n := copy(b, s.pending)
	s.hash.Write(s.pending[:n])
	s.pending = s.pending[n:]
	s.sent += int64(n)
	if s.progress != nil {
		s.progress(s.sent)
	}
	return n, nil
}

func (s *source) sum() string { return hex.EncodeToString(s.hash.Sum(nil)) }

// sink sums up what is written to it.
type sink struct {
	hash     hash.Hash
	n        int64
	progress func(n int64)
}

// Write implements [io.Writer].
func (s *sink) Write(b []byte) (int, error) {
	s.hash.Write(b)
	s.n += int64(len(b))
	s.progress(s.n)
	return len(b), nil
}

// bulk sends much both ways: down over the intercept on IPv4, up over the
// virtual address on IPv6.
func (d *demo) bulk(ctx context.Context) {
	d.out.step("Bulk data")
	before, errBefore := scrape(ctx)
	down := d.transfer("download", func(b *bar) (int64, string, string, error) {
		return d.download(ctx, families[0].foreign, b)
	})
	up := d.transfer("upload", func(b *bar) (int64, string, string, error) {
		return d.upload(ctx, families[1].vip, b)
	})
	moved := float64(down + up)
	var spliced, copied float64
	err := errBefore
	if err == nil {
		err = d.eventually(ctx, func() error {
			after, err := scrape(ctx)
			if err != nil {
				return err
			}
			spliced = after.bytesBy("splice") - before.bytesBy("splice")
			copied = after.bytesBy("copy") - before.bytesBy("copy")
			if spliced+copied < moved {
				return fmt.Errorf("%.0f of %.0f bytes are counted", spliced+copied, moved)
			}
			return nil
		})
	}
	d.out.say("the daemon spliced %.1f MiB, which never came into its memory, and copied %.1f MiB", spliced/(1<<20), copied/(1<<20))
	d.out.check("bulk_spliced", err == nil && moved > 0 && spliced >= 0.9*moved,
		"%.0f of %.0f bytes spliced%s", spliced, moved, because(err))
}

// transfer runs one direction and checks its sums.
func (d *demo) transfer(label string, run func(*bar) (n int64, sent, received string, err error)) int64 {
	b := d.out.bar(label, d.cfg.Bulk)
	start := time.Now()
	n, sent, received, err := run(b)
	took := time.Since(start)
	b.clear()
	rate := fmt.Sprintf("%d MiB in %.2f s, %.2f Gbit/s", n>>20, took.Seconds(), float64(n)*8/took.Seconds()/1e9)
	d.out.say("%-8s %s", label, rate)
	name := map[string]string{"download": "bulk_checksum_down", "upload": "bulk_checksum_up"}[label]
	d.out.check(name, err == nil && n > 0 && sent == received, "%s, CRC-32C %s sent, %s received%s", rate, sent, received, because(err))
	return n
}

func (d *demo) download(ctx context.Context, address string, b *bar) (n int64, sent, received string, err error) {
	to := &sink{hash: newHash(), progress: b.set}
	path := fmt.Sprintf("/bulk?bytes=%d", d.cfg.Bulk)
	_, _, err = d.request(ctx, http.MethodGet, address, path, nil, func(res *http.Response) error {
		if _, err := io.CopyBuffer(to, struct{ io.Reader }{res.Body}, make([]byte, blockSize)); err != nil {
			return err
		}
		if sent = res.Trailer.Get("X-Crc32c"); sent == "" {
			return errors.New("the server sent no checksum")
		}
		return nil
	})
	return to.n, sent, hex.EncodeToString(to.hash.Sum(nil)), err
}

func (d *demo) upload(ctx context.Context, address string, b *bar) (n int64, sent, received string, err error) {
	src := newSource(d.cfg.Bulk)
	src.progress = b.set
	var got receipt
	_, _, err = d.request(ctx, http.MethodPut, address, "/bulk", src, func(res *http.Response) error {
		return json.NewDecoder(res.Body).Decode(&got)
	})
	return got.Bytes, src.sum(), got.CRC32C, err
}
