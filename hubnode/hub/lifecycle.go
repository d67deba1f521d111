package hub

import (
	"context"
	"errors"
	"sync"
)

// Start begins to serve the registered clients. When ctx ends, so does the hub,
// as by Stop with no time to drain. Starting a running hub adds ctx to those
// that end it; a stopped one returns [ErrNotRunning].
func (h *Hub) Start(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state >= stateStopping {
		return ErrNotRunning
	}
	release := context.AfterFunc(ctx, h.abort)
	context.AfterFunc(h.life, func() { release() })
	if h.state == stateRunning {
		return nil
	}
	h.state = stateRunning
	for _, f := range h.early {
		h.wg.Go(f)
	}
	h.early = nil
	h.wakeListenersLocked()
	h.wg.Go(h.keepHouse)
	return nil
}

// abort ends the hub at once.
func (h *Hub) abort() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = h.Stop(ctx) // reports only that there was no time
}

// Stop says goodbye to every client, writes what is queued for them until ctx
// ends, closes their connections and waits until everything that the hub
// started has ended, the listeners to events included.
//
// It returns a [StopError] that says what was dropped when ctx cut that short,
// and wraps ctx's cause; or when some client took nothing for five seconds,
// which is not waited for any longer, and wraps [ErrStalled]. Further calls
// wait for the first, cut it short when their ctx ends, and return nil.
func (h *Hub) Stop(ctx context.Context) error {
	h.mu.Lock()
	first := h.state < stateStopping
	if first {
		h.state = stateStopping
		h.early = nil
		h.wakeListenersLocked()
	}
	h.mu.Unlock()
	stop := context.AfterFunc(ctx, h.hurry)
	defer stop()
	if !first {
		<-h.stopped
		return nil
	}

	h.dismissAll()
	h.endSessions()
	h.mu.Lock()
	h.state = stateStopped
	h.mu.Unlock()
	h.end()
	h.wg.Wait()
	cause := context.Cause(ctx)
	if cause == nil && h.grace.Err() != nil {
		cause = context.Canceled // by another Stop
	}
	h.hurry()
	close(h.stopped)
	return h.unsent.err(cause)
}

// dismissAll removes all clients and returns when their connections are closed.
func (h *Hub) dismissAll() {
	var leaving sync.WaitGroup
	h.eachClient(func(c *Client) {
		leaving.Go(func() {
			h.mu.Lock()
			h.departLocked(c, ErrStopped)
			h.mu.Unlock()
			c.sayGoodbye()
			c.drain(h.grace)
			h.finish(c)
		})
	})
	leaving.Wait()
}

// finish closes the connection of a client that had its time to take what was
// queued for it, and notes what it did not take of that when the hub stops.
func (h *Hub) finish(c *Client) {
	cut := h.grace.Err() != nil
	c.close()
	if lost := c.out.Lost(); lost > 0 && (cut || errors.Is(c.reason, ErrStopped)) {
		h.unsent.add(lost-c.lastBytes, cut)
	}
}

// spawn runs f in a goroutine that Stop waits for. It reports false, and f
// never runs, when the hub is stopped.
func (h *Hub) spawn(f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state == stateStopped {
		return false
	}
	h.wg.Go(f)
	return true
}

// spawnAtStartLocked is spawn for what serves only after Start. It does nothing
// when the hub is stopped.
func (h *Hub) spawnAtStartLocked(f func()) {
	switch h.state {
	case stateNew:
		h.early = append(h.early, f)
	case stateRunning, stateStopping:
		h.wg.Go(f)
	case stateStopped:
	}
}
