// Package wire is the language that clients and nodes speak: frames, the
// artifacts in them, limits and error codes. docs/reference/protocol.md is its
// specification; testdata holds golden frames for other implementations.
//
// It decides and encodes; it opens no connection and starts no goroutine.
package wire
