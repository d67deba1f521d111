package hub

import (
	"bytes"

	"github.com/switchboardhub/switchboard/hubnode/outbox"
	"github.com/switchboardhub/switchboard/wire"
)

// send handles a client's Send or Reply: artifacts for one client, wherever it
// is, or a question to the hub itself.
func (c *Client) send(in *intake, f wire.Frame) error {
	large, err := c.check(f)
	if err != nil {
		return err
	}
	if large != nil {
		c.refuse(in, f.Ref(), large)
		return nil
	}
	c.received(in, f)
	if bytes.HasPrefix(f.Target(), []byte(systemPrefix)) {
		c.askSystem(in, f)
		return nil
	}
	if err := c.maySend(f); err != nil {
		c.refuse(in, f.Ref(), err)
		return nil
	}
	p := in.take(f, c.reader.Slab())
	p.seq = f.Sequence()
	in.direct(p, origin{client: c, ref: f.Ref(), wanted: f.Flags()&wire.FlagAck != 0})
	return nil
}

// direct brings a frame to the client that it is for: here, on the node that
// the directory names, or on the one that says it has it.
func (in *intake) direct(p *parcel, o origin) {
	target := p.frame.Target()
	if in.hub.finds.busy(target) { // keep the order behind those that wait
		if !in.passAfter(p, o) {
			in.find(p, o)
		}
		return
	}
	if in.handHere(target, p, o) {
		return
	}
	if !o.hopped {
		if in.passThere(p, o) {
			return
		}
		if (o.client != nil || in.hub.finds.fetches(string(p.frame.From()))) && len(*in.hub.peers.Load()) > 0 { // fetches: it comes before its sender
			in.find(p, o)
			return
		}
	}
	o.lost(in, p)
}

// passThere queues a direct frame for the node that the directory names, and reports
// false when it names none. What is held back from now on does not pass.
func (in *intake) passThere(p *parcel, o origin) bool {
	h, target := in.hub, p.frame.Target()
	h.sending.RLock()
	defer h.sending.RUnlock()
	if h.finds.busy(target) {
		in.find(p, o)
		return true
	}
	node, link := h.locate(string(target))
	if link != nil {
		in.pass(node, link, p, o)
	}
	return link != nil
}

// passAfter queues what another node has sent for a client whose session this one is
// just fetching for where the client still is: whoever sent it waits until it has arrived
// there. What that node passes on comes behind the session, and waits for it. So does what
// comes with a session of its sender.
func (in *intake) passAfter(p *parcel, o origin) bool {
	h, target := in.hub, string(p.frame.Target())
	if o.link == nil || !h.finds.fetches(target) || h.finds.fetches(string(p.frame.From())) {
		return false
	}
	node, link := h.locate(target)
	if s := h.awaySession(target); s != nil && s.movedTo() != "" { // and nobody has said yet that it arrived there
		node = s.movedTo()
		link = h.link(node)
	}
	if link == nil || link == o.link {
		return false
	}
	in.pass(node, link, p, o)
	return true
}

// locate returns the node that the directory names for a client, and the link to
// it; nil when there is none.
func (h *Hub) locate(id wire.ClientID) (string, Link) {
	node, _, ok := h.remote.Locate(id)
	if !ok {
		return "", nil
	}
	return node, h.link(node)
}

// handHere queues a direct frame for a client that is here, or that was and may
// come back, and reports false when there is none.
func (in *intake) handHere(target []byte, p *parcel, o origin) bool {
	for {
		flips := in.hub.flips.Load()
		if c, ok := in.client(target); ok && in.hand(c, p, o) {
			return true
		}
		if in.hub.awayN.Load() > 0 {
			if s := in.hub.awaySession(string(target)); s != nil && in.handAway(s, p, o) {
				return true
			}
		}
		if in.hub.flips.Load() == flips { // else it may have changed sides between the two looks
			return false
		}
	}
}

// hand queues a direct frame for a local client and tells the sender. It reports
// false when the client is leaving.
func (in *intake) hand(c *Client, p *parcel, o origin) bool {
	head := in.stamp(p, p.frame.Kind(), forReceiver(p.frame.Flags()), o.ref)
	if c.permit.Load() != nil { // first: it may answer before this goes on
		c.asked.note(p.frame, o.ref)
	}
	if c.session != nil {
		return in.handed(c.id, in.keep(c.session, c, head, p), p, o)
	}
	return in.handed(c.id, c.push(in, head, p), p, o)
}

// handAway is hand for a client that is away. What is for a session that is on
// another node now is passed on.
func (in *intake) handAway(s *session, p *parcel, o origin) bool {
	if node := s.movedTo(); node != "" {
		return in.follow(node, p, o)
	}
	head := in.stamp(p, p.frame.Kind(), forReceiver(p.frame.Flags()), o.ref)
	s.asked.note(p.frame, o.ref) // whether it has a permit is known when it is back
	return in.handed(s.id, in.keep(s, nil, head, p), p, o)
}

// follow queues a direct frame for the node that a session went to, and reports false
// when there is no link to it. What is held back from now on does not pass.
func (in *intake) follow(node string, p *parcel, o origin) bool {
	h := in.hub
	h.sending.RLock()
	defer h.sending.RUnlock()
	link := h.link(node)
	switch {
	case link == nil:
		return false
	case !in.resends && o.failed == nil && h.finds.busy(p.frame.Target()):
		in.find(p, o)
	default:
		in.pass(node, link, p, o)
	}
	return true
}

// handed tells the sender what became of a direct frame.
func (in *intake) handed(id wire.ClientID, v outbox.Verdict, p *parcel, o origin) bool {
	switch {
	case queued(v):
		in.hub.metrics.direct.Add(uint64(p.frame.Count()))
		o.ack(in, 0, p.frame.Count(), 0)
	case v == outbox.Closed:
		return false
	default:
		o.refuse(in, in.hub.tooSlow(id))
	}
	return true
}

// tooSlow is why nothing more is taken for a client.
func (h *Hub) tooSlow(id wire.ClientID) error {
	err := &SlowClientError{ID: id, Limit: h.settings.Load().PendingBytes}
	if c, ok := h.Client(id); ok {
		err.Pending = c.out.Pending()
	} else if s := h.awaySession(id); s != nil {
		err.Pending, err.Limit = s.pending(), h.settings.Load().keptBytes()
	}
	return err
}

// forReceiver returns those of a direct frame's flags that its receiver sees.
func forReceiver(flags wire.Flags) wire.Flags {
	if flags&wire.FlagRequest != 0 {
		return flags & (wire.FlagRequest | wire.FlagAck)
	}
	return flags & wire.FlagFailed
}

// pass queues a direct frame for the node that holds its target, or refuses it.
// That node tells the sender what became of it.
func (in *intake) pass(node string, link Link, p *parcel, o origin) {
	in.passAs(hopFlag(o.client == nil), node, link, p, o)
}

// passAs is pass with a hop flag of its own.
func (in *intake) passAs(hop wire.Flags, node string, link Link, p *parcel, o origin) {
	in.hub.awaiting.add(node, &o)
	head := in.stamp(p, p.frame.Kind(), p.frame.Flags()&^wire.FlagHop|hop, o.ref)
	var err error
	switch {
	case in.hub.link(node) != link:
		err = &wire.Error{Code: wire.CodeUnavailable, Detail: "the link to node " + node + ", which holds the client, was lost"}
	case !queued(in.push(link, head, p.frame[wire.HeaderSize:], p.slab)):
		err = &wire.Error{Code: wire.CodeOverloaded, Detail: "the link to the node that holds the client is full"}
	}
	if err != nil {
		in.hub.metrics.dropped(dropLinkFull, p.frame.Count())
		in.missed.link(link)
		if in.hub.awaiting.forget(&o) {
			o.refuse(in, err)
		}
		return
	}
	if o.client == nil {
		in.hub.onward.note(node) // once it is queued: what is noted is fenced by whoever comes now
	}
}
