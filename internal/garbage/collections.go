package garbage

import (
	"context"
	"runtime"
)

// AfterEach calls f after each collection, until ctx ends. It runs on the goroutine of all
// cleanups of the process: it must not block. Of collections that follow each other closely
// it may be called for the last one alone.
func AfterEach(ctx context.Context, f func()) {
	type unreachable struct{ _ [16]byte } // smaller ones may share a block with what is reachable
	// The cleanup of what nothing points to runs once, after a collection.
	runtime.AddCleanup(new(unreachable), func(f func()) {
		if ctx.Err() != nil {
			return
		}
		f()
		AfterEach(ctx, f)
	}, f)
}
