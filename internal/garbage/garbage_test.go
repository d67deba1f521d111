package garbage

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"testing"
	"time"
)

const mib = 1 << 20

func TestPercent(t *testing.T) {
	for name, c := range map[string]struct {
		live, kept int64
		want       int
	}{
		"nothing lives":         {0, 0, 100},
		"nothing kept":          {100 * mib, 0, 100},
		"little kept":           {100 * mib, 49 * mib, 100},
		"half of it kept":       {100 * mib, 50 * mib, 16},
		"more kept than lived":  {100 * mib, 200 * mib, 16},
		"a small heap":          {15 * mib, 14 * mib, 100},
		"one of twice the room": {32 * mib, 24 * mib, 50},
		"large":                 {1 << 50, 1 << 49, 15},
	} {
		if got := percent(c.live, c.kept); got != c.want {
			t.Errorf("%s: %d %%, want %d", name, got, c.want)
		}
	}
}

// goal returns the size at which the heap is collected next.
func goal() int64 {
	sample := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

func TestLimitFollowsWhatIsKept(t *testing.T) {
	was := debug.SetGCPercent(defaultPercent)
	t.Cleanup(func() { debug.SetGCPercent(was) })
	var kept atomic.Int64
	follow(t.Context(), kept.Load, defaultPercent)
	heap := make([]byte, 128*mib)
	await := func(what string, done func() bool) {
		for deadline := time.Now().Add(time.Minute); !done(); runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d bytes live, and are collected at %d", what, live(), goal())
			}
			runtime.GC()
		}
	}
	kept.Store(int64(len(heap)))
	await("what is kept leaves little to garbage", func() bool { return live() > int64(len(heap)) && goal() < live()/4*5 })
	kept.Store(0)
	await("the rest leaves as much again", func() bool { return live() > int64(len(heap)) && goal() > live()/10*19 })
	runtime.KeepAlive(heap)
}

func TestLimitLeavesADecisionAlone(t *testing.T) {
	t.Setenv("GOGC", "70")
	was := debug.SetGCPercent(70)
	t.Cleanup(func() { debug.SetGCPercent(was) })
	heap := make([]byte, 128*mib)
	Limit(t.Context(), func() int64 { return int64(len(heap)) })
	for range 5 {
		runtime.GC()
	}
	runtime.KeepAlive(heap)
	if got := debug.SetGCPercent(70); got != 70 {
		t.Fatalf("%d %%, want the 70 of the environment", got)
	}
}
