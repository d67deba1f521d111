package hub

import (
	"errors"
	"fmt"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// read serves a client's connection until that ends, in a goroutine of its own.
func (c *Client) read() {
	in := c.hub.newIntake()
	err := c.serve(in)
	in.flush()
	c.reader.Close()
	close(c.readEnd)
	var coded *wire.Error
	switch {
	case errors.Is(err, ErrLeft):
	case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrFrameTooLarge), errors.As(err, &coded):
		c.hub.metrics.malformed.Add(1)
	default:
		err = &ConnectionError{Op: "read", Err: err}
	}
	c.hub.remove(c, err)
}

func (c *Client) serve(in *intake) error {
	for {
		f, err := c.reader.Next()
		if err != nil {
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
		c.took()
		return c.publish(in, f)
	case wire.KindSend, wire.KindReply:
		c.took()
		return c.send(in, f)
	case wire.KindReceived:
		if c.session == nil || !c.session.received(uint64(f.Sequence())) {
			return &wire.Error{Code: wire.CodeInvalidRequest, Detail: fmt.Sprintf("%d frames can't have been received of this session", f.Sequence())}
		}
	case wire.KindPing:
		c.pushControl(in, wire.AppendFrame(nil, wire.Header{Kind: wire.KindPong, Ref: f.Ref()}, "", "", nil))
	case wire.KindPong:
		c.ponged()
	case wire.KindSubscribe:
		return c.subscribe(in, f)
	case wire.KindUnsubscribe:
		c.unsubscribe(in, f)
	case wire.KindRead:
		return c.readPage(in, f)
	case wire.KindFetch:
		return c.fetch(in, f)
	case wire.KindRestore:
		return c.restore(in, f)
	case wire.KindRenew:
		return c.renew(in, f)
	case wire.KindGoodbye:
		return ErrLeft
	default:
		return &wire.Error{Code: wire.CodeUnknownKind, Detail: fmt.Sprintf("frames of kind %d are not for clients to send", f.Kind())}
	}
	return nil
}

// took counts a frame that the client need not send again.
func (c *Client) took() {
	if c.session != nil {
		c.session.taken++
	}
}

// check looks a frame of artifacts over. large says that some are over the limit, and
// the connection goes on; err ends it.
func (c *Client) check(f wire.Frame) (large *ArtifactTooLargeError, err error) {
	if string(f.From()) != c.id {
		return nil, &wire.Error{Code: wire.CodeInvalidRequest, Detail: fmt.Sprintf("an artifact says it is from %.64q, this is %q", f.From(), c.id)}
	}
	err = wire.CheckRun(f.Body(), f.Count(), c.hub.settings.Load().MaxArtifact)
	if large, ok := errors.AsType[*ArtifactTooLargeError](err); ok {
		return large, nil
	}
	return nil, err
}

// received counts a frame of artifacts against the client's quota.
func (c *Client) received(in *intake, f wire.Frame) {
	c.pace(in, f)
	c.hub.metrics.received.Add(uint64(f.Count()))
	c.hub.metrics.bytesReceived.Add(uint64(len(f)))
}

func (c *Client) publish(in *intake, f wire.Frame) error {
	large, err := c.check(f)
	if err != nil {
		return err
	}
	each := f.Flags()&wire.FlagEach != 0 && f.Count() > 1
	if large != nil && !each {
		c.refuse(in, f.Ref(), large)
		return nil
	}
	c.received(in, f)
	r, err := in.route(f.Target())
	if err == nil && isSystem(r.topic) {
		err = &wire.Error{Code: wire.CodeInvalidTopic, Detail: fmt.Sprintf("topic %q: names that start with '$' are for the hub itself", r.topic)}
	}
	if err == nil {
		err = c.mayPublish(r)
	}
	if err != nil {
		c.refuse(in, f.Ref(), err)
		return nil
	}
	fan := in.hub.resolve(r)
	if !fan.keeps && f.Flags()&wire.FlagAgain != 0 {
		c.refuse(in, f.Ref(), unknownFate(r.topic))
		return nil
	}
	p := in.take(f, c.reader.Slab())
	switch passes := fan.filter == nil || allPass(fan.filter, f); {
	case passes && large == nil:
	case each:
		if p = c.sift(in, f, fan.filter); p == nil {
			return nil
		}
	default:
		in.hub.metrics.dropped(dropFiltered, f.Count())
		c.refuse(in, f.Ref(), refused(r.topic))
		return nil
	}
	wanted := f.Flags()&wire.FlagAck != 0
	if fan.keeps {
		by := Publisher{ID: c.publisher, Number: uint64(f.Sequence()), Oldest: f.Flags()&wire.FlagOldest != 0}
		if by.Number == 0 {
			by = Publisher{}
		}
		if err := in.publishStored(r, p, by, origin{client: c, ref: f.Ref(), wanted: wanted}); err != nil {
			c.refuse(in, f.Ref(), err)
		}
		return nil
	}
	in.fanOut(r, fan, p)
	if wanted {
		var flags wire.Flags
		if fan.filter == nil {
			flags = wire.FlagLive
		}
		c.ack(in, f.Ref(), 0, p.frame.Count(), flags)
	}
	return nil
}

// ponged measures the round trip of the health check under way.
func (c *Client) ponged() {
	if sent := c.pinged.Swap(0); sent != 0 {
		rtt := time.Since(time.Unix(0, sent))
		c.rtt.Store(int64(rtt))
		c.hub.metrics.roundTrip(rtt)
	}
}
