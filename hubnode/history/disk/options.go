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
)

func pebbleOptions(o Options, h *health) *pebble.Options {
	fs := o.FS
	if fs == nil {
		fs = vfs.Default
	}
	p := &pebble.Options{
		FS:                 &guardFS{FS: fs, health: h},
		CacheSize:          cmp.Or(o.CacheBytes, defaultCacheBytes) + memtables*memtableBytes, // pebble takes the memtables from it
		DisableWAL:         true,
		FormatMajorVersion: pebble.FormatTableFormatV6,
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
		LBaseMaxBytes:               256 << 20,
		BytesPerSync:                1 << 20,
		FlushDelayDeleteRange:       5 * time.Second, // what was deleted frees the disk when nothing is appended too
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
