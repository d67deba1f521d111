package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

const (
	handshakeTimeout = 5 * time.Second
	// maxIncomingFrame bounds what a node may send in one frame: answers of
	// the hub itself, such as its list of clients, can be larger than an
	// artifact may be.
	maxIncomingFrame = 64 << 20
)

// link is one connection to a node, past its handshake.
type link struct {
	conn    net.Conn
	reader  *wire.Reader
	welcome wire.Welcome
	address string
	token   string // that the node was shown; of the goroutine that renews it, after the handshake

	done  chan struct{} // closed with the connection
	close func()        // may be called often

	// Of the reader's goroutine alone.
	reason error // what the node gave as the reason to end

	mu       sync.Mutex // guards the fields below
	leaving  bool       // this client goes elsewhere on purpose
	redirect []string   // where the node said to go
	writing  error      // why the writer gave up
}

// open shakes hands over a connection, if there is one.
func (c *Client) open(ctx context.Context, d dialed) (*link, error) {
	if d.err != nil {
		return nil, d.err
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, secure := d.conn, d.secure
	if secure != nil {
		encrypted := tls.Client(conn, secure)
		if err := encrypted.HandshakeContext(ctx); err != nil {
			_ = conn.Close() // the first error says more
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return nil, explainTLS(err, secure.ServerName, c.opts.caFile)
		}
		conn = encrypted
	}
	l := &link{conn: conn, address: d.address, done: make(chan struct{})}
	l.close = sync.OnceFunc(func() {
		close(l.done)
		_ = conn.Close() // whoever uses it learns of the end by its own error
	})
	stop := context.AfterFunc(ctx, l.close)
	err := c.handshake(l)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		l.close()
		if cause := context.Cause(ctx); cause != nil && !isRefusal(err) {
			err = cause
		}
		return nil, err
	}
	return l, nil
}

func isRefusal(err error) bool {
	_, ok := errors.AsType[*refusedError](err)
	return ok
}

// refusedError is a node's answer to Hello that is no Welcome.
type refusedError struct{ err error }

func (e *refusedError) Error() string { return "refused by the hub: " + e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

func (c *Client) handshake(l *link) error {
	if err := l.conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return fmt.Errorf("limit the time of the handshake: %w", err)
	}
	token, err := c.opts.readToken()
	if err != nil {
		return err
	}
	l.token = token
	introduction := wire.Hello{
		MinVersion: wire.Version, MaxVersion: wire.Version,
		ID: c.opts.id, Name: c.opts.name, Version: c.opts.version, Token: token,
		NoBroadcast: c.opts.noBroadcast, Labels: c.opts.labels, Publisher: c.out.numbers.id,
	}
	c.introduce(&introduction)
	hello := wire.AppendControl(nil, wire.Header{Kind: wire.KindHello}, "", introduction)
	if len(hello) > wire.MaxHandshakeFrame {
		return &refusedError{&wire.Error{Code: wire.CodeFrameTooLarge, Detail: "labels and token are too large for the handshake"}}
	}
	if _, err := l.conn.Write(hello); err != nil {
		return fmt.Errorf("say hello: %w", err)
	}
	l.reader = wire.NewReader(&liveConn{link: l, client: c}, wire.MaxHandshakeFrame)
	f, err := l.reader.Next()
	switch {
	case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrFrameTooLarge):
		return fmt.Errorf("the answer is not that of a hub (is this its client port, and TLS on both sides or on none?): %w", err)
	case errors.Is(err, io.EOF):
		return errors.New("closed the connection without an answer")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no answer within %v", handshakeTimeout)
	case err != nil:
		return fmt.Errorf("wait for the answer to hello: %w", err)
	case f.Kind() == wire.KindError || f.Kind() == wire.KindGoodbye:
		return &refusedError{wire.ParseFault(f.Body()).Err()}
	case f.Kind() != wire.KindWelcome:
		return fmt.Errorf("answered hello with a frame of kind %d", f.Kind())
	}
	if err := wire.DecodeControl(f, &l.welcome); err != nil {
		return fmt.Errorf("read welcome: %w", err)
	}
	if l.welcome.MaxArtifact <= 0 {
		l.welcome.MaxArtifact = wire.DefaultMaxArtifact
	}
	if l.welcome.MaxFrame <= 0 {
		l.welcome.MaxFrame = wire.MaxFrame(l.welcome.MaxArtifact)
	}
	l.reader.SetLimit(max(l.welcome.MaxFrame, maxIncomingFrame))
	if err := l.conn.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("lift the time limit of the handshake: %w", err)
	}
	return nil
}

// liveConn reads from a link and watches over its health: after half of the
// node's ping timeout without a byte it pings, after all of it the connection
// counts as dead. The node pings silent clients only, so a client that does
// nothing but publish has to ask for a sign of life itself.
type liveConn struct {
	link   *link
	client *Client
	until  time.Time // when the read deadline was last set to expire
}

func (r *liveConn) Read(b []byte) (int, error) {
	timeout := time.Duration(r.link.welcome.PingTimeout) * time.Millisecond
	if timeout <= 0 { // also during the handshake, which has its own deadline
		return r.link.conn.Read(b)
	}
	for asked := false; ; asked = true {
		now := time.Now()
		if r.until.Sub(now) < timeout/4 || asked { // not for each read: setting it has its cost
			r.until = now.Add(timeout / 2)
			if err := r.link.conn.SetReadDeadline(r.until); err != nil {
				return 0, err
			}
		}
		n, err := r.link.conn.Read(b)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if asked {
			return 0, fmt.Errorf("nothing heard from the node for %v", timeout)
		}
		r.client.out.control(wire.Header{Kind: wire.KindPing}, "", nil, false)
	}
}

// ending returns why a link has ended, once its reader has, with reading.
func (l *link) ending(reading error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.reason == nil && l.leaving:
		return fmt.Errorf("node %q drains", l.welcome.Node)
	case l.reason == nil && l.writing != nil && errors.Is(reading, net.ErrClosed):
		return fmt.Errorf("write to node %q: %w", l.welcome.Node, l.writing)
	}
	return reading
}

// write is the link's writer: it ends when the link is closed, or closes it.
func (c *Client) write(l *link) {
	defer l.close()
	for {
		b, last, ok := c.out.take(l.done)
		if !ok {
			return
		}
		_, err := l.conn.Write(b)
		if err != nil {
			l.mu.Lock()
			l.writing = err
			l.mu.Unlock()
		}
		if err != nil || last {
			return
		}
		c.out.wrote(len(b))
	}
}
