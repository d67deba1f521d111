package hub

import (
	"context"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// fenceTime bounds how long order is waited for: a node that does not answer by
// then is about to be lost.
const fenceTime = 2 * time.Second

// fence coalesces the waits until the other nodes have handled what was sent to
// them: one round at a time, and one more for all who came meanwhile.
type fence struct {
	running sync.Mutex

	mu   sync.Mutex    // guards next
	next chan struct{} // closed when the round that has not begun yet is over; nil: there is none
}

// allPassed returns when every linked node has handled all that this one sent to
// it before, or ctx has ended.
func (h *Hub) allPassed(ctx context.Context) {
	f := &h.fence
	f.mu.Lock()
	over := f.next
	if over == nil {
		over = make(chan struct{})
		f.next = over
		if !h.spawn(func() { h.passAll(over) }) {
			f.next = nil
			close(over)
		}
	}
	f.mu.Unlock()
	select {
	case <-over:
	case <-ctx.Done():
	}
}

func (h *Hub) passAll(over chan struct{}) {
	f := &h.fence
	f.running.Lock()
	defer f.running.Unlock()
	f.mu.Lock()
	f.next = nil
	f.mu.Unlock()
	defer close(over)
	ctx, cancel := context.WithTimeout(h.life, fenceTime)
	defer cancel()
	h.askPassed(ctx)
}

// askPassed returns when every linked node has said that it handled all that this
// one sent to it before, and has taken all that they sent before they said so.
func (h *Hub) askPassed(ctx context.Context) {
	h.askAll(ctx, func(ctx context.Context, node string) (func(), error) {
		_, err := h.remote.Ask(ctx, node, QuestionPassed, nil)
		return func() {}, err
	})
}

// answerPassed answers once another node has handled all that came from the
// asking one by way of this one; of this one when none is named.
func (h *Hub) answerPassed(ctx context.Context, by string) error {
	if by == "" || by == h.remote.Self() || h.link(by) == nil {
		return nil
	}
	_, err := h.remote.Ask(ctx, by, QuestionPassed, nil)
	return err
}

// holdBack makes what is for some clients wait here until releaseHeld is called for
// each. What was on its way to where they were before has been queued for there when
// it returns.
func (h *Hub) holdBack(ids ...wire.ClientID) {
	for _, id := range ids {
		h.finds.hold(id)
	}
	h.waitForSenders()
}

// waitForSenders returns when whoever has looked up where a client is has queued the
// frame for there.
func (h *Hub) waitForSenders() {
	h.sending.Lock()
	defer h.sending.Unlock()
}

// Moving says that clients are about to be found on another node than before.
// What is sent to them from here waits until everything that went the old way has
// arrived, so that it stays in order. It is to be called before Locate tells of
// the move.
func (h *Hub) Moving(ids []wire.ClientID, from, to string) {
	if from == h.remote.Self() || h.link(from) == nil || h.link(to) == nil {
		return
	}
	h.holdBack(ids...)
	release := func() {
		for _, id := range ids {
			h.releaseHeld(id)
		}
	}
	if !h.spawn(func() {
		defer release()
		ctx, cancel := context.WithTimeout(h.life, fenceTime)
		defer cancel()
		_, _ = h.remote.Ask(ctx, from, QuestionPassed, []byte(to)) // when it fails, that node is lost, with what was on its way
	}) {
		release()
	}
}
