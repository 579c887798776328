// Package files writes runs of packet blocks to capture files: rotated by
// size, duration and packets, each by itself; kept by number and total size;
// compressed afterwards if wanted.
//
// Invariants:
//   - A file has a name that ends in .tmp until it is complete; then it is
//     renamed. Whoever lists *.pcapng sees only whole files.
//   - At any time the file under .tmp is whole up to its last packet: what a
//     failed write left is cut off before anything else.
//   - [Writer.Write] does not return before the run is written, or its context
//     ends. On a full or missing disk it tries again and again: its caller then
//     holds its block of the ring, and the ring freezes, counts what it drops and
//     goes on when the disk does. Nobody else waits.
//   - What could not be written for how long is told to the Trailer of the file.
//   - Compression is on a goroutine of its own, after the rename.
//
// A file is not synced: capture files are no database, and fsync would hold up
// the ring.
package files
