package outbox_test

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/outbox"
	"github.com/switchboardhub/switchboard/wire"
)

func BenchmarkPushAndWrite(b *testing.B) {
	for _, size := range []int{64, 1 << 10, 16 << 10} {
		for _, burst := range []int{1, 64} {
			b.Run(fmt.Sprintf("size=%d/burst=%d", size, burst), func(b *testing.B) {
				f := live(1, size)
				o := outbox.New(io.Discard, outbox.Config{LimitBytes: 1 << 30})
				b.SetBytes(int64(len(f) * burst))
				b.ReportAllocs()
				for b.Loop() {
					for range burst {
						push(o, f)
					}
					o.Flush()
				}
				o.Drain(context.Background())
				o.Close()
				o.Wait()
			})
		}
	}
}

// BenchmarkConflate pushes to a connection that takes nothing: what a slow
// client costs whoever publishes to it, on average and at worst.
func BenchmarkConflate(b *testing.B) {
	for _, keys := range []int{1000, 1 << 30} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			o := outbox.New(io.Discard, outbox.Config{LimitBytes: 16 << 20})
			b.ReportAllocs()
			var worst time.Duration
			for i := 0; b.Loop(); i++ {
				f := published(1, "t", fmt.Sprintf("k%d=%0128d", i%keys, i))
				begun := time.Now()
				if push(o, f) == outbox.Full {
					o.PushConflated(f[:wire.HeaderSize], f[wire.HeaderSize:], conflateKey)
				}
				worst = max(worst, time.Since(begun))
			}
			b.ReportMetric(float64(worst.Microseconds()), "worst-µs/op")
			o.Close()
			o.Wait()
		})
	}
}

// BenchmarkIdle reports what an outbox holds once it has written something and
// has nothing more to say.
func BenchmarkIdle(b *testing.B) {
	const boxes = 10_000
	f := live(1, 100)
	var held uint64
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		all := make([]*outbox.Outbox, boxes)
		for i := range all {
			all[i] = outbox.New(io.Discard, outbox.Config{LimitBytes: 1 << 20})
			push(all[i], f)
			all[i].Flush()
		}
		for _, o := range all {
			o.Drain(context.Background())
		}
		runtime.GC()
		runtime.GC() // pools give up what they hold in two steps
		runtime.ReadMemStats(&after)
		held = (after.HeapAlloc - before.HeapAlloc) / boxes
		runtime.KeepAlive(all)
	}
	b.ReportMetric(float64(held), "B/outbox")
}

func TestPushingSmallFramesAllocatesNothing(t *testing.T) {
	f := live(1, 100)
	o := outbox.New(io.Discard, outbox.Config{LimitBytes: 1 << 20})
	step := func() {
		o.Push(f[:wire.HeaderSize], f[wire.HeaderSize:], nil)
		o.Flush()
		for o.Pending() > 0 {
			runtime.Gosched()
		}
	}
	for range 100 {
		step()
	}
	if allocs := testing.AllocsPerRun(1000, step); allocs >= 1 { // a pool may be emptied meanwhile
		t.Errorf("%v allocations for each frame, want 0", allocs)
	}
	o.Close()
	o.Wait()
}
