package main

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/gopacket/gopacket/afpacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// runGopacket captures from INTERFACE to DIR as gopacket's users do: packets
// from its ring, without a copy, to its writer of pcapng.
func runGopacket(args []string) (err error) {
	if len(args) != 2 {
		return errArguments
	}
	ring, err := afpacket.NewTPacket(
		afpacket.OptInterface(args[0]), afpacket.OptTPacketVersion(afpacket.TPacketVersion3),
		afpacket.OptFrameSize(ringBlock), afpacket.OptBlockSize(ringBlock), afpacket.OptNumBlocks(ringBlocks),
		afpacket.OptBlockTimeout(ringRetire), afpacket.OptPollTimeout(100*time.Millisecond))
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(args[1], "gopacket.pcapng"))
	if err != nil {
		return err
	}
	w, err := pcapgo.NewNgWriter(f, layers.LinkTypeEthernet)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	var stopping atomic.Bool
	done := make(chan error, 1)
	go func() { done <- copyPackets(ring, w, &stopping) }()
	return answerStop(func() (any, error) {
		stopping.Store(true)
		err := <-done
		ring.Close()
		return struct{}{}, errors.Join(err, w.Flush(), f.Close())
	})
}

func copyPackets(ring *afpacket.TPacket, w *pcapgo.NgWriter, stopping *atomic.Bool) error {
	for {
		data, ci, err := ring.ZeroCopyReadPacketData()
		if errors.Is(err, afpacket.ErrTimeout) {
			if stopping.Load() {
				return nil
			}
			continue
		}
		if err == nil {
			ci.InterfaceIndex = 0
			err = w.WritePacket(ci, data)
		}
		if err != nil {
			return err
		}
	}
}
