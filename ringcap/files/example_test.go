package files_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/tproxyd/tproxyd/ringcap/files"
	"github.com/tproxyd/tproxyd/ringcap/pcapng"
)

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Errorf("%s: %v: %s", name, err, out)
	}
}

func Example() {
	dir, err := os.MkdirTemp("", "captures")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	w, err := files.New(files.Config{
		Dir: dir, Prefix: "web", MaxPackets: 2, KeepFiles: 10,
		Header: func(dst []byte) []byte {
			return pcapng.AppendInterface(pcapng.AppendSection(dst, pcapng.Section{}), pcapng.Interface{Name: "eth0"})
		},
		Trailer: func(dst []byte, f files.File) []byte {
			return pcapng.AppendStatistics(dst, pcapng.Statistics{Start: f.Start, Stop: f.End, Delivered: uint64(f.Packets)})
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	for range 3 {
		if err := w.Write(ctx, pcapng.AppendPacket(nil, &pcapng.Packet{Data: make([]byte, 60)}), 1); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(w.Close(ctx), w.Stats().Files, "files")
	// Output: <nil> 2 files
}
