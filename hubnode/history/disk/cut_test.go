package disk

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// What was cut off was never appended: also for what is appended later, and after a restart.
func TestCut(t *testing.T) {
	const pairs = 40 // runs of two
	appendPairs := func(s *Store, from, to, later int) {
		for i := from; i < to; i++ {
			if err := s.Append(after(later+i), "a", roomy, history.Run{First: wire.Sequence(2*i + 1), Count: 2, Body: flipBody(i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, test := range []struct {
		purged wire.Sequence
		left   int // pairs
	}{{0, pairs}, {0, 25}, {0, 1}, {0, 0}, {31, 25}, {30, 15}, {41, 15}, {81, 25}} {
		t.Run(fmt.Sprintf("after %d, purged before %d", test.left, test.purged), func(t *testing.T) {
			fs, want := vfs.NewMem(), content{}
			end := wire.Sequence(2*test.left + 1)
			reopen(t, vfs.NewMem(), func(db *DB) {
				s := db.Shard(1)
				appendPairs(s, 0, test.left, 0)
				if err := s.Purge("a", test.purged); err != nil {
					t.Fatal(err)
				}
				appendPairs(s, test.left, test.left+3, pairs)
				want = contentOf(t, s)
			})
			reopen(t, fs, func(db *DB) {
				s := db.Shard(1)
				appendPairs(s, 0, pairs, 0)
				if err := s.Purge("a", test.purged); err != nil {
					t.Fatal(err)
				}
				if err := s.Cut("a", end); err != nil {
					t.Fatal(err)
				}
				if b, _, _ := s.Bounds("a"); b.Next != end {
					t.Errorf("the next sequence is %d, want %d", b.Next, end)
				}
				if err := db.Flush(); err != nil {
					t.Fatal(err)
				}
			})
			reopen(t, fs, func(db *DB) {
				s := db.Shard(1)
				appendPairs(s, test.left, test.left+3, pairs)
				if diff := cmp.Diff(want, contentOf(t, s)); diff != "" {
					t.Errorf("(-never appended +cut)\n%s", diff)
				}
			})
		})
	}
	reopen(t, vfs.NewMem(), func(db *DB) {
		s := db.Shard(1)
		if err := s.Cut("a", 3); err != nil {
			t.Errorf("cut of a topic that is not there: %v", err)
		}
		appendPairs(s, 0, 3, 0)
		if err := s.Cut("a", 4); !errors.Is(err, history.ErrCorrupt) {
			t.Errorf("cut within a run: %v", err)
		}
	})
}

// Before anything survives a crash, what has to go before is told; while that fails nothing does.
func TestNothingIsFlushedBeforeItMayBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewCrashableMem()
		var asked atomic.Int64
		var refusal atomic.Pointer[error]
		no := errors.New("not yet")
		db, err := Open("db", Options{FS: fs, BeforeFlush: func() error {
			asked.Add(1)
			if err := refusal.Load(); err != nil {
				return *err
			}
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		refusal.Store(&no)
		if err := db.Shard(1).Append(start, "a", roomy, history.Run{First: 1, Count: 1, Body: bytes.Repeat([]byte("x"), 2*apartBytes)}); err != nil {
			t.Fatal(err)
		}
		if n := asked.Load(); n != 0 {
			t.Errorf("it was asked %d times before there was something to flush", n)
		}
		if err := db.Flush(); !errors.Is(err, no) {
			t.Errorf("Flush = %v, want the refusal", err)
		}
		time.Sleep(time.Second)
		if n := asked.Load(); n < 2 || n > 20 {
			t.Errorf("it was asked %d times in a second", n)
		}
		next := func() wire.Sequence { // after a crash
			db, err := Open("db", Options{FS: fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 0})})
			if err != nil {
				t.Fatal(err)
			}
			b, _, _ := db.Shard(1).Bounds("a")
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			return b.Next
		}
		if n := next(); n != 1 {
			t.Errorf("after a crash the next sequence is %d", n)
		}
		refusal.Store(nil)
		time.Sleep(time.Second)
		if err := db.Flush(); err != nil {
			t.Errorf("Flush = %v", err)
		}
		if n := next(); n != 2 {
			t.Errorf("after a flush and a crash the next sequence is %d", n)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
}
