package hub

import (
	"context"
	"sync"

	"github.com/switchboardhub/switchboard/wire"
)

// turns makes what begins, moves and ends the session of one client id happen
// one after another.
type turns struct {
	mu   sync.Mutex // guards busy
	busy map[wire.ClientID]chan struct{}
}

// take returns once nobody else has the turn, or ctx has ended. done gives it
// back, and may be called in any case.
func (t *turns) take(ctx context.Context, id wire.ClientID) (done func(), err error) {
	for {
		t.mu.Lock()
		other, busy := t.busy[id]
		if !busy {
			mine := make(chan struct{})
			if t.busy == nil {
				t.busy = make(map[wire.ClientID]chan struct{})
			}
			t.busy[id] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.busy, id)
				t.mu.Unlock()
				close(mine)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return func() {}, &wire.Error{Code: wire.CodeUnavailable, Detail: "another connection of client " + id + " is just being made: try again"}
		}
	}
}

// takeSoon is take for a node that is asked for a session, which can't wait for long.
func (t *turns) takeSoon(ctx context.Context, id wire.ClientID) (done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, turnTime)
	defer cancel()
	return t.take(ctx, id)
}
