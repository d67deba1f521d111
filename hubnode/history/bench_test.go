package history

import (
	"fmt"
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/switchboardhub/switchboard/wire"
)

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

const size = 128 // bytes of an artifact

// fill appends artifacts in runs of count each.
func fill(l *Log, artifacts, count int) {
	body := make([]byte, size*count)
	for i := range artifacts / count {
		l.Append(start.Add(time.Duration(i)), "publisher", count, body)
	}
}

func TestMemoryIsLittleMoreThanTheBytes(t *testing.T) {
	const artifacts = 200_000
	for _, count := range []int{1, 10, 100} {
		t.Run(fmt.Sprintf("in runs of %d", count), func(t *testing.T) {
			before := heap()
			l := NewLog(Limits{MaxArtifacts: artifacts}, 1)
			fill(l, 3*artifacts, count) // most of it aged out: its slabs must be gone
			ratio := float64(heap()-before) / (artifacts * size)
			if ratio > 1.3 {
				t.Errorf("%.2f bytes of memory for each byte of history, want at most 1.3", ratio)
			}
			runtime.KeepAlive(l)
		})
	}
}

func TestASlowReaderPinsOneSlabOnly(t *testing.T) {
	l := NewLog(Limits{MaxArtifacts: 20_000}, 1)
	fill(l, 20_000, 1)
	var held []byte
	l.Read(l.Bounds().First, 1, func(r Run) { held = r.Body })
	front, second := weak.Make(&l.slabs[0].data[0]), weak.Make(&l.slabs[1].data[0])
	fill(l, 20_000, 1)
	runtime.GC()
	if front.Value() == nil {
		t.Error("the slab of a body that is still held is gone")
	}
	if second.Value() != nil {
		t.Error("a slab that nobody reads outlives its retention")
	}
	runtime.KeepAlive(held)
}

func BenchmarkMemory(b *testing.B) {
	const artifacts = 1_000_000
	for _, count := range []int{1, 32} {
		b.Run(fmt.Sprintf("run=%d", count), func(b *testing.B) {
			for b.Loop() {
				before := heap()
				l := NewLog(Limits{MaxArtifacts: artifacts}, 1)
				fill(l, artifacts, count)
				b.ReportMetric(float64(heap()-before)/(artifacts*size), "B/byte")
				runtime.KeepAlive(l)
			}
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, count := range []int{1, 32} {
		b.Run(fmt.Sprintf("run=%d", count), func(b *testing.B) {
			body := make([]byte, 128*count)
			l := NewLog(Limits{MaxArtifacts: 100_000, MaxBytes: 64 << 20, MaxAge: time.Hour}, 1)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				l.Append(start, "publisher", count, body)
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	const artifacts, size = 100_000, 128
	for _, count := range []int{1, 32} {
		b.Run(fmt.Sprintf("run=%d", count), func(b *testing.B) {
			l := NewLog(Limits{MaxArtifacts: artifacts}, 1)
			fill(l, artifacts, count)
			bounds := l.Bounds()
			b.SetBytes(bounds.Bytes)
			b.ReportAllocs()
			for b.Loop() {
				read := 0
				for next := wire.Sequence(1); next < bounds.Next; {
					next = l.Read(next, 64<<10, func(r Run) { read += len(r.Body) })
				}
				if int64(read) != bounds.Bytes {
					b.Fatalf("read %d bytes, want %d", read, bounds.Bytes)
				}
			}
		})
	}
}
