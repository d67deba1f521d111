package hub

import (
	"encoding/binary"

	"github.com/switchboardhub/switchboard/wire"
)

// publisherSize is what a frame to a topic's leader has before its run: the
// publisher's id.
const publisherSize = 8

func overloaded(detail string) error {
	return &wire.Error{Code: wire.CodeOverloaded, Detail: detail}
}

func unavailable(topic, node string) error {
	return &wire.Error{Code: wire.CodeUnavailable, Detail: "topic " + topic + " is led by node " + node + ", which is not reachable now: publish again"}
}

func hopFlag(hopped bool) wire.Flags {
	if hopped {
		return wire.FlagHop
	}
	return 0
}

// publishStored brings a frame to the leader of its topic, which stores and
// delivers it. An error says that it won't be; else o hears what comes of it.
func (in *intake) publishStored(r *route, p *parcel, by Publisher, o origin) error {
	node, self := in.hub.keeper.Leader(r.topic)
	switch {
	case self:
		return in.store(p, 0, by, o)
	case node == "":
		return in.hub.keeper.Leaderless(r.topic)
	}
	in.hub.awaiting.add(node, &o)
	link := in.hub.link(node)
	var err error
	switch {
	case link == nil:
		err = unavailable(r.topic, node)
	case !queued(in.push(link, in.storeHead(p, by, o.ref), p.frame.Body(), p.slab)):
		in.hub.metrics.dropped(dropLinkFull, p.frame.Count())
		err = overloaded("the link to the topic's leader is full: publish again")
	}
	if err != nil && !in.hub.awaiting.forget(&o) {
		return nil
	}
	return err
}

// storeHead returns what a frame to a topic's leader has before the run.
func (in *intake) storeHead(p *parcel, by Publisher, ref uint32) []byte {
	flags := p.frame.Flags() & wire.FlagAck
	if by.Oldest {
		flags |= wire.FlagOldest
	}
	h := wire.Header{Kind: wire.KindStore, Flags: flags, Count: p.frame.Header().Count, Sequence: wire.Sequence(by.Number), Ref: ref}
	b := wire.AppendFrame(in.toLeader[:0], h, p.frame.Target(), p.frame.From(), nil)
	b = binary.BigEndian.AppendUint64(b, by.ID)
	in.toLeader = b
	return wire.Frame(b).Extended(publisherSize + len(p.frame.Body()))
}

// taken stores a frame that another node sent here as to its topic's leader.
func (in *intake) storeTaken(p *parcel, o origin) error {
	body := p.frame.Body()
	if len(body) < publisherSize {
		return wire.ErrMalformed
	}
	by := Publisher{ID: binary.BigEndian.Uint64(body), Number: uint64(p.frame.Sequence()), Oldest: p.frame.Flags()&wire.FlagOldest != 0}
	return in.store(p, publisherSize, by, o)
}

// store gives a frame to the keeper, of which this node is the leader.
func (in *intake) store(p *parcel, skip int, by Publisher, o origin) error {
	count := p.frame.Count()
	return in.hub.keeper.Append(p.frame, skip, by, func(st *Stage, first wire.Sequence, err error) {
		if err != nil {
			o.refuse(st.in, err)
			return
		}
		if o.stored != nil {
			o.stored(first)
		}
		o.ack(st.in, first, count, 0)
	})
}
