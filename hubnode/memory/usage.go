package memory

import (
	"bytes"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"sync"
)

// reserve is the part of a container's memory that is not the runtime's to use: buffers of
// sockets count as well.
const reserve = 10 // percent

// Limit returns how much the process may use, in bytes: what is configured, unless that is 0,
// and no more than the limit of the Go runtime, GOMEMLIMIT. 0: there is no limit.
func Limit(configured int64) int64 {
	limit := debug.SetMemoryLimit(-1)
	if configured > 0 {
		limit = min(limit, configured)
	}
	if limit == math.MaxInt64 {
		return 0
	}
	return limit
}

// Bound makes the Go runtime collect garbage harder before the process uses more than it
// may: what is configured, unless that is 0; GOMEMLIMIT; or without that, where the process
// runs in a container, nine tenths of the container's memory. The least of them counts.
func Bound(configured int64) {
	limit := outer()
	if configured > 0 {
		limit = min(limit, configured)
	}
	debug.SetMemoryLimit(limit)
}

// outer returns the limit that the process was started with.
var outer = sync.OnceValue(func() int64 {
	limit := debug.SetMemoryLimit(-1)
	if limit == math.MaxInt64 {
		limit = ofContainer("/sys/fs/cgroup/memory.max")
	}
	return limit
})

// ofContainer returns what the Go runtime may use of the memory of the process's container,
// whose limit is in a file (cgroup v2). One that is not there, or says "max", is no limit.
func ofContainer(file string) int64 {
	text, err := os.ReadFile(file) //nolint:gosec // the one name above, and those of tests
	if err != nil {
		return math.MaxInt64
	}
	size, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
	if err != nil || size <= 0 {
		return math.MaxInt64
	}
	return size / 100 * (100 - reserve)
}

// usage is what a process used when a collection ended.
type usage struct {
	bytes      int64
	collection uint64 // its number
}

// use is the process's: what lives on the heap, and all that the runtime holds beside the heap.
func use() usage {
	sample := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/gc/cycles/total:gc-cycles"},
	}
	metrics.Read(sample)
	at := func(i int) int64 { return int64(sample[i].Value.Uint64()) }
	return usage{bytes: at(0) + at(1) - at(2) - at(3) - at(4) - at(5), collection: sample[6].Value.Uint64()}
}
