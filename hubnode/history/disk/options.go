package disk

import (
	"cmp"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	defaultCacheBytes = 32 << 20
	memtableBytes     = 32 << 20 // of memory, up to memtables times
	memtables         = 4
	blockBytes        = 32 << 10 // holds a few of the runs of a busy topic
	tableBytes        = 16 << 20 // of the level next to memory; doubles with each further one
)

func pebbleOptions(o Options, h *health) *pebble.Options {
	fs := o.FS
	if fs == nil {
		fs = vfs.Default
	}
	log := logger{h.log}
	p := &pebble.Options{
		FS:                 &guardFS{FS: fs, health: h},
		CacheSize:          cmp.Or(o.CacheBytes, defaultCacheBytes),
		DisableWAL:         true,
		FormatMajorVersion: pebble.FormatTableFormatV6,
		Logger:             log,
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { log.Errorf("background error: %v", err) },
			DataCorruption:  func(i pebble.DataCorruptionInfo) { log.Errorf("corrupt file: %v", i) },
			FlushEnd:        func(i pebble.FlushInfo) { h.flushed(i.Err) },
		},
		MemTableSize:                memtableBytes,
		MemTableStopWritesThreshold: memtables,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       64, // a reader looks into each; rather slow readers than stalls
		LBaseMaxBytes:               256 << 20,
		BytesPerSync:                1 << 20,
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
	p.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	return p
}
