package hub

import (
	"context"
	"fmt"

	"github.com/switchboardhub/switchboard/hubnode/topic"
	"github.com/switchboardhub/switchboard/wire"
)

// readPage answers a client's Read with a page of a topic's history. It may mean
// asking other nodes, so it does not hold up the connection.
func (c *Client) readPage(in *intake, f wire.Frame) error {
	var want wire.Read
	if err := wire.DecodeControl(f, &want); err != nil {
		return err
	}
	name, ref := string(f.Target()), f.Ref()
	if err := c.may(wire.ActionHistory, name); err != nil {
		c.deny(in, ref, err)
		return nil
	}
	if err := c.beginAsking(); err != nil {
		c.deny(in, ref, err)
		return nil
	}
	c.hub.spawn(func() {
		defer c.asking.Add(-1)
		in := c.hub.newIntake()
		defer in.flush()
		next, extent, err := c.sendPage(in, ref, name, want)
		if err != nil {
			c.deny(in, ref, err)
			return
		}
		c.pushControl(in, wire.AppendControl(nil, wire.Header{Kind: wire.KindAck, Sequence: next, Ref: ref}, "", extent))
	})
	return nil
}

// sendPage queues a page for the client and returns where the next one begins.
func (c *Client) sendPage(in *intake, ref uint32, name string, want wire.Read) (next wire.Sequence, extent wire.Page, err error) {
	h := c.hub
	extent = wire.Page{Start: want.From, End: want.End}
	if want.End == 0 {
		if extent, err = h.extent(h.life, name, want); err != nil {
			return 0, extent, err
		}
	}
	if next = extent.Start; next >= extent.End {
		return next, extent, nil
	}
	limit := h.settings.Load().PendingBytes
	select { // a client that does not read is not read for
	case <-c.out.Below(limit / 4):
	case <-c.gone:
		return 0, extent, c.Reason()
	case <-h.life.Done():
		return 0, extent, ErrStopped
	}
	page, err := h.read(h.life, name, next, min(pageBytes, max(limit/4, 1)))
	if err == nil {
		err = c.may(wire.ActionHistory, name) // by now: it may have waited
	}
	if err != nil {
		return 0, extent, err
	}
	extent.First = max(extent.First, page.first)
	from := next
	next = max(next, min(page.first, extent.End))
	full := false
	err = page.each(func(f wire.Frame) error {
		end := f.Sequence() + wire.Sequence(f.Count())
		if full || end <= next || f.Sequence() >= extent.End {
			return nil
		}
		p := &parcel{frame: f, seq: f.Sequence()}
		if !queued(in.push(c.out, in.stamp(p, wire.KindPublish, 0, ref), f[wire.HeaderSize:], nil)) {
			full = true
			return nil
		}
		h.metrics.sent.Add(uint64(f.Count()))
		next = end
		return nil
	})
	switch {
	case err != nil:
		return 0, extent, err
	case next > from:
		return min(next, extent.End), extent, nil
	case full:
		return 0, extent, overloaded("too much waits for this client: read it first")
	}
	// There was more, or a leader does not have it yet.
	end, err := h.askEnd(h.life, name)
	switch {
	case err != nil:
		return 0, extent, err
	case end > next:
		return 0, extent, unavailable(name, h.remote.Self())
	}
	extent.End = next // the history was lost, and began anew
	return next, extent, nil
}

// extent returns which part of a topic's history a client wants, with all that was
// acknowledged before the call.
func (h *Hub) extent(ctx context.Context, name string, want wire.Read) (wire.Page, error) {
	if err := topic.CheckName(name); err != nil {
		return wire.Page{}, err
	}
	since := wire.Subscription{Since: wire.SinceAll}
	if want.Age > 0 {
		since = wire.Subscription{Since: wire.SinceAge, Age: want.Age}
	}
	starts, complete := h.list(ctx, name, since)
	switch {
	case len(starts) == 1:
	case complete:
		return wire.Page{}, &wire.Error{Code: wire.CodeInvalidRequest, Detail: fmt.Sprintf("topic %q keeps no history", name)}
	default:
		node, self := h.keeper.Leader(name)
		if node == "" || self { // a leader that could not make certain that it is one
			return wire.Page{}, h.keeper.Leaderless(name)
		}
		return wire.Page{}, unavailable(name, node)
	}
	at := wire.Page{Start: starts[0].Start, End: starts[0].End}
	if want.Age == 0 {
		at.First = at.Start // the leader's word: a follower may hold what has gone there
	}
	switch {
	case want.Last > 0 && wire.Sequence(want.Last) < at.End:
		at.Start = max(at.Start, at.End-wire.Sequence(want.Last), want.From)
	case want.Age > 0 || want.Last > 0:
		at.Start = max(at.Start, want.From)
	case want.From > 0:
		at.Start = want.From // also when it is gone, which the client is to know
	}
	at.Start = min(at.Start, at.End)
	return at, nil
}
