package memory

import (
	"context"
	"math"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/internal/garbage"
)

// lookAgain is how often memory is looked at that is not ample while no garbage is
// collected, as in a node that has become quiet.
const lookAgain = time.Second

// Config is what a watch acts by. All fields are required. They are called from Run's
// goroutine, one at a time.
type Config struct {
	// Limit returns how much the process may use, in bytes. 0: there is no limit.
	Limit func() int64
	// Changed is told of each other level, before anybody has to go for it.
	Changed func(Level)
	// Shed lets the slowest clients go until so many bytes that waited for them are free,
	// and returns how many are.
	Shed func(bytes int64) (freed int64)
	// Queued tells what waits for clients: the only memory that can be known to grow
	// while no garbage is collected.
	Queued Gauge
}

// Gauge tells about a part of the memory, and when it reaches a mark.
type Gauge interface {
	Bytes() int64
	SetMark(bytes int64)
	Reached() <-chan struct{}
}

// Watch looks at the memory of the process whenever garbage was collected: how much lives
// is known then, and only then, and the nearer the limit is the more often that happens. What
// waits for clients can grow faster than that: it may by as much as is left, and Watch does not
// wait for the collector when it has.
type Watch struct {
	cfg       Config
	measure   func() usage
	collect   func()
	afterEach func(ctx context.Context, f func()) // collection

	wake  chan struct{} // holds one
	level atomic.Uint32
	used  atomic.Int64
	limit atomic.Int64

	// Of Run's goroutine alone.
	last      usage     // after the last collection that was looked at
	queued    int64     // how much waited for clients then
	fruitless time.Time // when there was nobody left to let go
}

// New returns a watch that does nothing before Run.
func New(cfg Config) *Watch {
	return &Watch{cfg: cfg, measure: use, collect: runtime.GC, afterEach: garbage.AfterEach, wake: make(chan struct{}, 1)}
}

// Level returns how near the process is to its limit.
func (w *Watch) Level() Level { return Level(w.level.Load()) }

// Used returns how many bytes the process used when it was last looked at.
func (w *Watch) Used() int64 { return w.used.Load() }

// Limit returns how many it might use then; 0: there was no limit.
func (w *Watch) Limit() int64 { return w.limit.Load() }

// Wake makes Run look at once, after the limit has changed.
func (w *Watch) Wake() {
	select {
	case w.wake <- struct{}{}:
	default: // it will
	}
}

// Run watches until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	collected := make(chan struct{}, 1)
	w.afterEach(ctx, func() {
		select {
		case collected <- struct{}{}:
		default: // Run has not looked yet
		}
	})
	for {
		for w.look() && ctx.Err() == nil {
			continue
		}
		var again <-chan time.Time
		if w.Level() > Ample {
			again = time.After(lookAgain)
		}
		select {
		case <-collected: // by look itself, too: there is nothing new then
		case <-w.wake:
		case <-w.cfg.Queued.Reached():
		case <-again:
			w.collect()
		case <-ctx.Done():
			return nil
		}
	}
}

// look finds out which level it is, and lets clients go when that is Critical. It reports
// whether it did, so that it has to look again at once.
func (w *Watch) look() (relieved bool) {
	limit, now := w.cfg.Limit(), w.Level()
	defer w.markQueued(limit)
	used := w.sample()
	next := now.next(used, limit)
	to := int64(tightTo) // it grows fast: as many go that there is time to look
	if next == Critical && now.next(w.last.bytes, limit) == Critical && !w.resting() {
		to = criticalTo
		w.settle(limit)
		used = w.sample()
		next = now.next(used, limit)
	}
	w.set(next, used, limit)
	if next < Critical || w.resting() {
		return false
	}
	if w.cfg.Shed(excess(used, limit, to)) == 0 {
		w.fruitless = time.Now()
		return false
	}
	return true
}

// resting reports whether there was nobody to let go a short while ago.
func (w *Watch) resting() bool { return time.Since(w.fruitless) < lookAgain }

// settle collects what only seems to live: what was allocated while the collector was at work,
// and what was let go and is in pools, which are emptied in two steps. What waits for clients
// does not grow meanwhile.
func (w *Watch) settle(limit int64) {
	for range 2 {
		w.collect()
		if grown := w.grown(); grown > limit/100 {
			w.set(Critical, w.last.bytes+grown, limit)
			w.cfg.Shed(grown)
		}
	}
}

// sample returns how much is used: what was after the last collection, and what more waits
// for clients since then.
func (w *Watch) sample() int64 {
	before := w.last.collection
	if w.last = w.measure(); w.last.collection != before {
		w.queued = w.cfg.Queued.Bytes()
	}
	return w.last.bytes + max(w.grown(), 0)
}

// grown returns by how much more waits for clients than after the last collection.
func (w *Watch) grown() int64 { return w.cfg.Queued.Bytes() - w.queued }

// markQueued sets how much may wait for clients before a collection.
func (w *Watch) markQueued(limit int64) {
	mark := int64(math.MaxInt64)
	if limit > 0 {
		mark = w.queued + max(limit/100*criticalFrom-w.last.bytes, 0)
	}
	w.cfg.Queued.SetMark(mark)
}

func (w *Watch) set(l Level, used, limit int64) {
	w.used.Store(used)
	w.limit.Store(limit)
	if Level(w.level.Swap(uint32(l))) != l {
		w.cfg.Changed(l)
	}
}
