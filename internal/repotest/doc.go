// Package repotest holds the rules of the repository as ordinary tests: which
// package may import which, how large a file may be, where unsafe and skipped
// tests are allowed, what lies at the top.
//
// There is nothing in it to import.
package repotest
