package hub

import (
	"slices"
	"strings"

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

// stamp returns the frame's fixed part for one receiver, valid until the next
// one is stamped.
func (in *intake) stamp(p *parcel, kind wire.Kind, flags wire.Flags, ref uint32) []byte {
	h := in.head[:]
	copy(h, p.frame)
	wire.Frame(h).Stamp(kind, flags, p.seq, ref)
	return h
}

func queued(v outbox.Verdict) bool { return v == outbox.Queued || v == outbox.QueuedCold }

// one is 1 for a frame that was queued, else 0.
func one(v outbox.Verdict) int {
	if queued(v) {
		return 1
	}
	return 0
}

// fanOut delivers a published frame to everyone in f and returns how many
// subscriptions and nodes took it.
func (in *intake) fanOut(r *route, f *fan, p *parcel) int {
	n := in.deliverLocal(r, f, p)
	for _, g := range f.groups {
		n += in.deliverGroup(g, p)
	}
	for _, link := range f.links {
		n += in.forward(link, p)
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
	if g.splits(p) {
		n := 0
		for _, single := range singles(p) {
			n = max(n, in.deliverGroup(g, single))
		}
		return n
	}
	turn := int(g.next.Add(1))
	if n := in.deliverRoomy(g, turn, p); n > 0 {
		return n
	}
	for i := range g.others {
		if in.offer(g, g.others[(turn+i)%len(g.others)], 0, p) {
			return 1
		}
	}
	if len(g.locals) > 0 {
		return in.deliver(g.locals[turn%len(g.locals)], p)
	}
	in.groupMissed(g, p)
	return 0
}

// deliverGroupHere hands the frame to a local member, as another node asks. What
// all of them refuse goes on to the next node with members.
func (in *intake) deliverGroupHere(g *group, p *parcel) {
	if g.splits(p) {
		hop := p.frame.Flags() & wire.FlagHop
		for _, single := range singles(p) {
			single.frame.Stamp(wire.KindPublish, hop, single.seq, g.hash)
			in.deliverGroupHere(g, single)
		}
		return
	}
	turn := int(g.next.Add(1))
	if in.deliverRoomy(g, turn, p) > 0 || len(g.locals) > 0 && in.deliver(g.locals[turn%len(g.locals)], p) > 0 {
		return
	}
	in.passOn(g, p)
}

// passOn offers the frame to the next node in the order of their names. After
// the last one comes the first, once: FlagHop says so. Every node is asked then,
// some of them twice, whichever was the first.
func (in *intake) passOn(g *group, p *parcel) {
	behind, _ := slices.BinarySearchFunc(g.others, in.hub.remote.Self(), func(n groupNode, self string) int {
		return strings.Compare(n.name, self)
	})
	around := p.frame.Flags()&wire.FlagHop != 0
	for _, n := range g.others[behind:] {
		if in.offer(g, n, hopFlag(around), p) {
			return
		}
	}
	if around {
		return
	}
	for _, n := range g.others[:behind] {
		if in.offer(g, n, wire.FlagHop, p) {
			return
		}
	}
	if len(g.others) > 0 {
		in.groupMissed(g, p)
	}
}

// offer queues the frame for a node with members of the group.
func (in *intake) offer(g *group, n groupNode, flags wire.Flags, p *parcel) bool {
	return queued(in.push(n.link, in.stamp(p, wire.KindPublish, flags, g.hash), p.frame[wire.HeaderSize:], p.slab))
}

func (in *intake) groupMissed(g *group, p *parcel) {
	links := make([]Link, len(g.others))
	for i, n := range g.others {
		links[i] = n.link
	}
	in.linksFull(p, links...)
}

// deliverRoomy hands the frame to the local member that is next. It passes over
// those that stall or are leaving, and those whose filter lets nothing pass.
func (in *intake) deliverRoomy(g *group, turn int, p *parcel) int {
	for i := range g.locals {
		s := g.locals[(turn+i)%len(g.locals)]
		if s.client.out.Pending() >= in.hub.settings.Load().PendingBytes/2 {
			continue
		}
		if n := in.deliver(s, p); n > 0 {
			return n
		}
	}
	return 0
}

// forward queues the frame for another node.
func (in *intake) forward(link Link, p *parcel) int {
	if queued(in.push(link, in.stamp(p, wire.KindPublish, 0, 0), p.frame[wire.HeaderSize:], p.slab)) {
		return 1
	}
	in.linksFull(p, link)
	return 0
}

// linksFull counts a published frame that does not reach other nodes. They ask
// for what has a sequence once they hear of the next one.
func (in *intake) linksFull(p *parcel, links ...Link) {
	in.hub.metrics.dropped(dropLinkFull, p.frame.Count())
	if p.seq == 0 {
		in.missed.link(links...)
	}
}

// deliver queues a frame for one subscription, less what its filter holds back.
func (in *intake) deliver(s *subscription, p *parcel) int {
	if s.filter != nil {
		return in.deliverFiltered(s, p)
	}
	return one(s.client.push(in, in.stamp(p, wire.KindPublish, 0, s.id), p))
}

// deliverFiltered delivers those artifacts that pass the filter. Each run of
// consecutive ones is a frame, so that sequences stay right.
func (in *intake) deliverFiltered(s *subscription, p *parcel) int {
	n := 0
	for _, part := range in.passing(s.filter, p) {
		n = max(n, one(s.client.push(in, in.stamp(part, wire.KindPublish, 0, s.id), part)))
	}
	return n
}

// push queues a frame of artifacts, stamped with head, for the client, as far
// as the policy for slow clients lets it.
func (c *Client) push(in *intake, head []byte, p *parcel) outbox.Verdict {
	if c.slow.untold.Load() > 0 && c.hasRoom(len(p.frame)) {
		c.tellLost(in)
	}
	v := in.push(c.out, head, p.frame[wire.HeaderSize:], p.slab)
	if v == outbox.Full {
		if v = c.pushSlow(in, head, p); v == outbox.Full {
			in.missed.client(c.id)
		}
	}
	if queued(v) {
		c.hub.metrics.sent.Add(uint64(p.frame.Count()))
	}
	return v
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
		c.cutOff()
	}
}

func (c *Client) ack(in *intake, ref uint32, seq wire.Sequence, count int, flags wire.Flags) {
	h := wire.Header{Kind: wire.KindAck, Flags: flags, Count: uint16(count), Sequence: seq, Ref: ref}
	c.answer(in, wire.AppendFrame(in.head[:0], h, "", "", nil))
}

// refuse answers a frame of artifacts with an error; the connection goes on.
func (c *Client) refuse(in *intake, ref uint32, err error) { c.answer(in, fault(ref, err)) }

// deny is refuse for what means nothing on another connection.
func (c *Client) deny(in *intake, ref uint32, err error) { c.pushControl(in, fault(ref, err)) }

func fault(ref uint32, err error) []byte {
	return wire.AppendControl(nil, wire.Header{Kind: wire.KindError, Ref: ref}, "", wire.FaultOf(err, wire.CodeInvalidRequest))
}

// answer queues the answer to a frame of artifacts, which the session keeps.
func (c *Client) answer(in *intake, frame []byte) {
	if c.session != nil {
		c.session.reply(in, frame)
		return
	}
	c.pushControl(in, frame)
}
