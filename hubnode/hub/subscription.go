package hub

import (
	"context"
	"fmt"
	"sync"

	"github.com/switchboardhub/switchboard/hubnode/topic"
	"github.com/switchboardhub/switchboard/wire"
)

// maxSubscriptions bounds the subscriptions of one client.
const maxSubscriptions = 10_000

// subscription is one client's or one other node's interest in a pattern.
type subscription struct {
	client  *Client // nil when it is another node's
	peer    string
	id      uint32 // the client's number for it; 0 for the implicit broadcast
	pattern string
	group   string
	filter  Filter

	past  bool // it was asked to begin with what was published before it
	again bool // the client had it before, over another connection

	ended chan struct{} // closed when it is dropped; nil for other nodes'

	mu      sync.Mutex // guards the fields below: where it is in topics with history
	cursors map[string]*cursor
	listing bool // what is kept is being asked for; live artifacts wait
	running bool // the goroutine that catches up runs
	fromOne bool // it wants new topics from their first artifact on
	knows   bool // it was told of all topics that there were when it began
	// Where it begins in topics of which it was not told; of what is new when it was told
	// of all.
	since    wire.Since
	sequence wire.Sequence
}

// literal reports whether the subscription is to one topic.
func (s *subscription) literal() bool { return topic.IsLiteral(s.pattern) }

// Subscribe adds subscriptions of a client on this hub to patterns, from now
// on. It returns a [NoClientError] when the client is not there and a
// wire.Error for a bad pattern; those before it stay subscribed. Subscribing
// twice to a pattern changes nothing.
func (h *Hub) Subscribe(id wire.ClientID, patterns ...string) error {
	c, ok := h.Client(id)
	if !ok {
		return &NoClientError{ID: id}
	}
	for _, p := range patterns {
		if err := checkPattern(p); err != nil {
			return err
		}
		if err := h.subscribeOnce(c, p); err != nil {
			return err
		}
	}
	return nil
}

func checkPattern(p string) error {
	if err := topic.CheckPattern(p); err != nil {
		return &wire.Error{Code: wire.CodeInvalidTopic, Detail: err.Error()}
	}
	return nil
}

// subscribeOnce adds a subscription that the embedding program asked for.
func (h *Hub) subscribeOnce(c *Client, pattern string) error {
	s := newSubscription(c, pattern)
	h.mu.Lock()
	for _, have := range c.subs {
		if have.pattern == pattern && have.group == "" {
			h.mu.Unlock()
			return nil
		}
	}
	for s.id == 0 || c.subs[s.id] != nil { // from the top: clients that number theirs from 1 go undisturbed
		h.lastSub--
		s.id = h.lastSub
	}
	err := h.attachLocked(s)
	h.mu.Unlock()
	if err == nil {
		h.begin(h.life, s, wire.Subscription{})
	}
	return err
}

// Unsubscribe ends a client's subscriptions to patterns, whoever made them. It
// returns a [NoClientError] when the client is not there; a pattern that it is
// not subscribed to is no error.
func (h *Hub) Unsubscribe(id wire.ClientID, patterns ...string) error {
	c, ok := h.Client(id)
	if !ok {
		return &NoClientError{ID: id}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range patterns {
		for _, s := range c.subs {
			if s.pattern == p {
				h.dropLocked(s)
			}
		}
	}
	return nil
}

func newSubscription(c *Client, pattern string) *subscription {
	return &subscription{client: c, pattern: pattern, ended: make(chan struct{}), listing: true}
}

// attachLocked adds a client's subscription under an id that is not in use.
func (h *Hub) attachLocked(s *subscription) error {
	c := s.client
	switch {
	case c.Reason() != nil:
		return &NoClientError{ID: c.id}
	case len(c.subs) >= maxSubscriptions:
		return &wire.Error{Code: wire.CodeInvalidRequest, Detail: fmt.Sprintf("a client may have at most %d subscriptions", maxSubscriptions)}
	case c.subs[s.id] != nil && s.id != 0:
		return &wire.Error{Code: wire.CodeInvalidRequest, Detail: fmt.Sprintf("subscription %d exists already", s.id)}
	}
	if limit := h.settings.Load().PerIdentity.Subscriptions; limit > 0 && c.account != nil && c.account.subscriptions >= limit {
		return &wire.Error{Code: wire.CodeInvalidRequest, Detail: fmt.Sprintf("the clients of %q may have %d subscriptions on this node together: raise limits.perIdentity.subscriptions", c.identity(), limit)}
	}
	if s.pattern == c.broadcast && s.group == "" {
		if implicit := c.subs[0]; implicit != nil { // its own takes the implicit one's place
			h.dropLocked(implicit)
		}
	}
	h.addLocked(s)
	return nil
}

// addLocked puts a client's subscription where routing finds it.
func (h *Hub) addLocked(s *subscription) {
	if s.ended == nil {
		s.ended = make(chan struct{})
	}
	s.client.subs[s.id] = s
	if a := s.client.account; a != nil && s.id != 0 {
		a.subscriptions++
	}
	h.index.Add(s.pattern, s)
	h.changedLocked(s.pattern)
	name := interestName(s.pattern, s.group)
	h.interests[name]++
	if h.interests[name] == 1 {
		h.remote.InterestUp(name)
	}
}

// dropLocked is the reverse of addLocked. Dropping twice is harmless.
func (h *Hub) dropLocked(s *subscription) {
	if s.client.subs[s.id] != s {
		return
	}
	delete(s.client.subs, s.id)
	if a := s.client.account; a != nil && s.id != 0 {
		a.subscriptions--
	}
	close(s.ended)
	h.index.Remove(s.pattern, s)
	h.changedLocked(s.pattern)
	name := interestName(s.pattern, s.group)
	h.interests[name]--
	if h.interests[name] == 0 {
		delete(h.interests, name)
		h.remote.InterestDown(name)
	}
}

// begin finds out where a new subscription starts in the topics with history
// that it matches, starts to catch up where it is behind, and returns the
// position in each. It may ask other nodes. Where it could not ask all that it has to,
// complete is false: then it goes on asking.
func (h *Hub) begin(ctx context.Context, s *subscription, want wire.Subscription) (positions map[string]wire.Sequence, complete bool) {
	if s.group != "" || !h.settings.Load().mayKeep(s.pattern) {
		s.startAt(nil, true, want)
		return nil, true
	}
	starts, complete := h.list(ctx, s.pattern, want)
	s.startAt(starts, complete, want)
	if !complete && s.looksFor(want) {
		h.spawn(func() { s.listAgain(h.life, want) })
	}
	positions = make(map[string]wire.Sequence, len(starts))
	for _, at := range starts {
		positions[at.Topic] = at.Start
	}
	return positions, complete
}
