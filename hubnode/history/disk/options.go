package disk

import (
	"cmp"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	defaultCacheBytes = 32 << 20
	memtableBytes     = 16 << 20 // of memory, up to memtables times
	memtables         = 4        // appends wait when there are as many to be written
	blockBytes        = 32 << 10 // holds a few of the runs of a busy topic
	tableBytes        = 16 << 20 // of the level next to memory; doubles with each further one
	baseBytes         = 64 << 20 // of the first level that is not the last: see apart
)

// Runs of apartBytes and more lie apart from their keys, in files that compactions
// leave as they are: each is written once, where it was twice and more before.
// Retention takes a file when nothing refers to it any more; one that has come to be
// garbage by a quarter is written anew. A table refers to up to apartFiles of them.
//
// Pebble does not count what lies apart when it decides which deletions to apply
// first. With a base level of 256 MiB a topic that kept 200 MiB took up to 2.1 GiB
// of disk; with baseBytes 0.7 GiB, and 1.3 GiB when nothing lay apart.
const (
	apartBytes   = 1 << 10
	apartFiles   = 32
	apartGarbage = 0.25
	apartAge     = 5 * time.Second // before it is written anew
)

func pebbleOptions(o Options, h *health) *pebble.Options {
	fs := o.FS
	if fs == nil {
		fs = vfs.Default
	}
	p := &pebble.Options{
		FS:                 &guardFS{FS: fs, health: h, beforeFlush: o.BeforeFlush},
		CacheSize:          cmp.Or(o.CacheBytes, defaultCacheBytes) + memtables*memtableBytes, // pebble takes the memtables from it
		DisableWAL:         true,
		FormatMajorVersion: pebble.FormatValueSeparation,
		Logger:             logger{h.log},
		EventListener: &pebble.EventListener{
			BackgroundError: h.background,
			DataCorruption:  h.corrupted,
			FlushEnd:        func(i pebble.FlushInfo) { h.flushed(i.Err) },
			CompactionEnd:   func(i pebble.CompactionInfo) { h.compacted(i.Err) },
		},
		MemTableSize:                memtableBytes,
		MemTableStopWritesThreshold: 4 * memtables, // DB.room sees to it before
		L0StopWritesThreshold:       64,            // a reader looks into each; above, appends wait
		L0CompactionThreshold:       4,
		LBaseMaxBytes:               baseBytes,
		BytesPerSync:                1 << 20,
		FlushDelayDeleteRange:       5 * time.Second, // what was deleted frees the disk when nothing is appended too
	}
	p.Experimental.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{
			Enabled: true, MinimumSize: apartBytes, MaxBlobReferenceDepth: apartFiles,
			TargetGarbageRatio: apartGarbage, RewriteMinimumAge: apartAge,
		}
	}
	for i := range p.Levels {
		p.Levels[i].BlockSize = blockBytes
	}
	size := int64(tableBytes)
	for i := range p.TargetFileSizes {
		p.TargetFileSizes[i] = size
		if i > 0 {
			size = min(2*size, 128<<20)
		}
	}
	// The fastest compression made reading take up to twice as long and appending
	// no faster, on a disk of 400 MB/s; and artifacts may be compressed already.
	p.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	if o.tune != nil {
		o.tune(p)
	}
	return p
}
