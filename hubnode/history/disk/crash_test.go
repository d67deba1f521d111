package disk

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// appended is one append of a test that knows them all, in order.
type appended struct {
	shard uint32
	topic string
	next  wire.Sequence // after it
}

func TestCrashLeavesWhatWasThereAtAMoment(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			fs := vfs.NewCrashableMem()
			db, err := Open("db", Options{FS: fs, tune: func(o *pebble.Options) {
				o.MemTableSize = 64 << 10 // flushes happen by themselves too
				o.MemTableStopWritesThreshold = 1 << 10
			}})
			if err != nil {
				t.Fatal(err)
			}
			var log []appended
			flushed := 0
			limits := history.Limits{MaxArtifacts: 20 + rnd.IntN(200), MaxBytes: 30_000}
			crashAt := 1 + rnd.IntN(3000)
			for i := range crashAt {
				a := appended{shard: uint32(rnd.IntN(3)), topic: fmt.Sprint("topic ", rnd.IntN(4))}
				s := db.Shard(a.shard)
				b, _, _ := s.Bounds(a.topic)
				run := history.Run{First: b.Next, Count: 1 + rnd.IntN(3), Body: bytes.Repeat([]byte{byte(b.Next)}, 1+rnd.IntN(400))}
				if err := s.Append(after(i), a.topic, limits, run); err != nil {
					t.Fatal(err)
				}
				a.next = run.First + wire.Sequence(run.Count)
				log = append(log, a)
				if rnd.IntN(1500) == 0 {
					if err := db.Flush(); err != nil {
						t.Fatal(err)
					}
					flushed = len(log)
				}
			}
			crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rnd.IntN(101), RNG: rnd})
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			reopen(t, crashed, func(db *DB) { checkPrefix(t, db, log, flushed) })
		})
	}
}

// checkPrefix checks that a database holds a prefix of a log, and all that it
// says it holds.
func checkPrefix(t *testing.T, db *DB, log []appended, flushed int) {
	t.Helper()
	there := func(a appended) bool {
		b, _, err := db.Shard(a.shard).Bounds(a.topic)
		if err != nil {
			t.Fatal(err)
		}
		return b.Next >= a.next
	}
	n := 0
	for n < len(log) && there(log[n]) {
		n++
	}
	if n < flushed {
		t.Errorf("%d appends are left, %d were flushed", n, flushed)
	}
	for i, a := range log[n:] {
		if there(a) {
			t.Fatalf("append %d is there, %d is not", n+i, n)
		}
	}
	t.Logf("%d of %d appends are left, %d were flushed", n, len(log), flushed)
	for shard := range uint32(3) {
		for topic, c := range contentOf(t, db.Shard(shard)) {
			next := c.Bounds.First
			for _, r := range c.Runs {
				if r.First > next || !bytes.Equal(r.Body, bytes.Repeat([]byte{byte(r.First)}, len(r.Body))) {
					t.Errorf("shard %d, %q: wrong run at %d, next is %d", shard, topic, r.First, next)
				}
				next = r.First + wire.Sequence(r.Count)
			}
			if next != c.Bounds.Next {
				t.Errorf("shard %d, %q: read up to %d of %d", shard, topic, next, c.Bounds.Next)
			}
		}
	}
}
