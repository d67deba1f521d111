package hub

import (
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// recheck makes the subscriptions of this hub's clients look for what they
// missed of topics whose leader, or the link to it, has changed: frames may have
// been lost with the one before, and nothing else would tell before the next
// artifact.
func (h *Hub) recheck(affected func(topic string) bool) {
	for name, subscriptions := range h.followed(affected) {
		end, err := h.askEnd(h.life, name)
		for _, s := range subscriptions {
			s.recheck(name, end, err != nil)
		}
	}
}

// followed returns the subscriptions that are somewhere in a topic with history,
// by topic.
func (h *Hub) followed(affected func(topic string) bool) map[string][]*subscription {
	var all []*subscription
	h.mu.Lock()
	h.eachClient(func(c *Client) {
		for _, s := range c.subs {
			all = append(all, s)
		}
	})
	h.mu.Unlock()
	topics := make(map[string][]*subscription)
	for _, s := range all {
		s.mu.Lock()
		for name := range s.cursors {
			if affected(name) {
				topics[name] = append(topics[name], s)
			}
		}
		s.mu.Unlock()
	}
	return topics
}

// recheck compares where the subscription is with where the topic ends. When that
// is not known, it looks for itself once it can.
func (s *subscription) recheck(name string, end wire.Sequence, unknown bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.cursors[name]
	switch {
	case c == nil || s.listing:
	case c.live && (unknown || end > c.next):
		s.lagLocked(c, end)
	default:
		c.retry, c.wait = time.Time{}, 0
	}
}
