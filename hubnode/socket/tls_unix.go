//go:build linux || darwin

package socket

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// First waits for the first byte of a connection and returns it, and the
// connection that still begins with it.
func First(conn net.Conn) (byte, net.Conn, error) {
	c, ok := conn.(*Conn)
	if !ok {
		return beginAny(conn)
	}
	var (
		first [1]byte
		n     int
		err   error
	)
	waited := c.raw.Read(func(fd uintptr) bool {
		n, err = retry(func(fd int, b []byte) (int, error) {
			n, _, err := unix.Recvfrom(fd, b, unix.MSG_PEEK)
			return n, err
		}, fd, first[:])
		return !errors.Is(err, unix.EAGAIN)
	})
	switch {
	case waited != nil:
		return 0, conn, waited
	case err != nil:
		return 0, conn, os.NewSyscallError("recvfrom", err)
	case n == 0:
		return 0, conn, io.EOF
	}
	return first[0], conn, nil
}

// Serve is the server's part of a TLS handshake, which ctx and the connection's
// deadline bound. It returns the encrypted connection, which owns conn; on an
// error conn stays the caller's. A connection of [Wrap] becomes a [TLSConn].
func Serve(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, tls.ConnectionState, error) {
	return secure(ctx, conn, config, tls.Server)
}

// Open is the client's part of a TLS handshake; for the rest it is [Serve].
func Open(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, tls.ConnectionState, error) {
	return secure(ctx, conn, config, tls.Client)
}

// secure makes the handshake: side is tls.Server or tls.Client.
func secure(ctx context.Context, conn net.Conn, config *tls.Config, side func(net.Conn, *tls.Config) *tls.Conn) (net.Conn, tls.ConnectionState, error) {
	under, ok := conn.(*Conn)
	if !ok {
		return secureAny(ctx, conn, config, side)
	}
	r := newRecords(under)
	c := &TLSConn{Conn: side(r, config), records: r}
	r.waits = true
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, tls.ConnectionState{}, err
	}
	r.waits = false
	// A client's handshake ends with what it writes, and the server's waits for all
	// of it.
	if _, err := r.send(true); err != nil {
		return nil, tls.ConnectionState{}, err
	}
	return c, c.ConnectionState(), nil
}

// maxPlain is how much of what is written a record takes, and stepPlain how much
// is sealed before it is sent.
const (
	maxPlain  = 16 << 10
	stepPlain = 4 * maxPlain
)

var plains = sync.Pool{New: func() any { b := make([]byte, 0, maxPlain); return &b }}

// TLSConn is an encrypted connection. Besides what tls.Conn allows, Read and
// ReadTo are for one goroutine at a time, and so are Write, WriteAll and TryWrite
// together.
//
// crypto/tls moves one record at a time, and waits for it. Here it works on
// memory, and each call to the system moves many records.
type TLSConn struct {
	*tls.Conn
	records *records
	owed    int // bytes of what is written next that are sealed, and not all sent
}

// Read reads at least one byte.
func (c *TLSConn) Read(b []byte) (int, error) {
	return c.ReadTo(func() []byte { return b }, func() {})
}

// ReadTo is [Conn.ReadTo]. It reads whatever has arrived, as far as the buffer
// has room for it.
func (c *TLSConn) ReadTo(buffer func() []byte, drop func()) (int, error) {
	for {
		n, err := c.readArrived(buffer())
		if !errors.Is(err, errNothing) {
			return n, err
		}
		if err := c.records.fill(drop); err != nil {
			return 0, err
		}
	}
}

// readArrived reads what has arrived, as far as b has room for it.
func (c *TLSConn) readArrived(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = c.Conn.Read(b[n:])
		n += m
	}
	if n > 0 {
		err = nil // the next read finds it again
	}
	return n, err
}

// TryWrite writes the buffers, one after the other, as far as the connection
// takes them at once, and does not wait. Whatever it leaves has to be written
// next, byte for byte: it may be sealed already.
func (c *TLSConn) TryWrite(all [][]byte) (int, error) { return c.write(all, false) }

// WriteAll writes the buffers, one after the other, and waits until the
// connection has taken them.
func (c *TLSConn) WriteAll(all [][]byte) (int, error) { return c.write(all, true) }

// Write is WriteAll of one buffer.
func (c *TLSConn) Write(b []byte) (int, error) { return c.write([][]byte{b}, true) }

// PeerClosed is [Conn.PeerClosed], for the goroutine that reads.
func (c *TLSConn) PeerClosed() bool { return c.records.peerClosed() }

// write seals the buffers in steps and sends each step. What was sealed and not
// sent before goes first, and counts as written once it is.
func (c *TLSConn) write(all [][]byte, wait bool) (written int, err error) {
	c.records.hold()
	defer c.records.release()
	if sent, err := c.records.send(wait); !sent {
		return 0, err
	}
	written, c.owed = c.owed, 0
	p := plaintext{rest: all}
	defer p.end()
	p.skip(written)
	for {
		size := 0
		for size < stepPlain {
			b := p.next()
			if len(b) == 0 {
				break
			}
			if _, err := c.Conn.Write(b); err != nil {
				return written, err
			}
			size += len(b)
		}
		if size == 0 {
			return written, nil
		}
		if sent, err := c.records.send(wait); !sent {
			c.owed = size
			return written, err
		}
		written += size
	}
}

// plaintext cuts buffers into what a record takes.
type plaintext struct {
	rest    [][]byte // to come
	at      int      // of the first of them
	scratch *[]byte  // where small buffers are gathered; nil before there are any
}

// skip leaves out n bytes.
func (p *plaintext) skip(n int) {
	for n > 0 {
		k := min(n, len(p.rest[0])-p.at)
		p.advance(k)
		n -= k
	}
}

// advance moves on in the first of the buffers.
func (p *plaintext) advance(n int) {
	if p.at += n; p.at == len(p.rest[0]) {
		p.rest, p.at = p.rest[1:], 0
	}
}

// next returns the next bytes, valid until it is called again; none at the end.
func (p *plaintext) next() []byte {
	for len(p.rest) > 0 && p.at == len(p.rest[0]) {
		p.advance(0) // an empty one
	}
	if len(p.rest) == 0 {
		return nil
	}
	if first := p.rest[0][p.at:]; len(p.rest) == 1 || len(first) >= maxPlain {
		first = first[:min(len(first), maxPlain)]
		p.advance(len(first))
		return first
	}
	if p.scratch == nil {
		p.scratch, _ = plains.Get().(*[]byte)
	}
	b := (*p.scratch)[:0]
	for len(p.rest) > 0 && len(b) < maxPlain {
		first := p.rest[0][p.at:]
		first = first[:min(len(first), maxPlain-len(b))]
		b = append(b, first...)
		p.advance(len(first))
	}
	return b
}

// end gives back what next returned.
func (p *plaintext) end() {
	if p.scratch != nil {
		plains.Put(p.scratch)
	}
}
