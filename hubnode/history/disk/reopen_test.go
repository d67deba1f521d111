package disk

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/history/storetest"
	"github.com/switchboardhub/switchboard/wire"
)

// content is all that can be seen of a store.
type content map[string]seen

type seen struct {
	Bounds history.Bounds
	Runs   []history.Run
}

func contentOf(tb testing.TB, s history.Store) content {
	tb.Helper()
	c := make(content)
	if err := s.Topics(func(topic string, b history.Bounds) bool {
		runs, _ := storetest.Read(tb, s, topic, 0, 1<<30)
		c[topic] = seen{Bounds: b, Runs: runs}
		return true
	}); err != nil {
		tb.Fatal(err)
	}
	return c
}

// reopen opens what a database flushed, as another process would.
func reopen(tb testing.TB, fs vfs.FS, use func(*DB)) {
	tb.Helper()
	db, err := Open("db", Options{FS: fs})
	if err != nil {
		tb.Fatal(err)
	}
	use(db)
	if err := db.Close(); err != nil {
		tb.Fatal(err)
	}
}

func TestWhatWasFlushedIsThereAfterOpen(t *testing.T) {
	fs := vfs.NewMem()
	rnd := rand.New(rand.NewPCG(1, 1))
	want := make(map[uint32]content)
	for round := range 5 {
		reopen(t, fs, func(db *DB) {
			for shard := range uint32(3) {
				s := db.Shard(shard)
				if diff := cmp.Diff(want[shard], contentOf(t, s)); round > 0 && diff != "" {
					t.Errorf("round %d, shard %d (-before +after):\n%s", round, shard, diff)
				}
				for i := range 300 {
					topic := fmt.Sprint("topic ", rnd.IntN(5+round))
					limits := history.Limits{MaxArtifacts: 50 * rnd.IntN(2+len(topic)%2), MaxBytes: 5000}
					b, _, _ := s.Bounds(topic)
					err := s.Append(after(300*round+i), topic, limits, history.Run{
						First: b.Next, Count: 1 + rnd.IntN(3), From: "p", Body: make([]byte, rnd.IntN(300)),
					})
					if err != nil {
						t.Fatal(err)
					}
				}
				b, _, _ := s.Bounds("topic 1")
				if err := s.Purge("topic 1", b.First+wire.Sequence(rnd.IntN(20))); err != nil {
					t.Fatal(err)
				}
				want[shard] = contentOf(t, s)
			}
			if err := db.Flush(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestDropTakesOneShard(t *testing.T) {
	fs := vfs.NewMem()
	var want content
	reopen(t, fs, func(db *DB) {
		for _, id := range []uint32{0, 1, 255, 256, 1<<32 - 1} {
			if err := db.Shard(id).Append(start, "a", roomy, history.Run{First: 1, Count: 1, Body: []byte("body")}); err != nil {
				t.Fatal(err)
			}
		}
		want = contentOf(t, db.Shard(0))
		for _, id := range []uint32{255, 1<<32 - 1} {
			if err := db.Drop(id); err != nil {
				t.Fatal(err)
			}
			if got := contentOf(t, db.Shard(id)); len(got) > 0 {
				t.Errorf("shard %d after Drop: %v", id, got)
			}
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	})
	reopen(t, fs, func(db *DB) {
		for id, kept := range map[uint32]content{0: want, 1: want, 255: {}, 256: want, 1<<32 - 1: {}} {
			if diff := cmp.Diff(kept, contentOf(t, db.Shard(id))); diff != "" {
				t.Errorf("shard %d (-want +got):\n%s", id, diff)
			}
		}
	})
}

func TestFlushOfNothing(t *testing.T) {
	db := openDB(t, vfs.NewMem())
	for range 3 {
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := db.Stats().Err; err != nil {
			t.Error(err)
		}
	}
}
