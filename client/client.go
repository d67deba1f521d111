package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

const (
	closeTimeout   = 5 * time.Second        // what Close gives to what is in flight
	goodbyeTimeout = time.Second            // what the last frame has to be written
	drainTimeout   = 2 * time.Second        // what is in flight has, before the client leaves a draining node
	drainJitter    = 200 * time.Millisecond // clients of a draining node leave within this time
	eventsMax      = 1024                   // callbacks that wait
)

// Client is one named participant of a hub. Its methods are safe for
// concurrent use.
type Client struct {
	opts  options
	given []string // addresses
	out   *sender

	life context.Context //nolint:containedctx // ends with the client, not with a call
	stop context.CancelFunc
	wg   sync.WaitGroup // everything the client started; Close waits for it
	done chan struct{}  // closed when the client has ended

	closeOnce sync.Once
	leaving   chan struct{} // closed when Close begins

	events   inbox[func()]
	direct   inbox[incoming] // plain sends to this client
	requests inbox[incoming]
	slots    chan struct{} // a value for each request that is handled

	session session // of the goroutine that connects and reads
	trust   *trust  // likewise; nil: connections are not encrypted

	// Lock order: Client.mu, Subscription.mu, then sender.mu or inbox.mu. None
	// is held while a callback or handler runs, nor across network I/O.
	mu   sync.Mutex // guards the fields below
	subs map[uint32]*Subscription
	subN uint64 // subscriptions made so far

	durables map[*Subscription]struct{}

	up      bool // connected, and every subscription's frame is queued
	closing bool
	server  Server
	link    *link // the newest one
	handler RequestHandler
	watches map[*presenceWatch]struct{}
	pages   map[uint32]*page // of history that are being read
	err     error
}

// Server says where a client is connected.
type Server struct {
	Hub     string // the hub's identity
	Node    string
	Address string // as dialed
}

// Connect connects to the first of the addresses ("host:port[,host:port…]")
// that leads to a hub. The client reconnects by itself until Close.
//
// When no address leads to a hub it returns an [UnreachableError] at once, or
// with [WithRetryFirstConnect] once ctx ends; otherwise ctx bounds nothing but
// the first connect.
func Connect(ctx context.Context, addresses string, opts ...Option) (*Client, error) {
	given, err := parseAddresses(addresses)
	if err != nil {
		return nil, err
	}
	o := newOptions(opts)
	if err := wire.CheckClientID(o.id); err != nil {
		return nil, err
	}
	if _, err := o.readToken(); err != nil {
		return nil, err
	}
	c := &Client{
		opts: o, given: given, trust: newTrust(&o, given),
		out:     newSender(o.id, o.inFlight),
		done:    make(chan struct{}),
		leaving: make(chan struct{}),
		slots:   make(chan struct{}, o.requests),
		subs:    make(map[uint32]*Subscription),
		watches: make(map[*presenceWatch]struct{}),
		pages:   make(map[uint32]*page),

		durables: make(map[*Subscription]struct{}),

		handler: o.handler,
	}
	c.session.resumable = !o.noSession && o.maxReconnects != 0
	c.life, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	c.events = inbox[func()]{limit: eventsMax, handle: func(f func()) { f() }, spawn: c.wg.Go}
	c.direct = inbox[incoming]{limit: o.queueBytes, handle: c.handleDirect, spawn: c.wg.Go, eased: c.eased}
	c.requests = inbox[incoming]{limit: o.queueBytes, handle: c.startRequest, spawn: c.wg.Go, eased: c.eased}
	if o.broadcast != nil {
		c.subs[0] = c.newSubscription(0, "broadcast", o.broadcast, nil)
	}

	l, err := c.first(ctx)
	if err != nil {
		c.stop()
		c.wg.Wait()
		return nil, err
	}
	c.attach(l)
	c.wg.Go(func() { c.run(l) }) //nolint:contextcheck // ctx bounds the first connect alone
	return c, nil
}

// first makes the first connection.
func (c *Client) first(ctx context.Context) (*link, error) {
	for round := 0; ; round++ {
		l, err := c.tryAll(ctx, c.given)
		if err == nil || !c.opts.retryFirst || ctx.Err() != nil {
			return l, err
		}
		if !sleep(ctx, c.wait(round)) {
			return nil, err
		}
	}
}

// wait returns the time between two rounds of attempts.
func (c *Client) wait(round int) time.Duration {
	d := c.opts.waitMax
	if round < 16 {
		d = min(d, c.opts.waitMin<<round)
	}
	return d/2 + jitter(d/2)
}

// jitter returns a random time of at most d.
func jitter(d time.Duration) time.Duration {
	return rand.N(d + 1) //nolint:gosec // clients should differ; nobody gains by guessing
}

// sleep waits and reports whether ctx is still alive.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// run serves one connection after another until the client ends.
func (c *Client) run(l *link) {
	var err error
	for l != nil {
		reason := c.serve(l)
		moved := c.detach(l, reason)
		if _, replaced := errors.AsType[*SessionReplacedError](reason); replaced && !c.isClosing() {
			err = reason
			break
		}
		if l, err = c.reconnect(l, moved); l != nil {
			c.attach(l)
		}
	}
	c.finish(err)
}

// serve reads from a connection until it ends and returns why it did.
func (c *Client) serve(l *link) error {
	stop := context.AfterFunc(c.life, l.close)
	defer stop()
	var writer sync.WaitGroup
	writer.Go(func() { c.write(l) })
	writer.Go(func() { c.renewTokens(l) })
	err := c.read(l)
	l.close()
	writer.Wait()
	l.reader.Close()
	return l.ending(err)
}

// attach makes l the connection in use and restores the subscriptions.
func (c *Client) attach(l *link) {
	c.session.joined(&l.welcome)
	c.mu.Lock()
	c.server = Server{Hub: l.welcome.Hub, Node: l.welcome.Node, Address: l.address}
	c.link, c.up = l, true
	c.distrustWatchesLocked()
	server := c.server
	c.out.connected(&l.welcome, c.resubscribeLocked())
	c.mu.Unlock()
	c.tellReceived()
	if f := c.opts.onConnect; f != nil {
		c.event(func() { f(server) })
	}
}

// detach takes l out of use. It reports whether the client leaves on purpose.
func (c *Client) detach(l *link, reason error) (moved bool) {
	l.mu.Lock()
	moved = l.leaving
	l.mu.Unlock()
	c.mu.Lock()
	c.up = false
	closing := c.closing
	c.mu.Unlock()
	c.out.disconnected(moved, time.Duration(l.welcome.ResumeWindow)*time.Millisecond)
	if f := c.opts.onDisconnect; f != nil && !closing {
		c.event(func() { f(reason) })
	}
	return moved
}

// reconnect returns the next link, nil when the client is to end.
func (c *Client) reconnect(old *link, moved bool) (*link, error) {
	old.mu.Lock()
	redirect := old.redirect
	old.mu.Unlock()
	if c.isClosing() {
		return nil, nil
	}
	if !moved && !sleep(c.life, jitter(c.opts.waitMin)) { // not all clients of a lost node at once
		return nil, nil
	}
	for round := 0; c.opts.maxReconnects < 0 || round < c.opts.maxReconnects; round++ {
		if c.isClosing() {
			return nil, nil
		}
		l, err := c.tryAll(c.life, candidates(redirect, c.given, old.welcome.Addresses, old.address))
		if err == nil {
			return l, nil
		}
		if !c.isClosing() {
			c.report(fmt.Errorf("reconnect: %w", err))
		}
		if !sleep(c.life, c.wait(round)) {
			return nil, nil
		}
	}
	return nil, fmt.Errorf("connection lost, and gave up after %d attempts to reconnect", c.opts.maxReconnects)
}

// finish ends the client: nothing is accepted any more, handlers are told.
func (c *Client) finish(err error) {
	c.mu.Lock()
	if err == nil {
		err = ErrClosed
	}
	c.err = err
	subs := c.subs
	c.subs = nil
	for s := range c.durables {
		subs[s.id] = s
	}
	clear(c.durables)
	c.mu.Unlock()
	c.stop()
	c.out.end(err)
	for _, s := range subs {
		s.end(err)
	}
	c.direct.close()
	c.requests.close()
	close(c.done)
}

// ID returns the client's id.
func (c *Client) ID() wire.ClientID { return c.opts.id }

// Server returns where the client is connected, or was last.
func (c *Client) Server() Server {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.server
}

// Done is closed when the client has ended: after Close, when its id connected
// elsewhere, or when it gave up reconnecting.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the client ended, nil while it has not: [ErrClosed] after
// Close, a [SessionReplacedError] when its id connected elsewhere.
func (c *Client) Err() error {
	select {
	case <-c.done:
	default:
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close waits up to five seconds until what handlers are at is answered and
// everything published is written and acknowledged, says goodbye, and waits until
// everything that the client started has ended, handlers included: don't call it
// from one. Who waits for an answer to something that no handler has begun with is
// told that the client leaves. Close returns an error when something was not
// acknowledged. Closing twice is harmless.
func (c *Client) Close() error {
	var err error
	c.closeOnce.Do(func() { err = c.closeGently() })
	c.stop()
	c.wg.Wait()
	return err
}

func (c *Client) closeGently() error {
	stop, cancel := timeout(closeTimeout)
	defer cancel()
	c.finishHandling(stop)
	c.leaveDurables(stop)
	var err error
	if n := c.out.unsettled(); n > 0 || c.out.needsProof() {
		if e := c.flush(stop); e != nil && c.Err() == nil {
			err = fmt.Errorf("close: of %d artifacts some were not acknowledged: %w", n, e)
		}
	}
	c.mu.Lock()
	c.closing = true // from here on nobody reconnects
	l, up := c.link, c.up
	c.mu.Unlock()
	if up {
		c.leave(l)
	}
	return err
}

// finishHandling lets the handlers of what is sent to this client finish; no other
// one starts. It gives up when stop is closed.
func (c *Client) finishHandling(stop <-chan struct{}) {
	close(c.leaving)
	c.awaitTaken(stop)
	c.direct.rest(stop)
	c.requests.rest(stop)
	for range cap(c.slots) {
		select {
		case c.slots <- struct{}{}:
		case <-stop:
			return
		}
	}
}

// awaitTaken waits until what is just handed to its handler is counted: who was handed
// it may be who leaves, and the node is to hear that it has come.
func (c *Client) awaitTaken(stop <-chan struct{}) {
	taken := make(chan struct{})
	c.wg.Go(func() {
		c.session.taking.Lock()
		defer c.session.taking.Unlock()
		close(taken)
	})
	select {
	case <-taken:
	case <-stop:
	}
}

func (c *Client) isLeaving() bool {
	select {
	case <-c.leaving:
		return true
	default:
		return false
	}
}

// leave says goodbye on a link and waits until it is closed.
func (c *Client) leave(l *link) {
	stop, cancel := timeout(goodbyeTimeout)
	defer cancel()
	c.out.sayGoodbye(c.session.goodbye())
	select {
	case <-l.done:
	case <-stop:
		l.close()
	}
}

// timeout returns a channel that is closed after d, unless cancel is called
// before. Close takes no context, so what it calls takes such a channel.
func timeout(d time.Duration) (stop <-chan struct{}, cancel func() bool) {
	c := make(chan struct{})
	t := time.AfterFunc(d, func() { close(c) })
	return c, t.Stop
}

func (c *Client) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing || c.life.Err() != nil
}

// event queues a callback; a full queue drops it.
func (c *Client) event(f func()) { _ = c.events.offer(f, 1) }

// report hands an error to OnError.
func (c *Client) report(err error) {
	if f := c.opts.onError; f != nil && err != nil {
		c.event(func() { f(err) })
	}
}

// resubscribeLocked returns the frames that restore all subscriptions, in the
// order in which they were made.
func (c *Client) resubscribeLocked() []*packet {
	subs := make([]*Subscription, 0, len(c.subs))
	for _, s := range c.subs {
		if s.id != 0 && !s.paused {
			subs = append(subs, s)
		}
	}
	slices.SortFunc(subs, func(a, b *Subscription) int {
		if a.number < b.number {
			return -1
		}
		return 1
	})
	frames := make([]*packet, 0, len(subs))
	for _, s := range subs {
		frames = append(frames, c.subscribePacketsLocked(s)...)
	}
	return frames
}
