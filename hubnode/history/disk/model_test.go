package disk

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/history/storetest"
	"github.com/switchboardhub/switchboard/wire"
)

func TestStoreHoldsWhatMemoryDoes(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			p := &pair{rnd: rand.New(rand.NewPCG(seed, 1)), fs: vfs.NewMem(), memory: history.NewMemory(), now: start}
			p.limits = make(map[string]history.Limits)
			for range 4 {
				reopen(t, p.fs, func(db *DB) {
					p.disk = db.Shard(3)
					for range 200 {
						p.step(t)
					}
					if err := db.Flush(); err != nil {
						t.Fatal(err)
					}
				})
			}
		})
	}
}

// pair is a store on disk beside one in memory that is done the same to.
type pair struct {
	rnd    *rand.Rand
	fs     vfs.FS
	disk   *Store
	memory *history.Memory
	limits map[string]history.Limits
	now    time.Time
}

func (p *pair) randomLimits() history.Limits {
	l := history.Limits{MaxArtifacts: p.rnd.IntN(200)}
	if p.rnd.IntN(2) == 0 {
		l.MaxBytes = 1 + p.rnd.Int64N(20_000)
	}
	if p.rnd.IntN(2) == 0 {
		l.MaxAge = time.Duration(1+p.rnd.IntN(100)) * time.Second
	}
	return l
}

func (p *pair) step(t *testing.T) {
	t.Helper()
	topic := fmt.Sprint("topic ", p.rnd.IntN(3))
	if _, ok := p.limits[topic]; !ok {
		p.limits[topic] = p.randomLimits()
	}
	p.now = p.now.Add(time.Duration(p.rnd.IntN(3000)-500) * time.Millisecond)
	b, _, _ := p.memory.Bounds(topic)
	do := func(f func(history.Store) error) {
		t.Helper()
		for _, s := range []history.Store{p.disk, p.memory} {
			if err := f(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	retained := false
	switch p.rnd.IntN(40) {
	case 0:
		do(history.Store.Clear)
	case 1, 2:
		before := b.First + wire.Sequence(p.rnd.IntN(40))
		do(func(s history.Store) error { return s.Purge(topic, before) })
	case 3, 4:
		p.limits[topic] = p.randomLimits()
		retained = true
		do(func(s history.Store) error {
			return s.Retain(p.now, func(topic string) history.Limits { return p.limits[topic] })
		})
	default:
		changed := p.rnd.IntN(30) == 0
		if changed {
			p.limits[topic] = p.randomLimits()
		}
		run := history.Run{
			First: b.Next, Count: 1 + p.rnd.IntN(5), From: fmt.Sprint("client ", p.rnd.IntN(3)),
			Body: bytes.Repeat([]byte{byte(p.rnd.Uint32())}, p.rnd.IntN(500)),
		}
		if p.rnd.IntN(10) == 0 && !changed { // again
			run.First -= min(run.First-1, wire.Sequence(run.Count))
		}
		do(func(s history.Store) error { return s.Append(p.now, topic, p.limits[topic], run) })
	}
	p.check(t, topic, retained)
}

// check compares what both hold of a topic. On disk there may be more at the
// front, within the slack; a higher limit may bring it back.
func (p *pair) check(t *testing.T, topic string, retained bool) {
	t.Helper()
	want, wantOK, _ := p.memory.Bounds(topic)
	got, ok, err := p.disk.Bounds(topic)
	if err != nil || ok != wantOK || got.Next != want.Next || got.First > want.First {
		t.Fatalf("bounds %+v, %v, %v; want %+v, %v", got, ok, err, want, wantOK)
	}
	if limit := p.limits[topic]; got.Artifacts > limit.MaxArtifacts && ok {
		t.Fatalf("%d artifacts can be read, the limit is %d", got.Artifacts, limit.MaxArtifacts)
	}
	if limit := p.limits[topic].MaxBytes; retained && limit > 0 && got.Bytes > max(limit, want.Bytes) {
		t.Fatalf("%d bytes are held, the limit is %d", got.Bytes, limit)
	}
	from := want.First + wire.Sequence(p.rnd.IntN(want.Artifacts+5))
	size := p.rnd.IntN(10_000)
	wantRuns, wantNext := storetest.Read(t, p.memory, topic, from, size)
	runs, next := storetest.Read(t, p.disk, topic, from, size)
	if !slices.EqualFunc(wantRuns, runs, sameRun) || next != wantNext {
		t.Fatalf("Read(%d, %d) = next %d, want %d, runs (-want +got):\n%s", from, size, next, wantNext, cmp.Diff(wantRuns, runs))
	}
	at := want.Oldest.Add(time.Duration(1+p.rnd.IntN(200_000)) * time.Millisecond)
	if want.Artifacts > 0 {
		wantAt, _ := p.memory.SequenceAt(topic, at)
		if gotAt, err := p.disk.SequenceAt(topic, at); gotAt != wantAt || err != nil {
			t.Fatalf("SequenceAt %v = %d, %v, want %d", at, gotAt, err, wantAt)
		}
	}
}

func sameRun(a, b history.Run) bool {
	return a.First == b.First && a.Count == b.Count && a.From == b.From && a.Time.Equal(b.Time) && bytes.Equal(a.Body, b.Body)
}

func TestSlackIsASixteenth(t *testing.T) {
	s := openDB(t, vfs.NewMem()).Shard(1)
	limits := history.Limits{MaxArtifacts: 1 << 30, MaxBytes: 1600 * 100}
	most := int64(0)
	for i := range 5000 {
		err := s.Append(after(i), "a", limits, history.Run{First: wire.Sequence(i + 1), Count: 1, Body: make([]byte, 100)})
		if err != nil {
			t.Fatal(err)
		}
		b, _, _ := s.Bounds("a")
		most = max(most, b.Bytes)
		if i > 1600 && b.Bytes < limits.MaxBytes {
			t.Fatalf("%d bytes are left of %d", b.Bytes, limits.MaxBytes)
		}
	}
	if want := limits.MaxBytes * 17 / 16; most != want {
		t.Errorf("held %d bytes at most, want %d", most, want)
	}
}
