package hub

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

const (
	// handOverMax bounds the sessions that are handed over at a time.
	handOverMax = 8
	// takersTime is how long a node that drains waits for clients to fetch their
	// sessions by themselves.
	takersTime = 500 * time.Millisecond
)

// HandOverSessions gives every session that this hub has to one of the nodes,
// each to the next, so that their clients find them there. It ends the
// connections of those clients that are still here.
func (h *Hub) HandOverSessions(ctx context.Context, nodes []string) {
	h.arrivals.end(ctx)
	if len(nodes) == 0 {
		return
	}
	h.waitForTakers(ctx)
	h.eachClient(func(c *Client) {
		if c.session != nil {
			h.quiesce(c.session)
		}
	})
	var handing sync.WaitGroup
	limit := make(chan struct{}, handOverMax)
	turn := 0
	h.away.Range(func(_, v any) bool {
		s, _ := v.(*session)
		first := turn % len(nodes)
		turn++
		limit <- struct{}{}
		handing.Go(func() {
			defer func() { <-limit }()
			if err := h.handSession(ctx, s, slices.Concat(nodes[first:], nodes[:first])); err != nil {
				h.log.Warn("session not handed over", slog.String("client", s.id), logError(err))
			}
		})
		return true
	})
	handing.Wait()
}

// waitForTakers returns when the sessions of clients that just went are taken over
// by the nodes that they went to, or after a moment.
func (h *Hub) waitForTakers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, takersTime)
	defer cancel()
	h.waitForAway(ctx, false)
}

// waitForAway returns when, of the sessions that are away and that another node has, or
// has not, taken over, none is away any more, or ctx has ended.
func (h *Hub) waitForAway(ctx context.Context, moved bool) {
	h.away.Range(func(_, v any) bool {
		s, _ := v.(*session)
		s.mu.Lock()
		back, counts := s.back, (s.moved != "") == moved
		s.mu.Unlock()
		if !counts || back == nil {
			return true
		}
		select {
		case <-back:
			return true
		case <-ctx.Done():
			return false
		}
	})
}

// handSession makes another node take a session over: the first of them that can.
func (h *Hub) handSession(ctx context.Context, s *session, nodes []string) error {
	s.mu.Lock()
	st := s.stateLocked()
	s.mu.Unlock()
	st.To = h.remote.Self()
	var failed error
	for _, node := range nodes {
		if s.hasLeft() {
			return nil // its client has fetched it
		}
		_, err := h.remote.Ask(ctx, node, questionKeep, st.encode(nil))
		if err == nil {
			return nil
		}
		failed = err
	}
	if s.hasLeft() {
		return nil
	}
	return failed
}

func (s *session) hasLeft() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended || s.moved != ""
}

// keepSession takes a session over from a node that stops, for its client to find
// it here.
func (h *Hub) keepSession(ctx context.Context, body []byte) error {
	want, _, _, err := decodeSession(body)
	if err != nil {
		return err
	}
	arrived, ok := h.arrivals.begin()
	if !ok {
		return &wire.Error{Code: wire.CodeDraining, Detail: "this node stops as well"}
	}
	defer arrived()
	done, err := h.turns.takeSoon(ctx, want.ID)
	if err != nil {
		return err
	}
	defer done()
	_, here := h.Client(want.ID)
	if waits := h.awaySession(want.ID); here || waits != nil && !waits.hasLeft() {
		return &wire.Error{Code: wire.CodeUnavailable, Detail: "client " + want.ID + " has another session here"}
	}
	h.finds.fetch(want.ID, true)
	h.holdBack(want.ID)
	defer h.releaseHeld(want.ID)
	s, _, err := h.takeSession(want.To, want)
	h.finds.fetch(want.ID, false)
	if err != nil {
		return err
	}
	if s == nil {
		return &wire.Error{Code: wire.CodeUnavailable, Detail: "the session of client " + want.ID + " is no longer there"}
	}
	h.adopt(s)
	return nil
}

// adopt makes a session that was another node's wait for its client here.
func (h *Hub) adopt(s *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != stateRunning {
		h.buryLocked(s)
		return
	}
	if before := h.awaySession(s.id); before != nil {
		h.endSessionLocked(before, wire.LeaveReplaced)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	h.waitForLocked(s, max(h.settings.Load().ResumeWindow, time.Second))
	h.remote.ClientUp(s.id, s.epoch)
}

// Settle returns when no other node sends anything here any more and all that was
// sent on from here is answered, or after a moment. It is for a node that has handed
// over what it had: as soon as it leaves, the others close their links to it.
func (h *Hub) Settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	h.waitForAway(ctx, true) // until the nodes that they went to have announced them
	h.askAll(ctx, func(ctx context.Context, node string) (func(), error) {
		_, err := h.remote.Ask(ctx, node, questionLeaving, nil)
		return func() {}, err
	})
	h.finds.settle(ctx)
	h.awaiting.settle(ctx)
	h.finds.settle(ctx) // answers may have waited for a client that is just being found
	h.askPassed(ctx)
}

// answerLeaving answers another node once this one has heard from all others where
// the clients of that one are now, and has sent it the last that was for them.
func (h *Hub) answerLeaving(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	h.askPassed(ctx) // their answers come behind their announcements
	h.waitForSenders()
}
