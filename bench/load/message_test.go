package load

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"slices"
	"testing"
)

// Requests and responses are HTTP, of the sizes that are promised.
func TestMessagesAreHTTP(t *testing.T) {
	req := newRequest(kindKeep)
	putID(req[idOffset:], 0x0123456789abcdef)
	if len(req) != RequestSize {
		t.Errorf("request has %d bytes, want %d", len(req), RequestSize)
	}
	parsed, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(req)))
	if err != nil {
		t.Fatal(err)
	}
	if want := "/k/0123456789abcdef"; parsed.URL.Path != want {
		t.Errorf("path = %q, want %q", parsed.URL.Path, want)
	}
	resp := newResponse()
	putID(resp[echoOffset:], 42)
	if len(resp) != ResponseSize {
		t.Errorf("response has %d bytes, want %d", len(resp), ResponseSize)
	}
	rest := bufio.NewReader(bytes.NewReader(resp))
	answer, err := http.ReadResponse(rest, parsed)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	if err != nil || int64(len(body)) != answer.ContentLength {
		t.Errorf("body of %d bytes, %v, want %d", len(body), err, answer.ContentLength)
	}
	if err := answer.Body.Close(); err != nil {
		t.Error(err)
	}
	if n := rest.Buffered(); n != 0 {
		t.Errorf("%d bytes behind the response", n)
	}
	if got, want := answer.Header.Get("X-Id"), "000000000000002a"; got != want {
		t.Errorf("X-Id = %q, want %q", got, want)
	}
}

func TestPattern(t *testing.T) {
	p := newPattern()
	for _, off := range []uint64{0, 1, patternPeriod - 1, patternPeriod, 5*patternPeriod + 77} {
		if !p.matches(off, p.at(off)) {
			t.Errorf("the chunk at %d does not match itself", off)
		}
		if off > 0 && !bytes.Equal(p.at(off)[:chunkSize-1], p.at(off - 1)[1:]) {
			t.Errorf("the chunks at %d and one before do not overlap", off)
		}
	}
	// What a proxy could do to a stream: lose, double or shift a piece.
	for _, d := range []uint64{1, 1448, 4096, 65536, 1 << 20, 1 << 30} {
		if p.matches(d, p.at(0)[:1448]) {
			t.Errorf("a stream shifted by %d bytes goes unnoticed", d)
		}
	}
}

func TestTail(t *testing.T) {
	want := newTail(0x1122334455667788)
	stream := append(bytes.Repeat([]byte{0xff}, 13), want[:]...)
	for step := 1; step <= len(stream); step++ {
		var got tail
		for piece := range slices.Chunk(stream, step) {
			got.add(piece)
		}
		if got.count() != want.count() {
			t.Errorf("in pieces of %d: count = %#x, want %#x", step, got.count(), want.count())
		}
	}
}
