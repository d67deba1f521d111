// Package garbage bounds the memory that Go's collector leaves to garbage.
//
// By default the collector runs when as much was allocated as lives: a node
// whose histories take 10 GiB grows to 20. Histories in memory are bytes without
// pointers, which the collector does not look through: beside them it can run
// far more often at little cost.
package garbage

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
)

const (
	defaultPercent = 100
	leastPercent   = 15
	room           = 16 << 20 // bytes that may be garbage however little lives
)

// Limit lets this process collect its garbage when that is a sixth of what lives,
// or 16 MiB if this is more, while at least half of what lives is what kept says: bytes
// that are kept. Else it is as much as lives, Go's default. It leaves all as it is if the
// environment has GOGC, for whoever runs the process has decided then. It ends
// with ctx.
func Limit(ctx context.Context, kept func() int64) {
	if _, decided := os.LookupEnv("GOGC"); !decided {
		follow(ctx, kept, defaultPercent)
	}
}

// follow sets the limit anew after each collection.
func follow(ctx context.Context, kept func() int64, have int) {
	AfterEach(ctx, func() {
		if want := percent(live(), kept()); want != have {
			debug.SetGCPercent(want)
			have = want
		}
	})
}

// percent is what may be garbage, of a live heap of so many bytes.
func percent(live, kept int64) int {
	if kept < live/2 || live < room {
		return defaultPercent
	}
	return int(max(room*100/live, leastPercent))
}

// live returns how many bytes the last collection left.
func live() int64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}
