package hub

import "github.com/switchboardhub/switchboard/wire"

// origin is who published a frame and hears what became of it: a client of
// this hub, or one behind another node. The zero value is a program that called
// Route.
type origin struct {
	client *Client
	link   Link   // nil as well when the other node is gone: nobody hears
	id     string // the client's id behind link
	hopped bool
	ref    uint32
	wanted bool                      // it asked for an acknowledgement
	failed *error                    // of a program that called Route: set to what it is refused for; may be nil
	stored func(first wire.Sequence) // hears where the first artifact was stored; may be nil
}

// sender returns the id of the client that hears what became of the frame.
func (o *origin) sender() wire.ClientID {
	if o.client != nil {
		return o.client.id
	}
	return o.id
}

func (o *origin) ack(in *intake, seq wire.Sequence, count int, flags wire.Flags) {
	switch {
	case !o.wanted:
	case o.client != nil:
		o.client.ack(in, o.ref, seq, count, flags)
	case o.link != nil:
		h := wire.Header{Kind: wire.KindAck, Flags: flags, Count: uint16(count), Sequence: seq, Ref: o.ref}
		in.pushControl(o.link, wire.AppendFrame(nil, h, o.id, "", nil))
	}
}

func (o *origin) refuse(in *intake, err error) {
	switch {
	case o.failed != nil:
		*o.failed = err
	case o.client != nil:
		o.client.refuse(in, o.ref, err)
	case o.link != nil:
		fault := wire.FaultOf(err, wire.CodeInvalidRequest)
		in.pushControl(o.link, wire.AppendControl(nil, wire.Header{Kind: wire.KindError, Ref: o.ref}, o.id, fault))
	}
}

// lost tells the sender that its target is nowhere. A reply to a client that
// has left is nobody's loss.
func (o *origin) lost(in *intake, p *parcel) {
	in.hub.metrics.dropped(dropNoClient, p.frame.Count())
	if p.frame.Kind() == wire.KindSend {
		o.refuse(in, &NoClientError{ID: string(p.frame.Target())})
	}
}
