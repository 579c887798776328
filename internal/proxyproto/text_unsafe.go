package proxyproto

import "unsafe"

// text is b as a string without a copy. It must not live longer than b stays as
// it is.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
