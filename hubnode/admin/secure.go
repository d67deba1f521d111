package admin

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/switchboardhub/switchboard/hubnode/socket"
	"github.com/switchboardhub/switchboard/hubnode/strangers"
)

// TLS is how the port is encrypted.
type TLS struct {
	Config   *tls.Config // nil: it is not
	Required bool        // lists are told on encrypted connections only
}

// listener takes connections with TLS and without on one port: the first byte tells them apart.
type listener struct {
	net.Listener
	tls   func() TLS
	crowd *strangers.Crowd // all but those over loopback
}

func (l listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &connection{Conn: conn, tls: l.tls}
	if !isLoopback(conn.RemoteAddr().String()) {
		c.place = l.crowd.Enter(conn)
	}
	return c, nil
}

// connection is plain or encrypted, which its first Read finds out: it is the server's
// goroutine for this connection that waits, as long as a request may take to begin.
type connection struct {
	net.Conn // the socket
	tls      func() TLS
	place    *strangers.Place // nil over loopback

	once    sync.Once
	begun   net.Conn // what is read and written; after once
	failed  error    // likewise
	secured atomic.Pointer[tls.Conn]
}

func (c *connection) begin() {
	first, begun, err := socket.First(c.Conn)
	c.begun, c.failed = begun, err
	if config := c.tls().Config; err == nil && first == socket.TLSHandshake && config != nil {
		secured := tls.Server(begun, config)
		c.secured.Store(secured)
		c.begun = secured
	}
}

func (c *connection) Read(b []byte) (int, error) {
	c.once.Do(c.begin)
	if c.failed != nil {
		return 0, c.failed
	}
	return c.begun.Read(b)
}

func (c *connection) Write(b []byte) (int, error) {
	c.once.Do(c.begin)
	if c.failed != nil { // what would be an answer in the clear is none to who speaks TLS
		return 0, c.failed
	}
	return c.begun.Write(b)
}

func (c *connection) Close() error {
	if c.place != nil {
		c.place.Leave()
	}
	if secured := c.secured.Load(); secured != nil {
		return secured.Close()
	}
	return c.Conn.Close()
}

// CloseWrite lets the other side read an answer to what it still sends.
func (c *connection) CloseWrite() error {
	if secured := c.secured.Load(); secured != nil {
		return secured.CloseWrite()
	}
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// connectionKey is under what requests know their connection.
type connectionKey struct{}

func withConnection(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, conn)
}

// isEncrypted reports whether a request came over TLS.
func isEncrypted(r *http.Request) bool {
	conn, ok := r.Context().Value(connectionKey{}).(*connection)
	return ok && conn.secured.Load() != nil
}
