// Package config turns a TOML file into a validated Config with all defaults
// filled in.
//
// Invariants:
//   - All mistakes of a file are found in one run. Each is one line with file,
//     line, key, what is wrong and the remedy. Only a syntax error hides the
//     mistakes behind it.
//   - A Config has passed every check that needs no look at the machine:
//     listeners do not overlap, no backend is a listener, numbers are in range. TCP
//     and UDP do not meet: both may have the same address and port.
//   - A key that would do nothing beside the others is a mistake.
//   - A Config is never written to after Parse and holds plain values only, so
//     reflect.DeepEqual of two services tells whether a reload changed them.
//   - The prefixes of allow_file and deny_file are part of the Config. Nothing else
//     outside the file is read, and no name is looked up.
//   - WriteTOML gives a file that parses back to the same Config.
//   - No input makes the package panic, and what it costs is bounded: a file has
//     1 MiB at most, its tables and arrays a small depth.
//
// The file is decoded to plain maps and walked by typed getters (table.go),
// since decoding to structs would stop at the first wrong type. The TOML library
// gives no lines for the keys of an array of tables; a scanner of our own
// (position.go) does.
//
// The language is TOML 1.1, https://toml.io/en/v1.1.0. The limits of keepalive
// and user_timeout are those of TCP_KEEPIDLE and TCP_USER_TIMEOUT, tcp(7); the
// idle_timeout of UDP is that of RFC 4787, section 4.3.
package config
