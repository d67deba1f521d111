package disk

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Stats are what an operator wants to know of a [DB], in bytes unless said
// otherwise.
type Stats struct {
	DiskBytes           uint64 // space used on disk
	MemtableBytes       uint64 // memory used for what was not written to disk yet, and room for it
	CompactionDebtBytes uint64 // to be rewritten before reading is as fast as it gets
	CacheHits           int64  // blocks found in memory, since Open
	CacheMisses         int64  // blocks read from disk, since Open
	ReadAmplification   int    // places that a reader looks into
	Err                 error  // why nothing can be appended now; nil when it can
}

// Stats returns the state of the database: that of the last call, but for Err,
// while pebble waits for room on the disk, as it can't be asked then.
func (db *DB) Stats() Stats {
	db.statsMu.Lock()
	defer db.statsMu.Unlock()
	if !db.health.waitsForRoom() {
		m := db.pebble.Metrics()
		db.stats = Stats{
			DiskBytes:           m.DiskSpaceUsage(),
			MemtableBytes:       m.MemTable.Size,
			CompactionDebtBytes: m.Compact.EstimatedDebt,
			CacheHits:           m.BlockCache.Hits,
			CacheMisses:         m.BlockCache.Misses,
			ReadAmplification:   m.ReadAmp(),
		}
	}
	s := db.stats
	s.Err = db.health.refusal()
	return s
}

// DiskBytes returns the space used on disk.
func (db *DB) DiskBytes() uint64 { return db.Stats().DiskBytes }

// Usage returns how many bytes are free for this process on the disk of a directory,
// and how many it has.
func Usage(dir string) (free, total uint64, err error) {
	u, err := vfs.Default.GetDiskUsage(dir)
	if err != nil {
		return 0, 0, fmt.Errorf("look at the disk: %w", err)
	}
	return u.AvailBytes, u.TotalBytes, nil
}
