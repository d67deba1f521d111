package memory

import (
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"
)

const mib = 1 << 20

// withRuntimeLimit sets GOMEMLIMIT for the time of a test.
func withRuntimeLimit(t *testing.T, limit int64) {
	t.Helper()
	was := debug.SetMemoryLimit(limit)
	t.Cleanup(func() { debug.SetMemoryLimit(was) })
}

func TestLimitIsTheLowerOne(t *testing.T) {
	for name, test := range map[string]struct{ runtime, configured, want int64 }{
		"neither":                 {math.MaxInt64, 0, 0},
		"configured":              {math.MaxInt64, 512 * mib, 512 * mib},
		"of the runtime":          {900 * mib, 0, 900 * mib},
		"configured below":        {900 * mib, 512 * mib, 512 * mib},
		"configured above it":     {900 * mib, 2000 * mib, 900 * mib},
		"both without difference": {900 * mib, 900 * mib, 900 * mib},
	} {
		t.Run(name, func(t *testing.T) {
			withRuntimeLimit(t, test.runtime)
			if got := Limit(test.configured); got != test.want {
				t.Errorf("Limit = %d, want %d", got, test.want)
			}
		})
	}
}

func TestBoundTellsTheRuntime(t *testing.T) {
	withRuntimeLimit(t, debug.SetMemoryLimit(-1))
	started := outer()
	for _, step := range []struct{ configured, want int64 }{
		{900 * mib, min(900*mib, started)}, {1200 * mib, min(1200*mib, started)}, {0, started},
	} {
		Bound(step.configured)
		if got := debug.SetMemoryLimit(-1); got != step.want {
			t.Errorf("Bound(%d): the limit of the runtime is %d, want %d", step.configured, got, step.want)
		}
	}
}

func TestLimitOfTheContainer(t *testing.T) {
	for text, want := range map[string]int64{
		"1000000\n": 900_000, "max\n": math.MaxInt64, "": math.MaxInt64, "0\n": math.MaxInt64, "-1": math.MaxInt64, "99999999999999999999": math.MaxInt64,
	} {
		file := filepath.Join(t.TempDir(), "memory.max")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := ofContainer(file); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	if got := ofContainer(filepath.Join(t.TempDir(), "none")); got != math.MaxInt64 {
		t.Errorf("without a file: %d", got)
	}
}

// What lives counts, once. Garbage does not, though the runtime may hold on to its memory.
func TestUseIsWhatLives(t *testing.T) {
	runtime.GC()
	before := use()
	heap := make([]byte, 256*mib)
	runtime.GC()
	with := use()
	if grown := with.bytes - before.bytes; grown < 250*mib || grown > 300*mib {
		t.Errorf("256 MiB more count as %d MiB", grown/mib)
	}
	if with.collection == before.collection {
		t.Error("a collection has no number of its own")
	}
	runtime.KeepAlive(heap)
	runtime.GC()
	if left := use().bytes - before.bytes; left > 50*mib {
		t.Errorf("%d MiB count of what is garbage", left/mib)
	}
}
