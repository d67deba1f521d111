package hub

import "time"

// recheck makes the subscriptions of this hub's clients look for what they
// missed of topics that have their home on node: frames from there may have
// been lost with a link, and nothing else would tell before the next one.
func (h *Hub) recheck(node string) {
	for name, subscriptions := range h.awayFrom(node) {
		held, err := h.askHeld(h.life, node, name) // it does not make the home open the topic
		if err != nil {
			return // the link is gone again
		}
		for _, s := range subscriptions {
			s.recheck(name, held)
		}
	}
}

// awayFrom returns the subscriptions that are somewhere in a topic with its
// home on node, by topic.
func (h *Hub) awayFrom(node string) map[string][]*subscription {
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
			if home, self := h.remote.Home(name); !self && home == node {
				topics[name] = append(topics[name], s)
			}
		}
		s.mu.Unlock()
	}
	return topics
}

// recheck compares where the subscription is with what the topic's home holds.
func (s *subscription) recheck(name string, there held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.cursors[name]
	switch {
	case c == nil || s.listing:
	case c.live && there.Holds && there.Next > c.next:
		s.lagLocked(c, there.Next)
	default:
		c.retry, c.wait = time.Time{}, 0
	}
}
