package hub

import (
	"fmt"
	"maps"

	"github.com/switchboardhub/switchboard/wire"
)

// beginningMax bounds the subscriptions of one client whose start is looked for at a time.
const beginningMax = 64

// subscribe handles a client's Subscribe. What it takes to find the start in
// topics with history may mean asking other nodes, so it does not hold up the
// connection, unless that asks for too much at a time.
func (c *Client) subscribe(in *intake, f wire.Frame) error {
	var want wire.Subscription
	if err := wire.DecodeControl(f, &want); err != nil {
		return err
	}
	if whole, err := c.gather(in, f, &want); !whole || err != nil {
		return err
	}
	s := newSubscription(c, string(f.Target()))
	s.id, s.group, s.again = f.Ref(), want.Group, want.Again
	missed, err := c.mayRead(s.pattern, &want)
	s.past = want.Group == "" && !isLive(want)
	if err == nil {
		err = c.prepare(s, want)
	}
	if err != nil {
		c.deny(in, s.id, err)
		return nil
	}
	begin := func(in *intake) {
		positions, complete := c.hub.begin(c.hub.life, s, want)
		c.pushControl(in, wire.AppendControl(nil, wire.Header{Kind: wire.KindAck, Ref: s.id}, "", wire.Subscribed{Positions: positions, Incomplete: !complete}))
		for name, from := range missed {
			if to := positions[name]; to > from {
				c.pushControl(in, wire.AppendGap(nil, s.id, name, from, to-1))
			}
		}
	}
	if s.group != "" || !c.hub.settings.Load().mayKeep(s.pattern) {
		begin(in)
		return nil
	}
	if c.beginning.Add(1) > beginningMax {
		c.beginning.Add(-1)
		begin(in)
		return nil
	}
	c.hub.spawn(func() {
		defer c.beginning.Add(-1)
		in := c.hub.newIntake()
		begin(in)
		in.flush()
	})
	return nil
}

// gathering is a Subscribe of which the last frame has not come yet.
type gathering struct {
	id        uint32 // 0: there is none
	positions map[string]wire.Sequence
	bytes     int  // of the frames
	named     int  // and of the positions in them
	refused   bool // it is too large: the client has been told, and what follows is dropped
}

// gather adds up the frames of a Subscribe. It reports whether want is the whole of it.
func (c *Client) gather(in *intake, f wire.Frame, want *wire.Subscription) (whole bool, err error) {
	g := &c.gathering
	switch {
	case g.id != 0 && g.id != f.Ref():
		return false, &wire.Error{Code: wire.CodeInvalidRequest, Detail: fmt.Sprintf("a Subscribe under %d came before the last frame of the one under %d", f.Ref(), g.id)}
	case g.id == 0 && !want.More:
		return true, nil
	case g.id == 0 && f.Ref() == 0:
		return false, errNumberZero()
	}
	g.id = f.Ref()
	g.bytes += len(f.Body())
	for topic := range want.Positions {
		g.named += len(topic) + wire.PositionOverhead
	}
	if max(g.bytes, g.named) > wire.MaxSubscribe && !g.refused {
		g.refused, g.positions = true, nil
		c.deny(in, g.id, &wire.Error{Code: wire.CodeInvalidRequest, Detail: fmt.Sprintf("what a subscription names has more than %d bytes", wire.MaxSubscribe)})
	}
	if !g.refused {
		if g.positions == nil {
			g.positions = make(map[string]wire.Sequence, len(want.Positions))
		}
		maps.Copy(g.positions, want.Positions)
	}
	if want.More {
		return false, nil
	}
	want.Positions, whole = g.positions, !g.refused
	*g = gathering{}
	return whole, nil
}

func errNumberZero() error {
	return &wire.Error{Code: wire.CodeInvalidRequest, Detail: "subscription 0 is the hub's own: number yours from 1"}
}

// mayRead checks whether the client may have what a subscription starts with. One that it
// had before, on a pattern whose history it may not read, goes on from now: want is changed
// to that, and where it was is returned.
func (c *Client) mayRead(pattern string, want *wire.Subscription) (missed map[string]wire.Sequence, err error) {
	p := c.permit.Load()
	switch {
	case isLive(*want) || p == nil || p.Allows(wire.ActionHistory, pattern):
		return nil, nil
	case !want.Again:
		return nil, c.denied(p, wire.ActionHistory, pattern)
	}
	missed = want.Positions
	want.Since, want.Sequence, want.Age, want.Positions, want.Others = wire.SinceNew, 0, 0, nil, false
	return missed, nil
}

// isLive reports whether a subscription is to what is published from now on.
func isLive(want wire.Subscription) bool {
	return want.Positions == nil && (want.Since == "" || want.Since == wire.SinceNew)
}

// prepare checks a subscription and makes it known.
func (c *Client) prepare(s *subscription, want wire.Subscription) error {
	if s.id == 0 {
		return errNumberZero()
	}
	if err := checkPattern(s.pattern); err != nil {
		return err
	}
	if want.Group != "" {
		if err := wire.CheckGroup(want.Group); err != nil {
			return err
		}
	}
	switch want.Since {
	case "", wire.SinceNew, wire.SinceAll, wire.SinceLast, wire.SinceSequence, wire.SinceAge:
	default:
		return &wire.Error{Code: wire.CodeInvalidRequest, Detail: fmt.Sprintf("since %.32q: use new, all, last, sequence or age", want.Since)}
	}
	if want.Filter != "" {
		filter, err := c.hub.compileFilter(want.Filter)
		if err != nil {
			return err
		}
		s.filter = filter
	}
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	if p := c.permit.Load(); p != nil { // locked: SetPermit finds the subscription, or it finds the new permit
		if right := p.endingRight(s, s.past); right != "" {
			return c.denied(p, right, s.pattern)
		}
	}
	return c.hub.attachLocked(s)
}

func (c *Client) unsubscribe(in *intake, f wire.Frame) {
	if c.gathering.id == f.Ref() {
		c.gathering = gathering{}
	}
	c.hub.mu.Lock()
	if s := c.subs[f.Ref()]; s != nil {
		c.hub.dropLocked(s)
	}
	c.hub.mu.Unlock()
	c.pushControl(in, wire.AppendFrame(nil, wire.Header{Kind: wire.KindAck, Ref: f.Ref()}, "", "", nil))
}
