package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"slices"
	"time"
)

const (
	dialTimeout = 5 * time.Second
	// dialStagger is how long an address may keep the client waiting before the next one is
	// dialed beside it: that of a machine that is gone answers nothing at all. As in RFC 8305,
	// which takes less: where every client of a lost node comes at once, answers take longer.
	dialStagger = time.Second
)

// dialed is what came of dialing an address.
type dialed struct {
	address string
	secure  *tls.Config // nil: the connection is not encrypted
	conn    net.Conn
	err     error
}

// tryAll returns the first link that one of the addresses gives, or one of those that
// a node names which refuses the client. Addresses are dialed in order, each once the one
// before has failed or lets the client wait; nodes hear of it one after another.
func (c *Client) tryAll(ctx context.Context, addresses []string) (*link, error) {
	failed := &UnreachableError{}
	addresses = slices.Clone(addresses)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers, left := make(chan dialed), make(chan struct{})
	defer close(left)
	next, pending := 0, 0
	for {
		if next < len(addresses) && ctx.Err() == nil {
			c.dial(ctx, addresses[next], answers, left)
			next, pending = next+1, pending+1
		}
		if pending == 0 {
			return nil, failed
		}
		select {
		case d := <-answers:
			pending--
			l, err := c.open(ctx, d)
			if err == nil {
				return l, nil
			}
			failed.Attempts = append(failed.Attempts, Attempt{Address: d.address, Err: err})
			addresses = append(addresses, elsewhere(err, addresses)...)
		case <-time.After(dialStagger):
		}
	}
}

// dial sends what comes of dialing an address, unless nobody wants to know any more.
func (c *Client) dial(ctx context.Context, address string, answers chan<- dialed, left <-chan struct{}) {
	d := dialed{address: address}
	d.secure, d.err = c.tlsFor(address)
	c.wg.Go(func() {
		if d.err == nil {
			within, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			d.conn, d.err = c.opts.dial(within, "tcp", address)
			d.err = plainDialError(d.err)
		}
		select {
		case answers <- d:
		case <-left:
			if d.err == nil {
				_ = d.conn.Close() // nothing was said over it
			}
		}
	})
}

// plainDialError leaves out what says nothing to people: "dial tcp 127.0.0.1:7400: connect:".
func plainDialError(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		if call, ok := errors.AsType[*os.SyscallError](op.Err); ok {
			return call.Err
		}
		return op.Err
	}
	return err
}
