package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// Handler is called with each artifact of a subscription, one after another,
// and owns the artifact. ctx ends with the subscription. An error goes to
// OnError and changes nothing else.
type Handler func(ctx context.Context, a *wire.Artifact) error

const itemOverhead = 128 // bytes that a queued frame costs beyond its own

// Subscription is a client's interest in a topic or pattern.
type Subscription struct {
	client  *Client
	id      uint32 // changed by the connection's reader alone, with Client.mu locked
	paused  bool   // the node does not know of it: its handler has enough; guarded by Client.mu
	number  uint64 // the order in which they were made
	pattern string
	want    wire.Subscription
	handler Handler
	onGap   func(*HistoryGapError)
	durable *durable // nil: the hub keeps no position of it
	queue   inbox[delivery]

	ctx    context.Context //nolint:containedctx // ends with the subscription, not with a call
	cancel context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex   // guards the fields below
	answer   chan error   // the result of the Subscribe under way; nil when none waits
	known    bool         // it was acknowledged once
	made     time.Time    // when the node was last told of it, until it was acknowledged
	partial  bool         // the node that acknowledged it could not tell where it begins in all topics
	next     positions    // where it goes on
	resuming bool         // subscribed again, and not yet acknowledged
	early    []wire.Frame // copies of what came while resuming
	earlyN   int          // bytes of early
	err      error

	mixed bool // it has had live artifacts; of the connection's reader alone

	// Of the queue's goroutine alone: the route of the frame before, which
	// most often is the route of the next one too.
	topic string
	from  wire.ClientID
}

// delivery is what waits for a subscription's handler: a frame of artifacts, or
// a gap.
type delivery struct {
	frame wire.Frame // the subscription's own copy
	skip  int        // artifacts at its start that were delivered before
	gap   *HistoryGapError
}

func (c *Client) newSubscription(id uint32, pattern string, h Handler, opts []SubscribeOption) *Subscription {
	s := &Subscription{
		client: c, id: id, pattern: pattern, handler: h,
		done: make(chan struct{}),
		next: positions{in: make(map[string]*position)},
	}
	s.ctx, s.cancel = context.WithCancel(c.life)
	s.queue = inbox[delivery]{limit: c.opts.queueBytes, handle: s.handle, spawn: c.wg.Go, eased: s.goOn}
	for _, o := range opts {
		o(s)
	}
	return s
}

// Subscribe subscribes to a topic or pattern and returns once the node has
// confirmed it; artifacts may reach the handler before that. On topics with
// history it starts at what is published from now on unless an option says
// otherwise, and goes on where it was after each reconnect.
//
// It retries what is only temporarily impossible until ctx ends. A bad pattern
// or filter is an [Error].
func (c *Client) Subscribe(ctx context.Context, pattern string, h Handler, opts ...SubscribeOption) (*Subscription, error) {
	if pattern == "" || len(pattern) > wire.MaxTopic {
		return nil, &wire.Error{Code: wire.CodeInvalidTopic, Detail: fmt.Sprintf("topic pattern %.64q: want 1 to %d bytes", pattern, wire.MaxTopic)}
	}
	s := c.newSubscription(c.out.newRef(), pattern, h, opts)
	if s.durable != nil {
		if err := c.subscribeDurable(ctx, s); err != nil {
			s.end(err)
			return nil, fmt.Errorf("subscribe to %q: %w", pattern, err)
		}
		return s, nil
	}
	for round := 0; ; round++ {
		err := c.subscribeOnce(ctx, s)
		switch {
		case err == nil:
			return s, nil
		case temporary(err) && sleep(ctx, c.wait(round)):
			continue
		}
		c.drop(s)
		s.end(err)
		return nil, fmt.Errorf("subscribe to %q: %w", pattern, err)
	}
}

func (c *Client) subscribeOnce(ctx context.Context, s *Subscription) error {
	answer := make(chan error, 1)
	c.mu.Lock()
	if c.subs == nil {
		defer c.mu.Unlock()
		return c.err // Err says it once all has ended
	}
	s.mu.Lock()
	s.answer = answer
	s.mu.Unlock()
	c.out.expect(1)
	defer c.notAnswered(s, answer)
	c.subN++
	s.number = c.subN
	c.subs[s.id] = s
	if c.up { // else the next connection begins with it
		c.subscribeLocked(s)
	}
	c.mu.Unlock()
	select {
	case err := <-answer:
		if err != nil {
			c.remove(s)
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done:
		return c.Err()
	}
}

// notAnswered says that nobody waits any more for the answer to a Subscribe, unless it has
// come. (The reader says so itself when it has: what follows the answer is not held up by
// anybody who waits, and there may be much of it before Subscribe has heard.)
func (c *Client) notAnswered(s *Subscription, answer chan error) {
	s.mu.Lock()
	waits := s.answer == answer
	if waits {
		s.answer = nil
	}
	s.mu.Unlock()
	if waits {
		c.out.expect(-1)
	}
}

// remove takes a subscription out that the node knows nothing of.
func (c *Client) remove(s *Subscription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.subs[s.id] == s {
		delete(c.subs, s.id)
	}
}

// drop takes a subscription out and tells the node, when there is one. It
// returns the promise of the node's answer, or nil.
func (c *Client) drop(s *Subscription) *promise {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.subs[s.id] != s {
		return nil
	}
	delete(c.subs, s.id)
	if !c.up || s.paused || s.id == 0 {
		return nil
	}
	return c.out.control(wire.Header{Kind: wire.KindUnsubscribe, Ref: s.id}, "", nil, true)
}

// Pattern returns what is subscribed to.
func (s *Subscription) Pattern() string { return s.pattern }

// Unsubscribe ends the subscription: what waits for the handler is dropped, and
// it is not called again once Unsubscribe returned, but for a call that is
// running. It waits until the node has confirmed it; see [Durable] for what else such a
// subscription waits for. Twice is harmless.
func (s *Subscription) Unsubscribe(ctx context.Context) error {
	switch {
	case s.durable == nil:
	case taskOf(ctx).subscription == s:
		s.leaveSoon()
		return nil
	default:
		return s.leave(ctx.Done())
	}
	p := s.client.drop(s)
	s.end(nil)
	if p == nil {
		return nil
	}
	select {
	case <-p.done:
		if errors.Is(p.err, errLinkLost) || errors.Is(p.err, ErrClosed) {
			return nil // gone with the connection
		}
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("unsubscribe from %q: %w", s.pattern, ctx.Err())
	}
}

// Done is closed when the subscription has ended: after Unsubscribe, with the
// client, or when a node refused it after a reconnect, or can't be told of where it is in
// so many topics.
func (s *Subscription) Done() <-chan struct{} { return s.done }

// Err returns why the subscription ended; nil while it has not, and after
// Unsubscribe.
func (s *Subscription) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// end stops the handler's queue.
func (s *Subscription) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.done:
		return
	default:
	}
	s.err = err
	s.early = nil
	close(s.done)
	s.cancel()
	s.queue.close()
}

// tracks reports whether the subscription remembers where it is in topics with
// history: a group and the implicit subscription to "broadcast" don't replay.
func (s *Subscription) tracks() bool { return s.want.Group == "" && s.id != 0 }
