package outbox

import "context"

type waiter struct {
	below int
	ready chan struct{}
}

// now is returned where there is nothing to wait for.
var now = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Below returns a channel that is closed once at most n bytes wait, or the
// outbox is closed and its writer has ended.
func (o *Outbox) Below(n int) <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.isBelowLocked(n) {
		return now
	}
	ready := make(chan struct{})
	o.waiters = append(o.waiters, waiter{below: n, ready: ready})
	return ready
}

func (o *Outbox) isBelowLocked(n int) bool {
	return o.pending <= n || (o.closed && !o.writing)
}

func (o *Outbox) wakeLocked() {
	if len(o.waiters) == 0 {
		return
	}
	kept := o.waiters[:0]
	for _, w := range o.waiters {
		if o.isBelowLocked(w.below) {
			close(w.ready)
		} else {
			kept = append(kept, w)
		}
	}
	clear(o.waiters[len(kept):])
	o.waiters = kept
}

// Wait returns once the outbox is closed and its writer has ended.
func (o *Outbox) Wait() { <-o.Below(-1) }

// Drain flushes and waits until nothing waits any more, the outbox is closed,
// or ctx ends; it reports whether all that was ever queued was written.
func (o *Outbox) Drain(ctx context.Context) bool {
	o.Flush()
	select {
	case <-o.Below(0):
	case <-ctx.Done():
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pending == 0 && o.lost == 0
}

// Lost returns how many bytes were queued and not written, once the outbox is
// closed and its writer has ended. All of a write that failed counts, though
// the connection may have taken some of it.
func (o *Outbox) Lost() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lost
}
