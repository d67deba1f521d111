package hub

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// errLeft ends the reading of a client that said goodbye.
var errLeft = errors.New("the client said goodbye")

// read serves a client's connection until that ends, in a goroutine of its own.
func (c *Client) read() {
	in := c.hub.newIntake()
	err := c.serve(in)
	in.flush()
	c.reader.Close()
	if errors.Is(err, io.EOF) {
		err = errLeft
	}
	c.hub.remove(c, err)
}

func (c *Client) serve(in *intake) error {
	for {
		f, err := c.reader.Next()
		if err != nil {
			if errors.Is(err, wire.ErrMalformed) || errors.Is(err, wire.ErrFrameTooLarge) {
				c.hub.metrics.malformed.Add(1)
			}
			return err
		}
		if !c.heard.Load() {
			c.heard.Store(true)
		}
		if err := c.handle(in, f); err != nil {
			return err
		}
		if !c.reader.Buffered() {
			in.flush()
		}
	}
}

// handle serves one frame. An error ends the connection.
func (c *Client) handle(in *intake, f wire.Frame) error {
	switch f.Kind() {
	case wire.KindPublish:
		return c.publish(in, f)
	case wire.KindSend, wire.KindReply:
		return c.send(in, f)
	case wire.KindPing:
		c.pushControl(in, wire.AppendFrame(nil, wire.Header{Kind: wire.KindPong, Ref: f.Ref()}, "", "", nil))
	case wire.KindPong:
		c.ponged()
	case wire.KindSubscribe:
		return c.subscribe(in, f)
	case wire.KindUnsubscribe:
		c.unsubscribe(in, f)
	case wire.KindGoodbye:
		return errLeft
	default:
		c.hub.metrics.malformed.Add(1)
		return &wire.Error{Code: wire.CodeUnknownKind, Detail: fmt.Sprintf("frames of kind %d are not for clients to send", f.Kind())}
	}
	return nil
}

// check looks a frame of artifacts over. refused says that the frame is, and
// the connection goes on; err ends it.
func (c *Client) check(in *intake, f wire.Frame) (refused bool, err error) {
	if string(f.From()) != c.id {
		return true, &wire.Error{Code: wire.CodeInvalidRequest, Detail: fmt.Sprintf("an artifact says it is from %.64q, this is %q", f.From(), c.id)}
	}
	err = wire.CheckRun(f.Body(), f.Count(), c.hub.settings.Load().MaxArtifact)
	var large *ArtifactTooLargeError
	switch {
	case err == nil:
		c.hub.metrics.received.Add(uint64(f.Count())) //nolint:gosec // counts are never negative
		c.hub.metrics.bytesReceived.Add(uint64(len(f)))
		return false, nil
	case errors.As(err, &large):
		c.refuse(in, f.Ref(), err)
		return true, nil
	default:
		c.hub.metrics.malformed.Add(1)
		return true, err
	}
}

func (c *Client) publish(in *intake, f wire.Frame) error {
	if refused, err := c.check(in, f); refused || err != nil {
		return err
	}
	r, err := in.route(f.Target())
	if err == nil && r.topic[0] == '$' {
		err = &wire.Error{Code: wire.CodeInvalidTopic, Detail: fmt.Sprintf("topic %q: names that start with '$' are for the hub itself", r.topic)}
	}
	if err != nil {
		c.refuse(in, f.Ref(), err)
		return nil
	}
	fan := in.hub.resolve(r)
	p := &parcel{frame: f, slab: c.reader.Slab()}
	if fan.filter != nil && !in.allPass(fan.filter, p) {
		in.hub.metrics.dropped(dropFiltered, f.Count())
		c.refuse(in, f.Ref(), &wire.Error{Code: wire.CodeRefused, Detail: fmt.Sprintf("the filter of topic %q does not let this artifact pass", r.topic)})
		return nil
	}
	wanted := f.Flags()&wire.FlagAck != 0
	if fan.keeps {
		in.publishStored(r, fan, p, origin{client: c, ref: f.Ref(), wanted: wanted})
		return nil
	}
	in.fanOut(r, fan, p)
	if wanted {
		var flags wire.Flags
		if fan.filter == nil {
			flags = wire.FlagLive
		}
		c.ack(in, f.Ref(), 0, f.Count(), flags)
	}
	return nil
}

// allPass reports whether a filter lets all artifacts of a frame pass: they
// share an acknowledgement, so they share their fate.
func (in *intake) allPass(filter Filter, p *parcel) bool {
	parts := in.passing(filter, p)
	return len(parts) == 1 && parts[0] == p
}

// subscribe handles a client's Subscribe. What it takes to find the start in
// topics with history may mean asking other nodes, so it does not hold up the
// connection.
func (c *Client) subscribe(in *intake, f wire.Frame) error {
	var want wire.Subscription
	if err := wire.DecodeControl(f, &want); err != nil {
		return err
	}
	s := newSubscription(c, string(f.Target()))
	s.id, s.group = f.Ref(), want.Group
	if err := c.prepare(s, want); err != nil {
		c.refuse(in, s.id, err)
		return nil
	}
	begin := func(in *intake) {
		positions := c.hub.begin(c.hub.life, s, want)
		c.pushControl(in, wire.AppendControl(nil, wire.Header{Kind: wire.KindAck, Ref: s.id}, "", wire.Subscribed{Positions: positions}))
	}
	if s.group != "" || !c.hub.settings.Load().mayKeep(s.pattern) {
		begin(in)
		return nil
	}
	c.hub.spawn(func() {
		in := c.hub.newIntake()
		begin(in)
		in.flush()
	})
	return nil
}

// prepare checks a subscription and makes it known.
func (c *Client) prepare(s *subscription, want wire.Subscription) error {
	if s.id == 0 {
		return &wire.Error{Code: wire.CodeInvalidRequest, Detail: "subscription 0 is the hub's own: number yours from 1"}
	}
	if err := checkPattern(s.pattern); err != nil {
		return err
	}
	switch want.Since {
	case "", wire.SinceNew, wire.SinceAll, wire.SinceLast, wire.SinceSequence, wire.SinceAge:
	default:
		return &wire.Error{Code: wire.CodeInvalidRequest, Detail: fmt.Sprintf("since %.32q: use new, all, last, sequence or age", want.Since)}
	}
	if want.Filter != "" {
		if c.hub.compile == nil {
			return &wire.Error{Code: wire.CodeInvalidFilter, Detail: "this hub takes no filter expressions"}
		}
		filter, err := c.hub.compile(want.Filter)
		if err != nil {
			return &wire.Error{Code: wire.CodeInvalidFilter, Detail: err.Error()}
		}
		s.filter = filter
	}
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	return c.hub.attachLocked(s)
}

func (c *Client) unsubscribe(in *intake, f wire.Frame) {
	c.hub.mu.Lock()
	if s := c.subs[f.Ref()]; s != nil {
		c.hub.dropLocked(s)
	}
	c.hub.mu.Unlock()
	c.ack(in, f.Ref(), 0, 0, 0)
}

// ponged measures the round trip of the health check under way.
func (c *Client) ponged() {
	if sent := c.pinged.Swap(0); sent != 0 {
		rtt := time.Since(time.Unix(0, sent))
		c.rtt.Store(int64(rtt))
		c.hub.metrics.roundTrip(rtt)
	}
}
