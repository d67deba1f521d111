package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// RequestHandler is called with what is sent to this client. What it returns
// answers a request: nil is an empty answer, an error reaches the requester as
// text. For an artifact that was plainly sent the returned one is dropped, and
// an error goes to OnError.
//
// Plain ones are handled one after another in the order of their arrival,
// requests side by side, up to [WithConcurrentRequests]; ctx of a request ends
// when nobody waits for the answer any more.
type RequestHandler func(ctx context.Context, a *wire.Artifact) (*wire.Artifact, error)

type requestKey struct{}

// IsRequest reports whether what a handler is called with, whose ctx this is, waits
// for an answer. Of what was plainly sent, with a receipt or without, only an error
// is of interest.
func IsRequest(ctx context.Context) bool {
	is, _ := ctx.Value(requestKey{}).(bool)
	return is
}

// systemPrefix begins the names of what the hub itself answers.
const systemPrefix = "$hub."

// failureMax bounds the text that tells a requester how the handler failed.
const failureMax = 1 << 10

// HandlerError says that the other client got a request and its handler
// failed, or that it has none.
type HandlerError struct {
	Client wire.ClientID
	Detail string
}

func (e *HandlerError) Error() string { return fmt.Sprintf("client %q: %s", e.Client, e.Detail) }

// Handle sets the handler of what is sent to this client; nil removes it. Use
// [WithHandler] when something may come right after the connect.
func (c *Client) Handle(h RequestHandler) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handler = h
}

// SendOption qualifies one Send.
type SendOption func(*sendOptions)

type sendOptions struct{ receipt bool }

// WithReceipt makes Send wait until the other client's handler is done with the
// artifact. What the handler returns is dropped, but for an error, which Send
// returns as a [HandlerError].
func WithReceipt() SendOption { return func(o *sendOptions) { o.receipt = true } }

// Send sends an artifact to a client wherever in the hub it is connected, and
// waits until that client's node has queued it for the client: for its connection
// or, while the client is away and may come back, for its session. With
// [WithReceipt] it waits until the client has handled it.
//
// It returns a [NoClientError] when nobody has that id or, with a receipt, when the
// client did not come back in time; and a [ConnectionLostError] when this client's
// connection was lost before the answer came, and its session with it. Once ctx
// ends it returns ctx's error; the artifact may arrive all the same. The artifact may
// be used again afterwards.
func (c *Client) Send(ctx context.Context, target wire.ClientID, a *wire.Artifact, opts ...SendOption) error {
	var o sendOptions
	for _, opt := range opts {
		opt(&o)
	}
	if o.receipt {
		if err := wire.CheckClientID(target); err != nil {
			return err
		}
		_, err := c.ask(ctx, target, a, wire.FlagRequest|wire.FlagAck, "send")
		return err
	}
	ack, err := c.send(ctx, target, a, false)
	if err != nil {
		return err
	}
	if _, err := c.await(ctx, ack.promise, ack.index); err != nil {
		return fmt.Errorf("send to %q: %w", target, err)
	}
	return nil
}

// SendAsync sends an artifact without waiting for the answer. It blocks while
// as many artifacts are in flight as [WithInFlight] allows.
func (c *Client) SendAsync(ctx context.Context, target wire.ClientID, a *wire.Artifact) (Ack, error) {
	return c.send(ctx, target, a, true)
}

func (c *Client) send(ctx context.Context, target wire.ClientID, a *wire.Artifact, async bool) (Ack, error) {
	if err := wire.CheckClientID(target); err != nil {
		return Ack{}, err
	}
	own := *a
	p, i, err := c.out.add(ctx, wire.KindSend, target, &own, async)
	if err != nil {
		return Ack{}, fmt.Errorf("send to %q: %w", target, err)
	}
	return Ack{p, i}, nil
}

// Request sends an artifact to a client and returns that client's answer. The
// other side is told how long there is until ctx's deadline, or
// [DefaultRequestTimeout] when it has none. Errors are those of Send, and a
// [HandlerError].
//
// The hub itself answers "$hub.clients", "$hub.topics", "$hub.nodes",
// "$hub.presence" and "$hub.status" with JSON; [Client.Presence] reads the last
// but one. The list of clients comes in pages: see wire.PageRequest.
func (c *Client) Request(ctx context.Context, target wire.ClientID, a *wire.Artifact) (*wire.Artifact, error) {
	if !strings.HasPrefix(target, systemPrefix) || len(target) > wire.MaxClientID {
		if err := wire.CheckClientID(target); err != nil {
			return nil, err
		}
	}
	return c.ask(ctx, target, a, wire.FlagRequest, "request")
}

// ask sends an artifact that the other side answers. With FlagAck that handles it
// in order with plain ones, else beside others.
func (c *Client) ask(ctx context.Context, target string, a *wire.Artifact, flags wire.Flags, what string) (*wire.Artifact, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(DefaultRequestTimeout)
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	own := *a
	p, err := c.out.request(ctx, flags, target, &own, time.Until(deadline))
	if err != nil {
		return nil, fmt.Errorf("%s to %q: %w", what, target, err)
	}
	if _, err := c.await(ctx, p, 0); err != nil {
		if _, failed := errors.AsType[*HandlerError](err); failed {
			return nil, err
		}
		return nil, fmt.Errorf("%s to %q: %w", what, target, err)
	}
	return p.reply, nil
}

// answered hands an answer to the request that waits for it.
func (c *Client) answered(f wire.Frame) {
	a := &wire.Artifact{From: string(f.From()), To: string(f.Target())}
	body := append([]byte(nil), f.Body()...) // the requester owns the payload
	r := wire.NewRunReader(body)
	ok, err := r.Next(a)
	switch {
	case !ok || err != nil:
		err = fmt.Errorf("the answer can't be read: %w", orMalformed(err))
	case f.Flags()&wire.FlagFailed != 0:
		err = &HandlerError{Client: a.From, Detail: string(a.Payload)}
	}
	c.out.settle(f.Ref(), 0, 0, a, err)
}

// incoming is what was sent to this client: a frame of artifacts, or a request.
type incoming struct {
	frame    wire.Frame // an own copy
	deadline time.Time  // of a request; zero: none
}

// receive queues what was sent to this client.
func (c *Client) receive(l *link, f wire.Frame) bool {
	in := incoming{frame: append(wire.Frame(nil), f...)}
	if f.Flags()&wire.FlagRequest == 0 || f.Flags()&wire.FlagAck != 0 {
		return c.queue(l, &c.direct, in)
	}
	if millis := f.Sequence(); millis > 0 {
		const longest = 24 * time.Hour
		in.deadline = time.Now().Add(time.Duration(min(millis, wire.Sequence(longest/time.Millisecond))) * time.Millisecond)
	}
	return c.queue(l, &c.requests, in)
}

// queue queues what was sent to this client. It reports false when the connection ended
// before there was room. What the session keeps always finds some: its node keeps only
// so much, and hears of no more room until there is ([Client.tellReceived]).
func (c *Client) queue(l *link, q *inbox[incoming], in incoming) bool {
	size := len(in.frame) + itemOverhead
	v := put(c, l, q, in, size)
	switch {
	case v != refused:
	case in.frame.Flags()&wire.FlagKept != 0:
		q.press(in, size, anyway)
	default:
		q.whenEased(in.frame.Count())
	}
	return v != ended
}

func (c *Client) currentHandler() RequestHandler {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.handler
}

var (
	errNoHandler = errors.New("no handler is set for what is sent to this client")
	errLeaves    = errors.New("the client leaves, and has not begun with it")
)

// handleDirect handles the artifacts of one frame, in order.
func (c *Client) handleDirect(in incoming) {
	f := in.frame
	from, to := string(f.From()), string(f.Target())
	artifacts := make([]wire.Artifact, f.Count())
	r := wire.NewRunReader(f.Body())
	for i := range artifacts {
		a := &artifacts[i]
		ok, err := r.Next(a)
		if err != nil || !ok {
			c.report(fmt.Errorf("artifacts from %q can't be read: %w", from, orMalformed(err)))
			return
		}
		if c.life.Err() != nil {
			return
		}
		a.From, a.To = from, to
		a.Payload = slices.Clip(a.Payload) // its neighbour's bytes follow
		var reply *wire.Artifact
		if err = errLeaves; !c.isLeaving() {
			reply, err = c.callHandler(c.life, a)
		}
		switch {
		case f.Flags()&wire.FlagRequest != 0: // a receipt is wanted
			c.respond(c.life, f, from, reply, err)
		case errors.Is(err, errLeaves):
		case errors.Is(err, errNoHandler):
			c.report(fmt.Errorf("artifact from %q dropped: %w", from, err))
		case err != nil:
			c.report(fmt.Errorf("handler of what %q sent: %w", from, err))
		}
	}
}

func (c *Client) callHandler(ctx context.Context, a *wire.Artifact) (*wire.Artifact, error) {
	h := c.currentHandler()
	if h == nil {
		return nil, errNoHandler
	}
	return h(ctx, a)
}

// startRequest handles a request on a goroutine of its own, once fewer than the
// bound are running.
func (c *Client) startRequest(in incoming) {
	if err := c.takeSlot(); err != nil {
		c.respond(c.life, in.frame, string(in.frame.From()), nil, err)
		return
	}
	c.wg.Go(func() {
		defer func() { <-c.slots }()
		ctx, cancel := c.life, context.CancelFunc(func() {})
		if !in.deadline.IsZero() {
			ctx, cancel = context.WithDeadline(ctx, in.deadline)
		}
		defer cancel()
		if ctx.Err() != nil {
			return // nobody waits for it any more
		}
		c.answer(ctx, in.frame)
	})
}

// takeSlot waits until one request less than the bound is running.
func (c *Client) takeSlot() error {
	if c.isLeaving() {
		return errLeaves
	}
	select {
	case c.slots <- struct{}{}:
		return nil
	case <-c.leaving:
		return errLeaves
	case <-c.life.Done():
		return c.life.Err()
	}
}

// answer calls the handler and sends its answer.
func (c *Client) answer(ctx context.Context, f wire.Frame) {
	a := &wire.Artifact{From: string(f.From()), To: string(f.Target())}
	r := wire.NewRunReader(f.Body())
	ok, err := r.Next(a)
	if err != nil || !ok {
		c.report(fmt.Errorf("request from %q can't be read: %w", a.From, orMalformed(err)))
		return
	}
	reply, err := c.callHandler(context.WithValue(ctx, requestKey{}, true), a)
	c.respond(ctx, f, a.From, reply, err)
}

// respond sends what a handler returned.
func (c *Client) respond(ctx context.Context, f wire.Frame, to string, reply *wire.Artifact, err error) {
	if ctx.Err() != nil {
		return // nobody waits any more, least of all for the news that time is up
	}
	if err == nil {
		var own wire.Artifact
		if reply != nil {
			own = *reply
		}
		if err = c.out.reply(ctx, to, f.Ref(), 0, &own); err == nil || ctx.Err() != nil {
			return
		}
		err = fmt.Errorf("answer: %w", err)
	}
	text := err.Error()
	failure := &wire.Artifact{ContentType: "text/plain", Payload: []byte(text[:min(len(text), failureMax)])}
	if err := c.out.reply(ctx, to, f.Ref(), wire.FlagFailed, failure); err != nil && ctx.Err() == nil {
		c.report(fmt.Errorf("answer to %q: %w", to, err))
	}
}
