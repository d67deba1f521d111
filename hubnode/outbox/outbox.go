package outbox

import (
	"io"
	"net"
	"slices"
	"sync"

	"github.com/switchboardhub/switchboard/wire"
)

// Verdict is what became of a pushed frame.
type Verdict uint8

// The verdicts of Push.
const (
	Queued     Verdict = iota // it will be written; somebody else flushes
	QueuedCold                // it will be written once the caller flushes
	Full                      // refused: more bytes would wait than the limit allows
	Closed                    // refused: the outbox is closed, or has its last frame
)

// Config says how an outbox behaves.
type Config struct {
	// LimitBytes bounds what waits, the write under way included. Control
	// frames may exceed it up to twice.
	LimitBytes int
	// Gauge counts what waits, beside that in other outboxes. Nil: nothing does.
	Gauge *Gauge
	// Failed is called once, from the writer's goroutine, when writing fails.
	// That goroutine counts as running until Failed returns: it must not wait
	// for the outbox.
	Failed func(error)
}

// Outbox is safe for concurrent use.
type Outbox struct {
	cfg     Config
	w       io.Writer
	try     tryWriter   // w when it is one
	all     allWriter   // likewise
	write   func()      // writeAll, made once: starting the writer allocates nothing
	buffers net.Buffers // of the writer alone

	mu      sync.Mutex // guards the fields below
	queue   []segment
	spare   []segment // the writer's batch of before, to be filled again
	pending int       // bytes queued or being written
	writing bool      // the writer's goroutine runs
	dirty   bool      // somebody who pushed will flush
	sealed  bool      // the last frame is queued
	closed  bool
	lost    int // bytes that were queued and not written
	waiters []waiter

	// conflates says that the reader was slow once: the writer leaves what it
	// does not write yet in the queue, where something newer can replace it.
	conflates bool
	sorted    *sorted // what waits behind queue; never empty
}

// New returns an empty outbox that writes to w.
func New(w io.Writer, cfg Config) *Outbox {
	o := &Outbox{cfg: cfg, w: w}
	o.try, _ = w.(tryWriter)
	o.all, _ = w.(allWriter)
	o.write = func() { o.writeAll(nil) }
	return o
}

// Push queues a frame given as head, which is copied and holds the fixed part
// at least, and tail. A tail that is
// not copied is read until it is written: slab is retained for it, and without
// a slab the tail must never change.
func (o *Outbox) Push(head, tail []byte, slab *wire.Slab) Verdict {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pushLocked(head, tail, slab, o.cfg.LimitBytes)
}

// PushParts queues a frame given in parts: small ones as one, copied; the parts of a large
// one are read until they are written, and must never change. It is for outboxes from
// which nothing is dropped, as those of links between nodes.
func (o *Outbox) PushParts(parts ...[]byte) Verdict {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if size <= copyMax || o.sorted != nil {
		return o.pushLocked(slices.Concat(parts...), nil, nil, o.cfg.LimitBytes)
	}
	if v, refused := o.refusedLocked(size, o.cfg.LimitBytes); refused {
		return v
	}
	o.pending += size
	for _, p := range parts {
		if len(p) > 0 {
			o.queue = append(o.queue, segment{b: p})
		}
	}
	return o.verdictLocked()
}

// PushControl queues a whole control frame. It is refused only when twice the
// limit waits: a peer that asks and never reads the answers.
func (o *Outbox) PushControl(frame []byte) Verdict {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pushLocked(frame, nil, nil, 2*o.cfg.LimitBytes)
}

// PushLast is PushControl for a frame that nothing follows: whatever is pushed
// after it is refused as if the outbox were closed, even when there was no room
// for the frame itself.
func (o *Outbox) PushLast(frame []byte) Verdict {
	o.mu.Lock()
	defer o.mu.Unlock()
	v := o.pushLocked(frame, nil, nil, 2*o.cfg.LimitBytes)
	o.sealed = true
	return v
}

func (o *Outbox) pushLocked(head, tail []byte, slab *wire.Slab, limit int) Verdict {
	size := len(head) + len(tail)
	if v, refused := o.refusedLocked(size, limit); refused {
		return v
	}
	switch {
	case o.sorted != nil && droppable(wire.Frame(head)):
		return Full // has to be sorted
	case o.sorted != nil:
		return o.holdLocked(o.sorted.whole(head, tail))
	}
	o.pending += size
	if o.copiesLocked(tail, slab) {
		o.copyLocked(head, tail)
	} else {
		o.referLocked(head, tail, slab)
	}
	return o.verdictLocked()
}

// refusedLocked reports whether a frame of a size can't be queued, and the verdict then.
func (o *Outbox) refusedLocked(size, limit int) (v Verdict, refused bool) {
	if o.closed || o.sealed {
		return Closed, true
	}
	return Full, o.pending > 0 && o.pending+size > limit // one frame always fits an empty queue
}

// verdictLocked is that of a frame that was queued.
func (o *Outbox) verdictLocked() Verdict {
	if o.dirty || o.writing {
		return Queued
	}
	o.dirty = true
	return QueuedCold
}

// Flush sees to it that what waits is written: at once as far as the connection
// takes it without waiting, unless it is much, else by the writer.
func (o *Outbox) Flush() { o.flush(inPassing) }

// FlushAside is Flush that leaves everything to the writer, so that it is quick
// and many outboxes are written on as many processors as there are.
func (o *Outbox) FlushAside() { o.flush(0) }

// flush writes at most so many bytes itself.
func (o *Outbox) flush(most int) {
	o.mu.Lock()
	o.dirty = false
	if o.writing || o.closed || o.emptyLocked() {
		o.mu.Unlock()
		return
	}
	o.writing = true
	if o.try == nil || o.pending > most || len(o.queue) > keepMax {
		o.mu.Unlock()
		go o.write() // ended by Close and the end of the connection; Wait waits for it
		return
	}
	batch := o.takeLocked()
	o.mu.Unlock()
	if rest := o.writeInPassing(batch); rest != nil {
		go o.writeAll(rest) // as above
	}
}

func (o *Outbox) emptyLocked() bool { return len(o.queue) == 0 && o.sorted == nil }

// Pending returns the bytes that wait, the write under way included.
func (o *Outbox) Pending() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pending
}

// Close refuses further frames and drops what waits. The write under way is
// ended by closing the connection, which is the caller's.
func (o *Outbox) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closeLocked()
}

func (o *Outbox) closeLocked() {
	if o.closed {
		return
	}
	o.closed = true
	for _, s := range o.queue {
		o.pending -= len(s.b)
		o.lost += len(s.b)
	}
	o.recycle(o.queue)
	o.queue = nil
	if o.sorted != nil {
		o.pending -= o.sorted.bytes
		o.lost += o.sorted.bytes
		o.sorted = nil
	}
	o.wakeLocked()
}
