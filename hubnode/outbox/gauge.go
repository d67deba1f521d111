package outbox

import (
	"math"
	"sync/atomic"
)

// Gauge tells about how much memory what waits takes, in all outboxes that share it: it counts
// large chunks, and so only those outboxes in which more than a little waits. What is kept by
// reference is not theirs alone and does not count. It costs a busy outbox two additions for each
// chunk of 64 KiB.
type Gauge struct {
	bytes, mark atomic.Int64
	reached     chan struct{} // holds one
}

// NewGauge returns a gauge without a mark.
func NewGauge() *Gauge {
	g := &Gauge{reached: make(chan struct{}, 1)}
	g.mark.Store(math.MaxInt64)
	return g
}

// Bytes returns how many bytes of memory that is.
func (g *Gauge) Bytes() int64 { return g.bytes.Load() }

// SetMark sets what Reached is for.
func (g *Gauge) SetMark(bytes int64) { g.mark.Store(bytes) }

// Reached receives when the mark is reached, or was.
func (g *Gauge) Reached() <-chan struct{} { return g.reached }

// add counts bytes more. A nil gauge counts nothing.
func (g *Gauge) add(bytes int) {
	if g == nil || g.bytes.Add(int64(bytes)) < g.mark.Load() || bytes < 0 {
		return
	}
	select {
	case g.reached <- struct{}{}:
	default: // it is told already
	}
}
