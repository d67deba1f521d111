package outbox

import (
	"sync"

	"github.com/switchboardhub/switchboard/wire"
)

const (
	smallChunk = 4 << 10
	largeChunk = 64 << 10
	// copyMax is the longest tail that is copied rather than referenced:
	// below it a copy is cheaper than one more element of a vectored write.
	copyMax = 4 << 10
	// copyMaxBehind is the same for a connection that lags far behind: a frame
	// of a few kilobytes must not pin a whole slab for long, or a limit in
	// bytes would bound little.
	copyMaxBehind = largeChunk / 2
)

// segment is a stretch of bytes to be written: a chunk of whole frames, with
// the head of a large one at its end, or a large frame's tail.
type segment struct {
	b     []byte
	slab  *wire.Slab // holds b when b was read from a connection
	chunk *[]byte    // the pooled chunk that b lies in
}

var (
	smallChunks = sync.Pool{New: func() any { b := make([]byte, 0, smallChunk); return &b }}
	largeChunks = sync.Pool{New: func() any { b := make([]byte, 0, largeChunk); return &b }}
)

// copiesLocked reports whether a tail is copied.
func (o *Outbox) copiesLocked(tail []byte, slab *wire.Slab) bool {
	if len(tail) <= copyMax {
		return true
	}
	return slab != nil && len(tail) <= copyMaxBehind && o.pending > o.cfg.LimitBytes/4
}

// copyLocked appends head and tail, side by side, to the last chunk or to a new
// one.
func (o *Outbox) copyLocked(head, tail []byte) {
	size := len(head) + len(tail)
	if last := o.roomLocked(size); last != nil {
		last.b = append(append(last.b, head...), tail...)
		return
	}
	pool := &smallChunks
	if len(o.queue) > 0 || size > smallChunk { // more than a little waits already
		pool = &largeChunks
		o.cfg.Gauge.add(largeChunk)
	}
	chunk, _ := pool.Get().(*[]byte)
	o.queue = append(o.queue, segment{b: append(append((*chunk)[:0], head...), tail...), chunk: chunk})
}

// referLocked queues a frame whose tail stays where it is. Nothing can be appended to the
// head before the tail, so that it takes a small chunk, however much waits.
func (o *Outbox) referLocked(head, tail []byte, slab *wire.Slab) {
	if last := o.roomLocked(len(head)); last != nil {
		last.b = append(last.b, head...)
	} else {
		chunk, _ := smallChunks.Get().(*[]byte)
		o.queue = append(o.queue, segment{b: append((*chunk)[:0], head...), chunk: chunk})
	}
	if slab != nil {
		slab.Retain()
	}
	o.queue = append(o.queue, segment{b: tail, slab: slab})
}

// roomLocked returns the last chunk, nil when there is none or it has no room for size bytes.
func (o *Outbox) roomLocked(size int) *segment {
	if n := len(o.queue); n > 0 {
		if last := &o.queue[n-1]; last.chunk != nil && cap(last.b)-len(last.b) >= size {
			return last
		}
	}
	return nil
}

// recycle gives the segments' memory back.
func (o *Outbox) recycle(segments []segment) {
	for i, s := range segments {
		s.slab.Release()
		switch {
		case s.chunk == nil:
		case cap(*s.chunk) == smallChunk:
			smallChunks.Put(s.chunk)
		default:
			o.cfg.Gauge.add(-largeChunk)
			largeChunks.Put(s.chunk)
		}
		segments[i] = segment{}
	}
}
