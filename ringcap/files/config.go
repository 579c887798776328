package files

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// Config of a Writer. Zero limits are none.
type Config struct {
	Dir    string // has to exist
	Prefix string // of the file names

	// Header begins each file and Trailer ends it. Both append to what they
	// get. The trailer should stay below TrailerSize bytes, which are kept free
	// below MaxBytes.
	Header  func(dst []byte) []byte
	Trailer func(dst []byte, f File) []byte

	// A file ends before the packet that would exceed MaxBytes or MaxPackets,
	// or when it is MaxDuration old. One packet is always written.
	MaxBytes, MaxPackets int64
	MaxDuration          time.Duration

	// The oldest complete files go while there are more than KeepFiles, or
	// while they have more than KeepBytes.
	KeepFiles int
	KeepBytes int64

	// Compress makes .zst of complete files.
	Compress bool
	// Recycle writes over the oldest file, once there are KeepFiles, and does
	// not delete it: its pages are there already, and getting new ones is most
	// of the cost of writing.
	Recycle bool

	// Retry is how long to wait after an error, 250 ms if 0.
	Retry time.Duration
	// Now is time.Now if nil.
	Now func() time.Time
}

// TrailerSize is what a trailer may need.
const TrailerSize = 4096

const defaultRetry = 250 * time.Millisecond

// File is what is known of a file when it ends.
type File struct {
	Start, End     time.Time
	Packets, Bytes int64
	// Errors is how many attempts to write failed while this file was to be
	// written, for Stalled together, the last one with LastError.
	Errors    int64
	Stalled   time.Duration
	LastError error
}

// Check says whether New would take the configuration. The directory has to be
// there.
func (c Config) Check() error {
	_, err := c.withDefaults()
	return err
}

func (c Config) withDefaults() (Config, error) {
	if c.Retry == 0 {
		c.Retry = defaultRetry
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	switch {
	case c.Header == nil || c.Trailer == nil:
		return c, errors.New("check capture files: Header and Trailer are needed")
	case c.Prefix == "" || strings.ContainsAny(c.Prefix, "/*?[\\"):
		return c, fmt.Errorf("check capture files: prefix %q is not part of a file name", c.Prefix)
	case c.MaxBytes < 0 || c.MaxPackets < 0 || c.MaxDuration < 0 || c.KeepFiles < 0 || c.KeepBytes < 0:
		return c, errors.New("check capture files: a limit is negative")
	case c.MaxBytes > 0 && c.MaxBytes < 2*TrailerSize:
		return c, fmt.Errorf("check capture files: %d bytes a file are below %d", c.MaxBytes, 2*TrailerSize)
	case c.Recycle && (c.Compress || c.KeepFiles == 0):
		return c, errors.New("check capture files: files are recycled only uncompressed and with a number to keep")
	}
	info, err := os.Stat(c.Dir)
	if err != nil {
		return c, fmt.Errorf("check directory of capture files: %w", err)
	}
	if !info.IsDir() {
		return c, fmt.Errorf("check directory of capture files: %s is none", c.Dir)
	}
	return c, nil
}
