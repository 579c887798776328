package proxyproto

const (
	signatureV1 = "PROXY "
	signatureV2 = "\r\n\r\n\x00\r\nQUIT\n"
)

// Verdict is what is known of a signature.
type Verdict uint8

// What a Signature can say.
const (
	Possible Verdict = iota // so far it matches
	Absent                  // there is none
	Present                 // there is one
)

// Signature looks for the signature of a PROXY header at the beginning of a
// stream whose bytes come in pieces and are not kept. With it a service refuses
// headers from clients that it does not trust. The zero value is ready; it is
// one byte: how much of a signature has been seen, and of which.
type Signature uint8

const (
	seenMask      = 0x0f
	isV2          = 0x10
	signatureDone = 0x20 // Present
	signatureNot  = 0x40 // Absent
)

// Scan goes on with the next bytes of the stream.
func (s *Signature) Scan(b []byte) Verdict {
	for _, c := range b {
		if *s&(signatureDone|signatureNot) != 0 {
			break
		}
		if *s == 0 && c == signatureV2[0] {
			*s = isV2
		}
		want := signatureV1
		if *s&isV2 != 0 {
			want = signatureV2
		}
		switch {
		case c != want[*s&seenMask]:
			*s = signatureNot
		case int(*s&seenMask)+1 == len(want):
			*s = signatureDone
		default:
			*s++
		}
	}
	switch {
	case *s&signatureDone != 0:
		return Present
	case *s&signatureNot != 0:
		return Absent
	}
	return Possible
}
