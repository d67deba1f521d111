package hub

import (
	"bytes"

	"github.com/switchboardhub/switchboard/hubnode/outbox"
	"github.com/switchboardhub/switchboard/wire"
)

// send handles a client's Send or Reply: artifacts for one client, wherever it
// is, or a question to the hub itself.
func (c *Client) send(in *intake, f wire.Frame) error {
	if refused, err := c.check(in, f); refused || err != nil {
		return err
	}
	if bytes.HasPrefix(f.Target(), []byte(systemPrefix)) {
		c.askSystem(in, f)
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
		in.find(p, o)
		return
	}
	if c, ok := in.client(target); ok {
		in.hand(c, p, o)
		return
	}
	if !o.hopped {
		if node, _, ok := in.hub.remote.Locate(string(target)); ok {
			if link := in.hub.link(node); link != nil {
				in.pass(node, link, p, o)
				return
			}
		}
		if o.client != nil && len(*in.hub.peers.Load()) > 0 {
			in.find(p, o)
			return
		}
	}
	o.lost(in, p)
}

// hand queues a direct frame for a local client and tells the sender.
func (in *intake) hand(c *Client, p *parcel, o origin) {
	if err := in.deliverDirect(c, p, o.ref); err != nil {
		o.refuse(in, err)
		return
	}
	o.ack(in, 0, p.frame.Count(), 0)
}

// deliverDirect queues a direct frame for a local client.
func (in *intake) deliverDirect(c *Client, p *parcel, ref uint32) error {
	count := p.frame.Count()
	head := in.stamp(p, p.frame.Kind(), p.frame.Flags()&(wire.FlagRequest|wire.FlagFailed), ref)
	switch v := c.push(in, head, p); {
	case queued(v):
		in.hub.metrics.direct.Add(uint64(count))
		return nil
	case v == outbox.Closed: // it is just leaving
		if newer, ok := in.hub.Client(c.id); ok && newer != c {
			return in.deliverDirect(newer, p, ref)
		}
		in.hub.metrics.dropped(dropNoClient, count)
		return &NoClientError{ID: c.id}
	default:
		return &SlowClientError{ID: c.id, Pending: c.out.Pending(), Limit: in.hub.settings.Load().PendingBytes}
	}
}

// pass queues a direct frame for the node that holds its target, or refuses it.
// That node tells the sender what became of it.
func (in *intake) pass(node string, link Link, p *parcel, o origin) {
	in.hub.awaiting.add(node, &o, nil)
	head := in.stamp(p, p.frame.Kind(), p.frame.Flags()&^wire.FlagHop|hopFlag(o.client == nil), o.ref)
	if !queued(in.push(link, head, p.frame[wire.HeaderSize:], p.slab)) {
		in.hub.awaiting.forget(&o)
		in.hub.metrics.dropped(dropLinkFull, p.frame.Count())
		in.missed.link(link)
		o.refuse(in, &wire.Error{Code: wire.CodeOverloaded, Detail: "the link to the node that holds the client is full"})
	}
}
