//go:build !linux && !darwin

package socket

import (
	"context"
	"crypto/tls"
	"net"
)

// Wrap returns conn as it is: this system has no calls that don't wait.
func Wrap(conn net.Conn) net.Conn { return conn }

// First waits for the first byte of a connection and returns it, and the
// connection that still begins with it.
func First(conn net.Conn) (byte, net.Conn, error) { return beginAny(conn) }

// Serve is the server's part of a TLS handshake, which ctx and the connection's
// deadline bound. It returns the encrypted connection, which owns conn; on an
// error conn stays the caller's.
func Serve(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, tls.ConnectionState, error) {
	return secureAny(ctx, conn, config, tls.Server)
}

// Open is the client's part of a TLS handshake; for the rest it is [Serve].
func Open(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, tls.ConnectionState, error) {
	return secureAny(ctx, conn, config, tls.Client)
}
