package hub

import (
	"context"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// Topics are listed again for the subscriptions that were not told of all.
const (
	listAgainMax = 10 * time.Second // between two times, for a pattern
	listingMax   = 4                // subscriptions for which that is done at a time
)

// looksFor reports whether a subscription wants what was published before it, in topics of
// which nobody has told and it does not know by itself. What is not older than an age is not
// among that: the leader would look at it later, and might take for too old what was published
// after the subscription.
func (s *subscription) looksFor(want wire.Subscription) bool {
	switch {
	case want.Positions != nil && !want.Others:
		return !s.literal()
	case want.Since == wire.SinceAll:
		return !s.literal() // else it looks at the one topic at once
	default:
		return want.Since == wire.SinceLast || want.Since == wire.SinceSequence
	}
}

// listAgain asks where a subscription starts until every leader has told. It takes the answer
// before the latest one: what had been stored by then was heard of by now, where it was
// published after the subscription.
func (s *subscription) listAgain(ctx context.Context, want wire.Subscription) {
	h := s.client.hub
	most := retryMax
	if !s.literal() { // which asks all nodes for all topics
		most = listAgainMax
	}
	var starts []topicStart
	for complete, wait := false, retryMin; s.pause(ctx, wait); wait = min(2*wait, most) {
		select {
		case h.listing <- struct{}{}:
		case <-s.ended:
			return
		case <-ctx.Done():
			return
		}
		now, all := h.list(ctx, s.pattern, want)
		<-h.listing
		s.startMore(starts, complete)
		if complete {
			return
		}
		if starts, complete = now, all; complete {
			wait = retryMin / 2
		}
	}
}

// startMore puts cursors into topics of which the subscription has not heard yet. complete
// says that those are all there were.
func (s *subscription) startMore(starts []topicStart, complete bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range starts {
		if s.cursors[at.Topic] != nil {
			continue
		}
		c := s.cursorLocked(at.Topic)
		c.next, c.past = at.Start, at.End
		c.live = c.next >= at.End
	}
	if complete {
		s.fromOne, s.knows, s.since = true, true, ""
	}
	s.catchUpLocked()
}
