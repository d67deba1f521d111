package hub

import (
	"context"
	"sync"
)

// arrivals counts the sessions that are just being begun or taken over, so that a
// hub that hands its sessions over misses none.
type arrivals struct {
	mu    sync.Mutex // guards the fields below
	under int        // way
	ended bool
	none  vacancy
}

// begin reports false when no session is taken any more. arrived has to be called
// once the session is here, or won't be.
func (a *arrivals) begin() (arrived func(), ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return nil, false
	}
	a.under++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.under--; a.under == 0 {
			a.none.reachedLocked()
		}
	}, true
}

// end lets no further session come, and returns when those under way are here or
// ctx has ended.
func (a *arrivals) end(ctx context.Context) {
	a.mu.Lock()
	a.ended = true
	a.mu.Unlock()
	a.none.wait(ctx, &a.mu, func() bool { return a.under == 0 })
}

// over reports whether no session is taken any more.
func (a *arrivals) over() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ended
}

// vacancy is for waiting until what a lock guards is empty.
type vacancy struct {
	reached chan struct{} // closed once it is; nil while nobody waits
}

// wait returns when it is empty, or ctx has ended. empty is called with the lock held.
func (v *vacancy) wait(ctx context.Context, mu *sync.Mutex, empty func() bool) {
	mu.Lock()
	if empty() {
		mu.Unlock()
		return
	}
	if v.reached == nil {
		v.reached = make(chan struct{})
	}
	reached := v.reached
	mu.Unlock()
	select {
	case <-reached:
	case <-ctx.Done():
	}
}

// reachedLocked is to be called when it has become empty.
func (v *vacancy) reachedLocked() {
	if v.reached != nil {
		close(v.reached)
		v.reached = nil
	}
}
