package clienthello

import (
	"bytes"
	"errors"
)

var (
	errTruncated   = errors.New("ClientHello: a length does not fit")
	errVersion     = errors.New("ClientHello: version is SSL 3 or older")
	errSessionID   = errors.New("ClientHello: session id is longer than 32 bytes")
	errSuites      = errors.New("ClientHello: cipher suites are no list of two bytes each")
	errCompression = errors.New("ClientHello: compression methods are without null")
	errTwice       = errors.New("ClientHello: an extension is there twice")
	errKeyNotLast  = errors.New("ClientHello: pre_shared_key is not the last extension")
	errNameList    = errors.New("ClientHello: server_name is no list of names, one of a type")
	errHostName    = errors.New("ClientHello: server name is no host name")
	errALPN        = errors.New("ClientHello: ALPN is no list of names")
)

// The extensions that are looked at (IANA, TLS ExtensionType Values).
const (
	extServerName   = 0
	extALPN         = 16
	extPreSharedKey = 41
	extECH          = 0xfe0d
)

const (
	randomLength  = 32
	maxSessionID  = 32
	maxNameLength = 253 // of a host name as text (RFC 1035, 2.3.4)
)

// Hello is what a client asks for. Its protocols are in the bytes that were
// parsed, unless these were in several records.
type Hello struct {
	// ECH says that there is an Encrypted Client Hello, or what looks like one
	// (RFC 9849, 6.2): the server name is then the outer one.
	ECH bool

	alpn       cursor // a checked ProtocolNameList
	nameLength uint8
	name       [maxNameLength]byte
}

// ServerName is the host name in lower case, and empty if there is none or an
// address in its place. It is part of h.
func (h *Hello) ServerName() []byte { return h.name[:h.nameLength:h.nameLength] }

// Protocols yields those that ALPN offers, in the client's order; it is for
// range. It allocates nothing, which an iterator that it returned might.
func (h *Hello) Protocols(yield func([]byte) bool) {
	rest := h.alpn
	for len(rest) > 0 {
		if name, ok := rest.vector(1); !ok || !yield(name) {
			return
		}
	}
}

// parseMessage reads a ClientHello without its handshake header (RFC 8446,
// 4.1.2).
func parseMessage(b []byte) (Hello, error) {
	rest := cursor(b)
	version, ok := rest.number(2)
	if !ok {
		return Hello{}, errTruncated
	}
	if version <= 0x0300 {
		return Hello{}, errVersion
	}
	if _, ok = rest.take(randomLength); !ok {
		return Hello{}, errTruncated
	}
	session, ok := rest.vector(1)
	if !ok {
		return Hello{}, errTruncated
	}
	if len(session) > maxSessionID {
		return Hello{}, errSessionID
	}
	suites, ok := rest.vector(2)
	if !ok {
		return Hello{}, errTruncated
	}
	if len(suites) == 0 || len(suites)%2 != 0 {
		return Hello{}, errSuites
	}
	methods, ok := rest.vector(1)
	if !ok {
		return Hello{}, errTruncated
	}
	if bytes.IndexByte(methods, 0) < 0 {
		return Hello{}, errCompression
	}
	if len(rest) == 0 { // before TLS 1.3, extensions may be missing as a whole
		return Hello{}, nil
	}
	extensions, ok := rest.vector(2)
	if !ok || len(rest) > 0 {
		return Hello{}, errTruncated
	}
	return parseExtensions(extensions)
}

// parseExtensions reads the extensions that matter and the frame of the others.
func parseExtensions(rest cursor) (Hello, error) {
	var (
		h    Hello
		seen [1 << 16 / 64]uint64 // a bit for each type
	)
	for len(rest) > 0 {
		kind, ok := rest.number(2)
		if !ok {
			return Hello{}, errTruncated
		}
		data, ok := rest.vector(2)
		if !ok {
			return Hello{}, errTruncated
		}
		word, bit := kind/64, uint64(1)<<(kind%64)
		if seen[word]&bit != 0 {
			return Hello{}, errTwice
		}
		seen[word] |= bit

		var err error
		switch kind {
		case extServerName:
			err = h.readServerName(data)
		case extALPN:
			err = h.readALPN(data)
		case extECH:
			h.ECH = true
		case extPreSharedKey:
			if len(rest) > 0 {
				err = errKeyNotLast
			}
		}
		if err != nil {
			return Hello{}, err
		}
	}
	return h, nil
}

// readServerName reads a ServerNameList. The only type of names so far is
// host_name; others begin with a length too, by RFC 6066, and are passed over.
func (h *Hello) readServerName(data cursor) error {
	list, ok := data.vector(2)
	if !ok || len(data) > 0 || len(list) == 0 {
		return errNameList
	}
	var seen [4]uint64
	for len(list) > 0 {
		kind, ok := list.number(1)
		if !ok {
			return errNameList
		}
		name, ok := list.vector(2)
		if !ok || len(name) == 0 {
			return errNameList
		}
		word, bit := kind/64, uint64(1)<<(kind%64)
		if seen[word]&bit != 0 {
			return errNameList
		}
		seen[word] |= bit
		if kind != 0 {
			continue
		}
		if err := h.setName(name); err != nil {
			return err
		}
	}
	return nil
}

// readALPN checks a ProtocolNameList and keeps it.
func (h *Hello) readALPN(data cursor) error {
	list, ok := data.vector(2)
	if !ok || len(data) > 0 || len(list) == 0 {
		return errALPN
	}
	for rest := list; len(rest) > 0; {
		if name, ok := rest.vector(1); !ok || len(name) == 0 {
			return errALPN
		}
	}
	h.alpn = list
	return nil
}
