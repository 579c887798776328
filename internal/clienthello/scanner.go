package clienthello

import "errors"

var (
	// ErrShort says that what is there may begin a hello, and more must come.
	ErrShort = errors.New("incomplete ClientHello")
	// ErrNotTLS says that a stream does not begin with a TLS handshake record.
	// SSL 2 and SSL 3 are not TLS.
	ErrNotTLS = errors.New("no TLS handshake record")
	// ErrTooLong says that the hello does not fit into the limit.
	ErrTooLong = errors.New("ClientHello is longer than the limit")
)

// What is TLS and not legal.
var (
	errRecordType    = errors.New("ClientHello is interrupted by a record that is no handshake")
	errRecordVersion = errors.New("TLS record in a ClientHello has an unknown version")
	errRecordEmpty   = errors.New("TLS handshake record is empty")
	errRecordLength  = errors.New("TLS record is longer than 16384 bytes")
	errMessageType   = errors.New("first TLS handshake message is no ClientHello")
	errMessageEnd    = errors.New("TLS record goes on after the ClientHello")
)

// The layout of records and handshake messages (RFC 8446, 4 and 5.1).
const (
	typeHandshake   = 22
	typeClientHello = 1

	recordHeader  = 5 // type, version, length
	messageHeader = 4 // type, length
	maxFragment   = 1 << 14
)

// Scanner finds the hello in the records at the beginning of one stream. It
// remembers how far it has come, so that a client that sends byte by byte
// costs no more than one that does not. The zero value is ready.
type Scanner struct {
	record  int // where the first record that is not complete begins
	records int // complete ones before it
	have    int // bytes of the message in these
	size    int // of the message with its header; 0: not known yet
	need    int
	head    [messageHeader]byte
}

// Need is the length from which on another Parse can say something new.
func (s *Scanner) Need() int { return max(s.need, 1) }

// Parse reads all that the client has sent so far, from the first byte on.
// With limit above 0, it refuses a hello whose records take more bytes, as
// soon as that is clear. What comes after the hello is not looked at.
//
// Errors other than ErrShort are final. The Hello may refer to b.
func (s *Scanner) Parse(b []byte, limit int) (Hello, error) {
	for s.size == 0 || s.have < s.size {
		if len(b) < s.need {
			return Hello{}, ErrShort
		}
		if err := s.next(b, limit); err != nil {
			return Hello{}, err
		}
	}
	return parseMessage(s.message(b))
}

// Parse reads a hello of any length in one go.
func Parse(b []byte) (Hello, error) {
	var s Scanner
	return s.Parse(b, 0)
}

// next goes past one record. If there is less than one, it sets need.
func (s *Scanner) next(b []byte, limit int) error {
	rest := b[s.record:]
	if err := s.checkHeader(rest); err != nil {
		return err
	}
	if len(rest) < recordHeader {
		return s.wait(len(b)+1, limit) // each byte of a header can be wrong
	}
	length := int(rest[3])<<8 | int(rest[4])
	switch {
	case length == 0:
		return errRecordEmpty
	case length > maxFragment:
		return errRecordLength
	}
	end := recordHeader + length
	if err := s.readHead(rest[recordHeader:min(end, len(rest))], limit); err != nil {
		return err
	}
	if s.size > 0 && s.have+length > s.size {
		return errMessageEnd
	}
	if len(rest) < end {
		need := s.record + end
		if s.size == 0 {
			need = len(b) + 1 // the next byte tells the type or the length
		}
		return s.wait(need, limit)
	}
	s.have += length
	s.record += end
	s.records++
	return nil
}

// wait sets need, if the limit allows so much.
func (s *Scanner) wait(need, limit int) error {
	if limit > 0 && need > limit {
		return ErrTooLong
	}
	s.need = need
	return ErrShort
}

// checkHeader looks at what there is of a record's type and version.
func (s *Scanner) checkHeader(rest []byte) error {
	bad := func(later error) error {
		if s.records == 0 {
			return ErrNotTLS
		}
		return later
	}
	switch {
	case len(rest) > 0 && rest[0] != typeHandshake:
		return bad(errRecordType)
	case len(rest) > 1 && rest[1] != 3, len(rest) > 2 && (rest[2] < 1 || rest[2] > 3):
		return bad(errRecordVersion)
	}
	return nil
}

// readHead takes the header of the message from the fragment of a record, as
// far as it is there.
func (s *Scanner) readHead(fragment []byte, limit int) error {
	if s.size > 0 {
		return nil
	}
	copy(s.head[s.have:], fragment)
	have := s.have + len(fragment)
	if have > 0 && s.head[0] != typeClientHello {
		return errMessageType
	}
	if have < messageHeader {
		return nil
	}
	s.size = messageHeader + int(s.head[1])<<16 + int(s.head[2])<<8 + int(s.head[3])
	// At least one record carries what is missing.
	if limit > 0 && s.record+recordHeader+s.size-s.have > limit {
		return ErrTooLong
	}
	return nil
}

// message is the body of the complete message.
func (s *Scanner) message(b []byte) []byte {
	if s.records == 1 {
		return b[recordHeader+messageHeader : s.record]
	}
	whole := make([]byte, 0, s.size)
	for at := 0; at < s.record; {
		end := at + recordHeader + int(b[at+3])<<8 + int(b[at+4])
		whole = append(whole, b[at+recordHeader:end]...)
		at = end
	}
	return whole[messageHeader:]
}
