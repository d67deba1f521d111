package client

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

const (
	// pruneFrom is how many bytes of positions there are before those go that the hub
	// does not list any more.
	pruneFrom = 1 << 20
	// resumeSlack is what a Subscribe may take until the leader of a topic looks at an age
	// in it: too little would leave out what was published right after the first one.
	resumeSlack = 5 * time.Second
)

// position is where a subscription is in a topic with history.
type position struct {
	next  wire.Sequence // the one after the last received
	asked wire.Sequence // what the latest Subscribe named; 0: nothing
}

// positions are where a subscription is in the topics with history. Their names are
// bounded: what is beyond that is not kept, and the subscription can't come back.
type positions struct {
	in   map[string]*position
	size int  // bytes of them, about
	lost bool // there was no room for all
}

// get returns where the subscription is in a topic; nil when it is nowhere.
func (all *positions) get(topic []byte) *position { return all.in[string(topic)] }

// add puts the subscription into a topic. It returns nil when there is no room.
func (all *positions) add(topic string, next wire.Sequence) *position {
	size := len(topic) + wire.PositionOverhead
	if all.size+size > wire.MaxSubscribe {
		all.lost = true
		return nil
	}
	p := &position{next: next}
	all.in[topic] = p
	all.size += size
	return p
}

// prune takes those out that the latest Subscribe named and a node does not know, though it
// could ask every leader: their topics keep no history any more, or lost it.
func (all *positions) prune(known map[string]wire.Sequence) {
	if all.size < pruneFrom { // nodes may differ for a while when the settings change
		return
	}
	for topic, p := range all.in {
		if _, ok := known[topic]; !ok && p.asked > 0 {
			delete(all.in, topic)
			all.size -= len(topic) + wire.PositionOverhead
		}
	}
}

// resume returns the bodies of the frames that subscribe at a node, from where the
// subscription is. The error says that the node can't take them.
func (s *Subscription) resume(w *wire.Welcome) ([][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.early, s.earlyN = nil, 0
	want := s.wantLocked(w)
	if s.next.lost {
		return nil, &wire.Error{Code: wire.CodeFrameTooLarge, Detail: fmt.Sprintf("%q has more topics with history than a subscription can go on in: the names of %d have %d bytes: have several subscriptions, each to fewer topics", s.pattern, len(s.next.in), s.next.size)}
	}
	return split(s.pattern, want, w)
}

// wantLocked returns what the subscription wants of a node: to begin or, where it has begun,
// to go on.
func (s *Subscription) wantLocked(w *wire.Welcome) wire.Subscription {
	want := s.want
	if !s.known {
		s.made = time.Now()
	}
	for _, p := range s.next.in {
		p.asked = 0
	}
	_, literal := s.next.in[s.pattern]
	switch {
	case !s.tracks():
		s.resuming = false
		return want
	case s.known:
	case len(s.next.in) == 0, !literal && want.Since != wire.SinceAll && w.MaxSubscribe == 0:
		// Nothing came, or the node can't be told both where to go on and where to begin:
		// what comes again is known by its sequence.
		s.resuming = false
		return want
	}
	s.resuming = len(s.next.in) > 0
	want.Again = true
	want.Positions = make(map[string]wire.Sequence, len(s.next.in))
	for topic, p := range s.next.in {
		p.asked = p.next
		want.Positions[topic] = p.next
	}
	switch {
	case s.known && !s.partial, literal, want.Since == wire.SinceAll:
		want.Sequence, want.Age = 0, 0
		if !s.resuming { // what there is now came after it subscribed
			want.Since = wire.SinceAll
		}
	case !s.known:
		want.Others = true
	default: // of what no leader told of, that which came after it subscribed, at least
		want.Others = true
		want.Age += time.Since(s.made) + resumeSlack
		if want.Since == "" || want.Since == wire.SinceNew {
			want.Since = wire.SinceAge
		}
	}
	return want
}

// split returns the bodies of the frames that say what a subscription wants. Where one is
// not enough, the positions go first.
func split(pattern string, want wire.Subscription, w *wire.Welcome) ([][]byte, error) {
	whole := encode(want)
	room := w.MaxFrame - wire.HeaderSize - len(pattern)
	if len(whole) <= room {
		return [][]byte{whole}, nil
	}
	all := want.Positions
	want.Positions = nil
	last := encode(want)
	tooLarge := func() error {
		return &wire.Error{Code: wire.CodeFrameTooLarge, Detail: fmt.Sprintf("%q takes %d bytes to subscribe to, with where to go on in %d topics, and node %q takes %d: have several subscriptions, each to fewer topics", pattern, len(whole), len(all), w.Node, max(w.MaxFrame, w.MaxSubscribe))}
	}
	if len(whole) > w.MaxSubscribe || len(last) > room {
		return nil, tooLarge()
	}
	var bodies [][]byte
	part := wire.Subscription{More: true, Positions: make(map[string]wire.Sequence)}
	empty := len(`{"positions":{},"more":true}`)
	size, total := empty, len(last)
	for topic, next := range all {
		n := len(encode(topic)) + len(`:,`) + len(encode(next))
		if size+n > room {
			bodies = append(bodies, encode(part))
			total += size
			clear(part.Positions)
			size = empty
		}
		part.Positions[topic] = next
		size += n
	}
	if total += size; total > w.MaxSubscribe {
		return nil, tooLarge()
	}
	return append(bodies, encode(part), last), nil
}

// encode returns the JSON form of what always has one.
func encode(v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		panic("client: subscription can't be encoded: " + err.Error()) // strings and numbers always can
	}
	return body
}

// confirmLocked takes over the positions that a node confirmed. When one is lower than what
// it was asked for, the topic's history began anew.
func (s *Subscription) confirmLocked(ack *wire.Subscribed, w *wire.Welcome) {
	if s.tracks() {
		for topic, next := range ack.Positions {
			switch p := s.next.in[topic]; {
			case p == nil:
				s.next.add(topic, next)
			case next < p.asked:
				p.next = next
			}
		}
		if w.MaxSubscribe > 0 && !ack.Incomplete { // a node that would have said so
			s.next.prune(ack.Positions)
		}
	}
	s.partial = ack.Incomplete && (s.partial || !s.known)
	s.known, s.resuming = true, false
}

// subscribeLocked tells the node of a subscription. It needs Client.mu.
func (c *Client) subscribeLocked(s *Subscription) {
	for _, p := range c.subscribePacketsLocked(s) {
		c.out.control(p.header, p.target, p.body, false)
	}
}

// subscribePacketsLocked returns the frames that tell the node of a subscription. One of
// which it can't be told ends. It needs Client.mu.
func (c *Client) subscribePacketsLocked(s *Subscription) []*packet {
	bodies, err := s.resume(&c.link.welcome)
	if err != nil {
		c.refuseLocked(s, err)
		return nil
	}
	packets := make([]*packet, len(bodies))
	for i, body := range bodies {
		packets[i] = &packet{header: wire.Header{Kind: wire.KindSubscribe, Ref: s.id}, target: s.pattern, body: body, bound: true}
	}
	return packets
}

// refuseLocked ends a subscription that the node can't be told of. It needs Client.mu.
func (c *Client) refuseLocked(s *Subscription, err error) {
	delete(c.subs, s.id)
	s.mu.Lock()
	answer := s.answer
	s.answer = nil
	s.mu.Unlock()
	if answer != nil {
		c.out.expect(-1)
		answer <- err
		return
	}
	c.report(fmt.Errorf("subscribe to %q again: %w", s.pattern, err))
	s.end(err)
}
