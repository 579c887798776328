// Package netnstest is the shell around tests that need network namespaces.
//
// A test binary calls [Main] from its TestMain and so runs in a sandbox of its
// own, without root; each test makes its network with [New]. After the last
// test no goroutine and no descriptor may be left.
//
// Nothing here skips on its own account: what a test needs it asks for with
// [Need], which fails in CI.
package netnstest
