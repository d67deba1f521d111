package socket

import (
	"context"
	"crypto/tls"
	"io"
	"net"
)

// TLSHandshake is the first byte of a connection that begins with TLS. A frame would have to
// be longer than any of a handshake may be to begin with it.
const TLSHandshake = 0x16

// clientHello is more than what a connection of TLS begins with.
const clientHello = 16 << 10

// Skip takes what a connection begins with, which is about to be refused with an answer:
// closing it would take the answer back if there were something unread.
func Skip(conn net.Conn) {
	_, _ = conn.Read(make([]byte, clientHello)) // whatever it was
}

// begun is a connection whose first byte has been read.
type begun struct {
	net.Conn
	first []byte // until it is read again
}

func (c *begun) Read(b []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// beginAny is First for connections that can't look ahead.
func beginAny(conn net.Conn) (byte, net.Conn, error) {
	var first [1]byte
	if _, err := io.ReadFull(conn, first[:]); err != nil {
		return 0, conn, err
	}
	return first[0], &begun{conn, first[:]}, nil
}

// secureAny makes the handshake on connections without calls that don't wait: side
// is tls.Server or tls.Client.
func secureAny(ctx context.Context, conn net.Conn, config *tls.Config, side func(net.Conn, *tls.Config) *tls.Conn) (net.Conn, tls.ConnectionState, error) {
	c := side(conn, config)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, tls.ConnectionState{}, err
	}
	return c, c.ConnectionState(), nil
}
