package hub

import (
	"context"
	"log/slog"
	"maps"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

func logError(err error) slog.Attr { return slog.Any("error", err) }

// link returns the link to another node, nil when there is none.
func (h *Hub) link(node string) Link { return (*h.peers.Load())[node] }

// SetPeer makes the link to another node the one to use; nil takes it away.
// What the node wants to hear is kept. Clients that wait for its answers are
// told when it goes; subscriptions look for what they missed when it comes.
func (h *Hub) SetPeer(node string, link Link) {
	h.mu.Lock()
	peers := maps.Clone(*h.peers.Load())
	close(h.relinked)
	h.relinked = make(chan struct{})
	if link == nil {
		delete(peers, node)
		h.lost[node] = time.Now()
	} else {
		peers[node] = link
		delete(h.lost, node)
	}
	h.peers.Store(&peers)
	for _, s := range h.peerSubs[node] {
		h.changedLocked(s.pattern)
	}
	h.mu.Unlock()
	if link == nil {
		h.refuseAwaited(node)
		return
	}
	h.LeaderMoved(func(topic string) bool {
		leader, self := h.keeper.Leader(topic)
		return !self && leader == node
	})
}

// waitForLink returns once there is a link to a node that is a member of the
// cluster, or after a moment: it may be just coming back. It reports whether there
// is one.
func (h *Hub) waitForLink(ctx context.Context, node string) bool {
	ctx, cancel := context.WithTimeout(ctx, relinkTime)
	defer cancel()
	return h.waitForLinkUntil(ctx, node)
}

// waitForLinkUntil is waitForLink until ctx ends.
func (h *Hub) waitForLinkUntil(ctx context.Context, node string) bool {
	members, ok := h.remote.(interface{ IsMember(node string) bool })
	if !ok || !members.IsMember(node) {
		return h.link(node) != nil
	}
	for {
		h.mu.Lock()
		changed := h.relinked
		h.mu.Unlock()
		if h.link(node) != nil {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// PeerInterest says that another node has, or no longer has, subscriptions of
// that name, as InterestUp gave it. Repeating it is harmless.
func (h *Hub) PeerInterest(node, name string, on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	have := h.peerSubs[node][name]
	switch {
	case on && have == nil:
		pattern, group := splitInterest(name)
		s := &subscription{peer: node, pattern: pattern, group: group}
		if h.peerSubs[node] == nil {
			h.peerSubs[node] = make(map[string]*subscription)
		}
		h.peerSubs[node][name] = s
		h.index.Add(pattern, s)
		h.changedLocked(pattern)
	case !on && have != nil:
		delete(h.peerSubs[node], name)
		if len(h.peerSubs[node]) == 0 {
			delete(h.peerSubs, node)
		}
		h.index.Remove(have.pattern, have)
		h.changedLocked(have.pattern)
	}
}

// Inbound takes the frames of one link from another node. It is for the
// goroutine that reads the link.
type Inbound struct {
	in   *intake
	node string
}

// Inbound returns what takes the frames that arrive from another node.
func (h *Hub) Inbound(node string) *Inbound { return &Inbound{in: h.newIntake(), node: node} }

// Flush starts the writing of what the frames taken so far caused.
func (b *Inbound) Flush() { b.in.flush() }

// Take routes one frame from another node. The frame may be kept by retaining
// slab. Frames that a hub has no use for are ignored.
func (b *Inbound) Take(f wire.Frame, slab *wire.Slab) {
	p := b.in.take(f, slab)
	p.seq = f.Sequence()
	switch f.Kind() {
	case wire.KindPublish:
		b.published(p)
	case wire.KindStore:
		b.in.hub.metrics.forwarded.Add(uint64(f.Count()))
		o := b.origin(f)
		if err := b.in.storeTaken(p, o); err != nil {
			o.refuse(b.in, err)
		}
	case wire.KindSend, wire.KindReply:
		b.in.hub.metrics.forwarded.Add(uint64(f.Count()))
		b.in.direct(p, b.origin(f))
	case wire.KindAck, wire.KindError:
		b.answered(f)
	default:
	}
}

func (b *Inbound) origin(f wire.Frame) origin {
	return origin{
		link:   b.in.hub.link(b.node),
		id:     string(f.From()),
		hopped: f.Flags()&wire.FlagHop != 0,
		ref:    f.Ref(),
		wanted: f.Flags()&wire.FlagAck != 0,
	}
}

// published delivers what another node published: to everyone here, or to the
// one group that the frame names.
func (b *Inbound) published(p *parcel) {
	h := b.in.hub
	h.metrics.forwarded.Add(uint64(p.frame.Count()))
	r, err := b.in.route(p.frame.Target())
	if err != nil {
		return
	}
	fan := h.resolve(r)
	hash := p.frame.Ref()
	if hash == 0 {
		b.in.deliverLocal(r, fan, p)
		return
	}
	for _, g := range fan.groups {
		if g.hash == hash {
			b.in.deliverGroupHere(g, p)
		}
	}
}

// answered passes an Ack or Error on to the client that waits for it.
func (b *Inbound) answered(f wire.Frame) {
	defer b.in.hub.awaiting.done(f.Target(), f.Ref()) // last: who waits for it waits for the answer to go on
	if b.in.hub.finds.busy(f.Target()) {              // its session is just being taken over
		b.in.find(b.in.take(f, nil), origin{})
		return
	}
	b.in.answer(f)
}

// answer brings an Ack or Error to the client that it is for, or after it.
func (in *intake) answer(f wire.Frame) {
	switch {
	case in.answerHere(f):
	case f.Flags()&wire.FlagHop == 0:
		_, link := in.hub.locate(string(f.Target()))
		in.answerThere(link, f)
	default: // it was sent after its client, which has moved on meanwhile
		in.find(in.take(f, nil), origin{})
	}
}

// answerFound is answer for one that waited: its client is here, or on the node that has
// said so, or where the directory says, or nowhere.
func (in *intake) answerFound(f wire.Frame, said string) {
	if in.answerHere(f) {
		return
	}
	link := in.hub.link(said)
	if link == nil {
		_, link = in.hub.locate(string(f.Target()))
	}
	in.answerThere(link, f)
}

// answerHere reports false when the client is not here, and its session is not or was not
// just now.
func (in *intake) answerHere(f wire.Frame) bool {
	h := f.Header()
	h.Flags &^= wire.FlagHop
	answer := wire.AppendFrame(nil, h, "", "", f.Body())
	if c, ok := in.client(f.Target()); ok {
		c.answer(in, answer)
		return true
	}
	s := in.hub.awaySession(string(f.Target()))
	if s != nil {
		s.reply(in, answer)
	}
	return s != nil
}

// answerThere sends an answer on; without a link nobody is there to hear it.
func (in *intake) answerThere(link Link, f wire.Frame) {
	if link == nil {
		return
	}
	h := f.Header()
	h.Flags |= wire.FlagHop
	in.pushControl(link, wire.AppendFrame(nil, h, f.Target(), []byte(nil), f.Body()))
}
