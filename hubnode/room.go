package hubnode

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history/disk"
	"github.com/switchboardhub/switchboard/wire"
)

const (
	mib = 1 << 20
	// The last of a disk is for what frees it: the store flushes and compacts, and
	// each shard's log begins its next file. Publishes end before that begins.
	storeReserve = 256 * mib
	shardReserve = 16 * mib
	// reopenMargin keeps publishes from being refused and taken in turns.
	reopenMargin = 64 * mib
	lookInterval = time.Second
	// writtenTimes is how often what is published is written at most, for some time: to the log, to
	// the store, and by its compactions.
	writtenTimes = 4
)

// room watches the disk that history is on, and knows whether it is nearly full.
type room struct {
	dir    string // empty: history is in memory, there is always room
	node   string
	shards int
	usage  func(dir string) (free, total uint64, err error)
	log    *slog.Logger

	refusal atomic.Pointer[wire.Error]
	full    atomic.Pointer[time.Time] // since when; nil while there is room
	free    atomic.Uint64             // bytes, when the disk was last looked at
	size    atomic.Uint64             // bytes
	unseen  atomic.Int64              // bytes that may be stored before the disk is looked at again

	mu sync.Mutex // held while the disk is looked at
}

func newRoom(dir, node string, shards int, log *slog.Logger) *room {
	return &room{dir: dir, node: node, shards: shards, usage: disk.Usage, log: log}
}

// take returns why nothing can be published to topics with history, nil when as
// many bytes can.
func (r *room) take(bytes int) error {
	if r.dir == "" {
		return nil
	}
	if r.unseen.Add(-int64(bytes)) < 0 && r.mu.TryLock() { // faster than the watch
		r.lookLocked()
		r.mu.Unlock()
	}
	if err := r.refusal.Load(); err != nil {
		return err
	}
	return nil
}

// watch looks at the disk until ctx ends.
func (r *room) watch(ctx context.Context) {
	if r.dir == "" {
		return
	}
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		r.look()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// reserve returns how much of a disk is left to what frees it.
func (r *room) reserve(total uint64) uint64 {
	return max(storeReserve, min(total/4, storeReserve+uint64(r.shards)*shardReserve))
}

// reserved is reserve for the disk as it was last looked at; 0 before that, and without one.
func (r *room) reserved() uint64 {
	total := r.size.Load()
	if total == 0 {
		return 0
	}
	return r.reserve(total)
}

func (r *room) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lookLocked()
}

func (r *room) lookLocked() {
	free, total, err := r.usage(r.dir)
	if err != nil {
		r.log.Warn("free space of the disk for history not known", slog.String("dir", r.dir), slog.Any("error", err))
		return
	}
	r.free.Store(free)
	r.size.Store(total)
	reserve := r.reserve(total)
	if free > reserve {
		r.unseen.Store(int64(free-reserve) / writtenTimes)
	}
	full := r.refusal.Load() != nil
	switch {
	case !full && free < reserve:
		r.log.Error("the disk for history is nearly full: publishes to topics that this node leads are refused",
			slog.String("dir", r.dir), slog.Uint64("free_bytes", free), slog.Uint64("reserve_bytes", reserve))
		now := time.Now()
		r.full.Store(&now)
	case full && free >= reserve+reopenMargin:
		r.log.Info("the disk for history has room again", slog.String("dir", r.dir), slog.Uint64("free_bytes", free))
		r.refusal.Store(nil)
		r.full.Store(nil)
		return
	case !full:
		return
	}
	r.refusal.Store(&wire.Error{Code: wire.CodeStorageFull, Detail: fmt.Sprintf(
		"node %s has %d MiB left of %d MiB for history and keeps %d MiB free: nothing is stored until topics keep less or the volume is larger",
		r.node, free/mib, total/mib, reserve/mib)})
}
