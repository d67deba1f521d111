package hub

import (
	"github.com/switchboardhub/switchboard/hubnode/outbox"
	"github.com/switchboardhub/switchboard/wire"
)

// parcel is a frame on its way to receivers: route and run as received, and
// what is stamped anew for each receiver.
type parcel struct {
	frame wire.Frame
	slab  *wire.Slab // holds frame; nil when nothing will ever change it
	seq   wire.Sequence
}

// header is a frame's fixed part, stamped for one receiver.
type header [wire.HeaderSize]byte

func (p *parcel) stamp(h *header, kind wire.Kind, flags wire.Flags, ref uint32) {
	copy(h[:], p.frame)
	wire.Frame(h[:]).Stamp(kind, flags, p.seq, ref)
}

// fanOut delivers a published frame to everyone in f and returns how many
// subscriptions and nodes took it.
func (in *intake) fanOut(r *route, f *fan, p *parcel) int {
	n := in.deliverLocal(r, f, p)
	for _, g := range f.groups {
		n += in.deliverGroup(g, p)
	}
	for _, link := range f.links {
		n += in.forward(link, p, 0)
	}
	return n
}

// deliverLocal delivers to the plain subscriptions of this hub's clients.
func (in *intake) deliverLocal(r *route, f *fan, p *parcel) int {
	n := 0
	for _, s := range f.plain {
		if p.seq != 0 {
			n += s.deliverStored(in, r.topic, p)
		} else {
			n += in.deliver(s, p)
		}
	}
	return n
}

// deliverGroup hands the frame to one member: a local one that has room, else
// another node's, else whichever local one is next.
func (in *intake) deliverGroup(g *group, p *parcel) int {
	turn := int(g.next.Add(1))
	for i := range g.locals {
		s := g.locals[(turn+i)%len(g.locals)]
		if s.client.out.Pending() < in.hub.settings.Load().PendingBytes/2 {
			return in.deliver(s, p)
		}
	}
	for i := range g.links {
		if n := in.forward(g.links[(turn+i)%len(g.links)], p, g.hash); n > 0 {
			return n
		}
	}
	if len(g.locals) > 0 {
		return in.deliver(g.locals[turn%len(g.locals)], p)
	}
	return 0
}

// forward queues the frame for another node.
func (in *intake) forward(link Link, p *parcel, ref uint32) int {
	var h header
	p.stamp(&h, wire.KindPublish, 0, ref)
	switch in.push(link, h[:], p.frame[wire.HeaderSize:], p.slab) {
	case outbox.Queued, outbox.QueuedCold:
		return 1
	default:
		in.hub.metrics.dropped(dropLinkFull, p.frame.Count())
		return 0
	}
}

// deliver queues a frame for one subscription, less what its filter holds back.
func (in *intake) deliver(s *subscription, p *parcel) int {
	if s.filter != nil {
		return in.deliverFiltered(s, p)
	}
	var h header
	p.stamp(&h, wire.KindPublish, 0, s.id)
	return s.client.push(in, h[:], p.frame[wire.HeaderSize:], p.slab, p.frame.Count())
}

// deliverFiltered delivers those artifacts that pass the filter. Each run of
// consecutive ones is a frame, so that sequences stay right.
func (in *intake) deliverFiltered(s *subscription, p *parcel) int {
	n := 0
	for _, part := range in.passing(s.filter, p) {
		var h header
		part.stamp(&h, wire.KindPublish, 0, s.id)
		n += s.client.push(in, h[:], part.frame[wire.HeaderSize:], part.slab, part.frame.Count())
	}
	return n
}

// passing splits a frame into the runs of consecutive artifacts that pass a
// filter; the whole frame is returned as it is when all do.
func (in *intake) passing(filter Filter, p *parcel) []*parcel {
	a := wire.Artifact{From: string(p.frame.From()), Topic: string(p.frame.Target()), Sequence: p.seq}
	var (
		parts []*parcel
		run   wire.Run
		first wire.Sequence
		count int
	)
	end := func() {
		if run.Count() > 0 {
			h := wire.Header{Kind: wire.KindPublish, Count: uint16(run.Count())} //nolint:gosec // a part of a frame's count
			parts = append(parts, &parcel{frame: wire.AppendFrame(nil, h, p.frame.Target(), p.frame.From(), run.Body()), seq: first})
			run.Reset()
		}
	}
	for r := wire.NewRunReader(p.frame.Body()); ; count++ {
		ok, err := r.Next(&a)
		if !ok || err != nil { // runs were checked when they came in
			break
		}
		if p.seq != 0 {
			a.Sequence = p.seq + wire.Sequence(count) //nolint:gosec // counts are never negative
		}
		switch {
		case !filter(&a):
			end()
		case run.Count() == 0:
			first = a.Sequence
			fallthrough
		default:
			_ = run.Append(&a, len(p.frame)) // it was within the limits before
		}
	}
	if run.Count() == p.frame.Count() {
		return []*parcel{p}
	}
	end()
	return parts
}

// push queues a frame of artifacts for the client, as far as the policy for
// slow clients lets it, and returns 1 when it did.
func (c *Client) push(in *intake, head, tail []byte, slab *wire.Slab, artifacts int) int {
	if c.untold.Load() > 0 {
		c.tellLost(in)
	}
	v := in.push(c.out, head, tail, slab)
	if v == outbox.Full {
		v = c.pushSlow(in, head, tail, slab, artifacts)
	}
	if v == outbox.Queued || v == outbox.QueuedCold {
		c.hub.metrics.sent.Add(uint64(artifacts)) //nolint:gosec // counts are never negative
		return 1
	}
	return 0
}

// pushSlow applies the policy for slow clients to a frame that does not fit.
func (c *Client) pushSlow(in *intake, head, tail []byte, slab *wire.Slab, artifacts int) outbox.Verdict {
	s := c.hub.settings.Load()
	v := outbox.Full
	lost := artifacts
	switch s.SlowClient {
	case DropOldest:
		lost = c.out.DropOldest(len(head) + len(tail))
		if v = in.push(c.out, head, tail, slab); v == outbox.Full {
			lost += artifacts
		}
	case DropNewest:
	case Disconnect:
		err := &SlowClientError{ID: c.id, Pending: c.out.Pending(), Limit: s.PendingBytes}
		c.hub.metrics.slow.Add(1)
		c.hub.spawn(func() { c.hub.remove(c, err) }) // it takes the hub's lock, and the caller may hold others
	}
	if lost > 0 {
		c.dropped.Add(uint64(lost)) //nolint:gosec // counts are never negative
		c.untold.Add(uint64(lost))  //nolint:gosec // counts are never negative
		c.hub.metrics.dropped(dropSlowClient, lost)
	}
	return v
}

// tellLost tells the client how many artifacts it was too slow for, once there
// is room to tell it.
func (c *Client) tellLost(in *intake) {
	n := c.untold.Swap(0)
	if n == 0 {
		return
	}
	frame := wire.AppendFrame(nil, wire.Header{Kind: wire.KindLost, Sequence: wire.Sequence(n)}, "", "", nil)
	if v := in.pushControl(c.out, frame); v == outbox.Full {
		c.untold.Add(n)
	}
}

// pushControl queues a control frame for the client; without an intake it is
// flushed at once. A client that asks and never reads the answers is removed.
func (c *Client) pushControl(in *intake, frame []byte) {
	var v outbox.Verdict
	if in != nil {
		v = in.pushControl(c.out, frame)
	} else if v = c.out.PushControl(frame); v == outbox.QueuedCold {
		c.out.Flush()
	}
	if v == outbox.Full {
		err := &SlowClientError{ID: c.id, Pending: c.out.Pending(), Limit: c.hub.settings.Load().PendingBytes}
		c.hub.spawn(func() { c.hub.remove(c, err) })
	}
}

func (c *Client) ack(in *intake, ref uint32, seq wire.Sequence, count int, flags wire.Flags) {
	var buf [wire.HeaderSize]byte
	h := wire.Header{Kind: wire.KindAck, Flags: flags, Count: uint16(count), Sequence: seq, Ref: ref} //nolint:gosec // a frame's count
	c.pushControl(in, wire.AppendFrame(buf[:0], h, "", "", nil))
}

// refuse answers a request with an error; the connection goes on.
func (c *Client) refuse(in *intake, ref uint32, err error) {
	fault := wire.FaultOf(err, wire.CodeInvalidRequest)
	c.pushControl(in, wire.AppendControl(nil, wire.Header{Kind: wire.KindError, Ref: ref}, "", fault))
}
