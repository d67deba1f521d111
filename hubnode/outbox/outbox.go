// Package outbox is the bounded queue of frames that wait for one connection,
// and the writer that empties it.
//
// Small frames are copied into the queue's own chunks, so that a slow reader
// pins nothing of the publishers' buffers and a writer sends many frames with
// one system call. Large ones are kept by reference and written from where
// they were read. The writer is a goroutine only while there is something to
// write: an idle outbox costs its struct.
//
// Pushing only queues. Who pushed calls Flush when it has no more to push, so
// that a burst costs one write; Push tells whether somebody else already will.
package outbox

import (
	"context"
	"io"
	"net"
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
	Closed                    // refused: the outbox is closed
)

const (
	smallChunk = 4 << 10
	largeChunk = 64 << 10
	// copyMax is the longest tail that is copied rather than referenced:
	// below it a copy is cheaper than one more element of a vectored write.
	copyMax = 4 << 10
)

// Config says how an outbox behaves.
type Config struct {
	// LimitBytes bounds what waits, the write under way included. Control
	// frames may exceed it up to twice.
	LimitBytes int
	// Failed is called once, from the writer's goroutine, when writing fails.
	Failed func(error)
}

// Outbox is safe for concurrent use.
type Outbox struct {
	cfg Config
	w   io.Writer

	mu      sync.Mutex // guards the fields below
	queue   []segment
	spare   []segment // the writer's batch of before, to be filled again
	pending int       // bytes queued or being written
	writing bool      // the writer's goroutine runs
	dirty   bool      // somebody who pushed will flush
	closed  bool
	waiters []waiter
}

// segment is a stretch of bytes to be written: a chunk of whole frames, with
// the head of a large one at its end, or a large frame's tail.
type segment struct {
	b     []byte
	slab  *wire.Slab // holds b when b was read from a connection
	chunk *[]byte    // the pooled chunk that b lies in
}

type waiter struct {
	below int
	ready chan struct{}
}

var (
	smallChunks = sync.Pool{New: func() any { b := make([]byte, 0, smallChunk); return &b }}
	largeChunks = sync.Pool{New: func() any { b := make([]byte, 0, largeChunk); return &b }}
)

// New returns an empty outbox that writes to w.
func New(w io.Writer, cfg Config) *Outbox { return &Outbox{cfg: cfg, w: w} }

// Push queues a frame given as head, which is copied, and tail. A tail that is
// not copied is read until it is written: slab is retained for it, and without
// a slab the tail must never change.
func (o *Outbox) Push(head, tail []byte, slab *wire.Slab) Verdict {
	return o.push(head, tail, slab, o.cfg.LimitBytes)
}

// PushControl queues a whole control frame. It is refused only when twice the
// limit waits: a peer that asks and never reads the answers.
func (o *Outbox) PushControl(frame []byte) Verdict {
	return o.push(frame, nil, nil, 2*o.cfg.LimitBytes)
}

func (o *Outbox) push(head, tail []byte, slab *wire.Slab, limit int) Verdict {
	size := len(head) + len(tail)
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
		return Closed
	case o.pending > 0 && o.pending+size > limit: // one frame always fits an empty queue
		return Full
	}
	o.pending += size
	if len(tail) <= copyMax {
		o.copyLocked(head, tail)
	} else {
		o.copyLocked(head, nil)
		o.referLocked(tail, slab)
	}
	if o.dirty || o.writing {
		return Queued
	}
	o.dirty = true
	return QueuedCold
}

// copyLocked appends head and tail, side by side, to the last chunk or to a new
// one.
func (o *Outbox) copyLocked(head, tail []byte) {
	size := len(head) + len(tail)
	if n := len(o.queue); n > 0 {
		if last := &o.queue[n-1]; last.chunk != nil && cap(last.b)-len(last.b) >= size {
			last.b = append(append(last.b, head...), tail...)
			return
		}
	}
	pool := &smallChunks
	if len(o.queue) > 0 || size > smallChunk { // more than a little waits already
		pool = &largeChunks
	}
	chunk, _ := pool.Get().(*[]byte)
	o.queue = append(o.queue, segment{b: append(append((*chunk)[:0], head...), tail...), chunk: chunk})
}

// referLocked queues the tail of the frame whose head was copied last.
func (o *Outbox) referLocked(tail []byte, slab *wire.Slab) {
	if slab != nil {
		slab.Retain()
	}
	o.queue = append(o.queue, segment{b: tail, slab: slab})
}

// Flush starts the writer when something waits and nobody writes.
func (o *Outbox) Flush() {
	o.mu.Lock()
	o.dirty = false
	start := !o.writing && !o.closed && len(o.queue) > 0
	o.writing = o.writing || start
	o.mu.Unlock()
	if start {
		go o.write() // ended by Close and the end of the connection; Wait waits for it
	}
}

// write empties the queue and ends.
func (o *Outbox) write() {
	var (
		buffers net.Buffers
		wrote   int
		err     error
	)
	for {
		batch := o.next(wrote, err)
		if batch == nil {
			return
		}
		buffers, wrote = buffers[:0], 0
		for _, s := range batch {
			buffers = append(buffers, s.b)
			wrote += len(s.b)
		}
		if len(buffers) == 1 {
			_, err = o.w.Write(buffers[0])
		} else {
			whole := buffers // WriteTo consumes its receiver
			_, err = whole.WriteTo(o.w)
		}
		recycle(batch)
	}
}

// next accounts for the write before and takes all that waits; nil ends the
// writer.
func (o *Outbox) next(wrote int, err error) []segment {
	o.mu.Lock()
	o.pending -= wrote
	if err != nil && !o.closed {
		o.closeLocked()
		o.mu.Unlock()
		o.cfg.Failed(err)
		o.mu.Lock()
	}
	o.wakeLocked()
	if len(o.queue) == 0 {
		o.writing = false
		o.wakeLocked()
		o.mu.Unlock()
		return nil
	}
	batch := o.queue
	o.queue, o.spare = o.spare[:0], batch
	o.mu.Unlock()
	return batch
}

// recycle gives the batch's memory back.
func recycle(batch []segment) {
	for i, s := range batch {
		s.slab.Release()
		if s.chunk != nil {
			if cap(*s.chunk) == smallChunk {
				smallChunks.Put(s.chunk)
			} else if cap(*s.chunk) == largeChunk {
				largeChunks.Put(s.chunk)
			}
		}
		batch[i] = segment{}
	}
}

// Pending returns the bytes that wait, the write under way included.
func (o *Outbox) Pending() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pending
}

// Below returns a channel that is closed once at most n bytes wait, or the
// outbox is closed.
func (o *Outbox) Below(n int) <-chan struct{} {
	ready := make(chan struct{})
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiters = append(o.waiters, waiter{below: n, ready: ready})
	o.wakeLocked()
	return ready
}

func (o *Outbox) wakeLocked() {
	kept := o.waiters[:0]
	for _, w := range o.waiters {
		if o.pending <= w.below || (o.closed && !o.writing) {
			close(w.ready)
		} else {
			kept = append(kept, w)
		}
	}
	o.waiters = kept
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
	}
	recycle(o.queue)
	o.queue = nil
	o.wakeLocked()
}

// Wait returns once the outbox is closed and its writer has ended.
func (o *Outbox) Wait() { <-o.Below(-1) }

// Drain flushes and waits until nothing waits any more, the outbox is closed,
// or ctx ends; it reports whether all was written.
func (o *Outbox) Drain(ctx context.Context) bool {
	o.Flush()
	select {
	case <-o.Below(0):
		return o.Pending() == 0
	case <-ctx.Done():
		return false
	}
}

// DropOldest drops queued artifact frames, oldest first, until want more bytes
// fit or none is left, and returns how many artifacts that took. Control
// frames stay, in their order.
func (o *Outbox) DropOldest(want int) (artifacts int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	queue := o.queue
	o.queue = nil
	defer func() { recycle(queue) }()
	for i := 0; i < len(queue); i++ {
		for b := queue[i].b; len(b) > 0; {
			head, tail, slab := b, []byte(nil), (*wire.Slab)(nil)
			if n := frameLen(b); n <= len(b) {
				head = b[:n]
			} else { // its tail is the next segment
				i++
				tail, slab = queue[i].b, queue[i].slab
			}
			b = b[len(head):]
			f := wire.Frame(head)
			if isArtifact(f.Kind()) && o.pending+want > o.cfg.LimitBytes {
				o.pending -= len(head) + len(tail)
				artifacts += f.Count()
				continue
			}
			o.copyLocked(head, nil)
			if tail != nil {
				o.referLocked(tail, slab)
			}
		}
	}
	return artifacts
}

func frameLen(b []byte) int {
	return 4 + int(b[0])<<24 + int(b[1])<<16 + int(b[2])<<8 + int(b[3])
}

func isArtifact(k wire.Kind) bool {
	return k == wire.KindPublish || k == wire.KindSend
}
