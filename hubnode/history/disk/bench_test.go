package disk

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// sizes are of bodies: a frame of a busy publisher, and a single artifact.
var sizes = []int{150, 16 << 10}

// text is something like artifacts: it can be compressed to about a half.
func text(size int) []byte {
	rnd := rand.New(rand.NewPCG(1, 1))
	var b []byte
	for len(b) < size {
		b = fmt.Appendf(b, `{"id":%d,"sensor":"s%d","value":%.4f},`, rnd.Uint32(), rnd.IntN(1000), rnd.Float64())
	}
	return b[:size]
}

func benchDB(b *testing.B) *DB {
	b.Helper()
	db, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	return db
}

// BenchmarkAppend fills topics up to their limit of 64 MiB and on.
func BenchmarkAppend(b *testing.B) {
	for _, size := range sizes {
		for _, topics := range []int{1, 100} {
			b.Run(fmt.Sprintf("size=%d/topics=%d", size, topics), func(b *testing.B) {
				s := benchDB(b).Shard(1)
				bodies := text(8 << 20)
				limits := history.Limits{MaxArtifacts: 1 << 30, MaxBytes: 64 << 20}
				names := make([]string, topics)
				for i := range names {
					names[i] = fmt.Sprint("a topic with a name/", i)
				}
				b.SetBytes(int64(size))
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					at := i * size % (len(bodies) - size) // not one that was just written: they would compress too well
					run := history.Run{First: wire.Sequence(i/topics + 1), Count: 1, From: "publisher", Body: bodies[at : at+size]}
					if err := s.Append(start, names[i%topics], limits, run); err != nil {
						b.Fatal(err)
					}
					i++
				}
				if err := s.Flush(); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// BenchmarkAppendSmallTopics appends to topics that keep the newest artifact.
func BenchmarkAppendSmallTopics(b *testing.B) {
	s := benchDB(b).Shard(1)
	body := text(150)
	const topics = 10_000
	names := make([]string, topics)
	for i := range names {
		names[i] = fmt.Sprint("a topic with a name/", i)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		run := history.Run{First: wire.Sequence(i/topics + 1), Count: 1, From: "publisher", Body: body}
		if err := s.Append(start, names[i%topics], history.Limits{MaxArtifacts: 1}, run); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkRead reads a megabyte at a time: what the cache holds, and all of
// 256 MiB.
func BenchmarkRead(b *testing.B) {
	for _, size := range sizes {
		s := benchDB(b).Shard(1)
		bodies := text(8 << 20)
		runs := (256 << 20) / (size + 200)
		for i := range runs {
			at := i * size % (len(bodies) - size)
			if err := s.Append(start, "a", roomy, history.Run{First: wire.Sequence(i + 1), Count: 1, Body: bodies[at : at+size]}); err != nil {
				b.Fatal(err)
			}
		}
		if err := s.Flush(); err != nil {
			b.Fatal(err)
		}
		for name, last := range map[string]int{"cached": runs / 16, "all": runs} {
			b.Run(fmt.Sprintf("size=%d/%s", size, name), func(b *testing.B) {
				b.ReportAllocs()
				read, next := 0, wire.Sequence(1)
				for b.Loop() {
					var err error
					next, err = s.Read("a", next, 1<<20, func(r history.Run) { read += len(r.Body) })
					if err != nil {
						b.Fatal(err)
					}
					if int(next) > last {
						next = 1
					}
				}
				b.SetBytes(int64(read / b.N))
			})
		}
		b.Run(fmt.Sprintf("size=%d/one", size), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := s.Read("a", wire.Sequence(i%(runs/16)+1), 0, func(history.Run) {}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpen opens a database of many topics.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	db, err := Open(dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	body := text(1000)
	for i := range 100_000 {
		for k := range 2 {
			err := db.Shard(uint32(i%64)).Append(start, fmt.Sprint("topic ", i), roomy, history.Run{First: wire.Sequence(k + 1), Count: 1, Body: body})
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := db.Flush(); err != nil {
		b.Fatal(err)
	}
	_ = db.Close()
	for b.Loop() {
		db, err := Open(dir, Options{})
		if err != nil {
			b.Fatal(err)
		}
		_ = db.Close()
	}
}
