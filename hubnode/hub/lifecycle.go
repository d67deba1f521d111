package hub

import (
	"context"
	"sync"
	"sync/atomic"
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
// started has ended, the listeners to events included. It returns ctx's error when that cut the draining short;
// a client that takes nothing for five seconds is not waited for any longer.
// Further calls wait for the first, and cut it short when their ctx ends.
func (h *Hub) Stop(ctx context.Context) error {
	h.mu.Lock()
	first := h.state < stateStopping
	if first {
		h.state = stateStopping
		h.early = nil
		h.wakeListenersLocked()
	}
	h.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { h.rush.Do(func() { close(h.hurry) }) })
	defer stop()
	if !first {
		<-h.stopped
		return nil
	}

	cut := h.sayGoodbye()
	h.mu.Lock()
	h.state = stateStopped
	h.mu.Unlock()
	h.end()
	h.wg.Wait()
	close(h.stopped)
	switch {
	case cut == 0:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	default:
		return context.Canceled // by another Stop
	}
}

// sayGoodbye removes all clients and waits until their queues are written. It
// returns how many were cut off by the hurry.
func (h *Hub) sayGoodbye() (cut int) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var leaving, watching sync.WaitGroup
	var hurried atomic.Int32
	watching.Go(func() {
		select {
		case <-h.hurry:
			cancel()
		case <-ctx.Done():
		}
	})
	h.eachClient(func(c *Client) {
		leaving.Go(func() {
			h.mu.Lock()
			h.departLocked(c, ErrStopped)
			h.mu.Unlock()
			c.sayGoodbye()
			if !c.drain(ctx) && ctx.Err() != nil {
				hurried.Add(1)
			}
			c.close()
		})
	})
	leaving.Wait()
	cancel()
	watching.Wait()
	return int(hurried.Load())
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
