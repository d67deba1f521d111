package client

import "github.com/switchboardhub/switchboard/wire"

// pause ends a subscription at the node when its handler has more to do than may wait:
// what topics with history keep is read on from there by goOn. Under another number, as
// what is still on its way under this one would leave a hole. It reports false when the
// node has not confirmed the subscription yet, so that it is not known where it is.
func (s *Subscription) pause() bool {
	c := s.client
	if !s.isKnown() {
		return false
	}
	id := c.out.newRef()
	c.mu.Lock()
	if c.subs[s.id] == s {
		c.out.control(wire.Header{Kind: wire.KindUnsubscribe, Ref: s.id}, "", nil, false)
		delete(c.subs, s.id)
		s.id, s.paused = id, true
		c.subs[id] = s
	}
	c.mu.Unlock()
	if s.mixed {
		c.report(&DroppedError{Queue: s.pattern})
	}
	s.queue.whenEased(0)
	return true
}

// goOn subscribes again, once the handler has worked off half of what may wait, and
// tells how many live artifacts were lost meanwhile.
func (s *Subscription) goOn(lost int) {
	c := s.client
	if lost > 0 {
		c.distrustWatches()
		c.report(&DroppedError{Artifacts: uint64(lost), Queue: s.pattern})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.paused || c.subs[s.id] != s {
		return
	}
	s.paused = false
	if c.up { // else the next connection begins with it
		c.subscribeLocked(s)
	}
}

func (s *Subscription) isKnown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known
}
