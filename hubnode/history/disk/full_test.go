package disk

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// fillable is a file system that can be told to be full, for files with a name
// that holds some text.
type fillable struct {
	full atomic.Pointer[string] // nil: there is room
	hits atomic.Int64

	syncs bool // there is no room for what was written before either: it can't be synced
}

func (f *fillable) MaybeError(op errorfs.Op) error {
	switch op.Kind {
	case errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpFilePreallocate:
	case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
		if !f.syncs {
			return nil
		}
	default:
		return nil
	}
	if part := f.full.Load(); part != nil && strings.Contains(op.Path, *part) {
		if f.hits.Add(1) == spins {
			f.full.Store(nil)
		}
		return &noSpaceError{op.Path}
	}
	return nil
}

// spins is how often a full disk is tried by who does so without a rest. Then there is
// room, since in a bubble no time passes meanwhile.
const spins = 10_000

func (f *fillable) String() string { return "full disk" }

type noSpaceError struct{ path string }

func (e *noSpaceError) Error() string { return "write " + e.path + ": no space left on device" }
func (e *noSpaceError) Unwrap() error { return syscall.ENOSPC }

func TestFullDiskRefusesAppendsUntilThereIsRoom(t *testing.T) {
	for _, part := range []string{"", "MANIFEST", ".sst", "marker"} {
		t.Run("files with "+part, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testFullDisk(t, part) })
		})
	}
}

// testFullDisk fills the disk for files whose names hold part.
func testFullDisk(t *testing.T, part string) {
	t.Helper()
	disk := &fillable{}
	db, err := Open("db", Options{
		FS: errorfs.Wrap(vfs.NewMem(), disk),
		tune: func(o *pebble.Options) {
			o.MemTableSize = 256 << 10
			o.MaxManifestFileSize = 1 // a new one each time
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := db.Shard(1)
	next := wire.Sequence(1)
	appendOne := func() error {
		err := s.Append(after(int(next)), "a", roomy, history.Run{First: next, Count: 1, Body: bytes.Repeat([]byte{byte(next)}, 1000)})
		if err == nil {
			next++
		}
		return err
	}
	for next < 2000 {
		if err := appendOne(); err != nil {
			t.Fatal(err)
		}
	}
	disk.full.Store(&part)
	for err = nil; err == nil; { // nobody waits: the test would
		if err = appendOne(); next > 100_000 {
			t.Fatal("appends go on though the disk is full")
		}
	}
	if !errors.Is(err, history.ErrFull) {
		t.Fatalf("append to a full disk = %v", err)
	}
	if err := db.Flush(); !errors.Is(err, history.ErrFull) {
		t.Errorf("flush to a full disk = %v", err)
	}
	if err := db.Stats().Err; !errors.Is(err, history.ErrFull) {
		t.Errorf("Stats().Err = %v", err)
	}
	checkBodies(t, s, next)
	if err := s.Purge("a", 100); err != nil {
		t.Errorf("purge on a full disk = %v", err)
	}
	hits := disk.hits.Load()
	time.Sleep(3 * retryInterval)
	if n := disk.hits.Load() - hits; n == 0 || n > 20 {
		t.Errorf("the full disk was tried %d times in %v", n, 3*retryInterval)
	}
	if err := appendOne(); !errors.Is(err, history.ErrFull) {
		t.Errorf("append to a full disk = %v", err)
	}

	disk.full.Store(nil)
	soon := func(what string, try func() error) {
		t.Helper()
		began := time.Now()
		for err := try(); err != nil; err = try() {
			if time.Since(began) > time.Minute || !errors.Is(err, history.ErrFull) {
				t.Fatalf("%s when there is room = %v", what, err)
			}
			time.Sleep(time.Millisecond)
		}
	}
	soon("append", appendOne)
	soon("flush", db.Flush) // a try that began on the full disk may still end, and say so
	checkBodies(t, s, next)
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// checkBodies reads a topic to its end and checks that no run is wrong.
func checkBodies(t *testing.T, s *Store, end wire.Sequence) {
	t.Helper()
	b, _, _ := s.Bounds("a")
	next := b.First
	for next < end {
		from := next
		got, err := s.Read("a", next, 1<<20, func(r history.Run) {
			if r.First != next || !bytes.Equal(r.Body, bytes.Repeat([]byte{byte(r.First)}, 1000)) {
				t.Errorf("wrong run %d, want %d", r.First, next)
			}
			next = r.First + wire.Sequence(r.Count)
		})
		if err != nil || got != next || got == from {
			t.Fatalf("read from %d = %d, %v", from, got, err)
		}
	}
	if b.Next != end {
		t.Errorf("Next = %d, want %d", b.Next, end)
	}
}

// A file that could not be synced once is not synced again: the second time would say that all
// is well, while what was written is dropped.
func TestFileThatCouldNotBeSyncedIsNotTriedAgain(t *testing.T) {
	for _, name := range []string{"MANIFEST-000001", "marker.manifest.000001.MANIFEST-000001", "000001.sst"} {
		for what, sync := range map[string]func(vfs.File) error{
			"Sync": vfs.File.Sync, "SyncData": vfs.File.SyncData,
			"SyncTo": func(f vfs.File) error { _, err := f.SyncTo(1); return err },
		} {
			var tries int
			once := errorfs.InjectorFunc(func(op errorfs.Op) error {
				switch op.Kind {
				case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
					if tries++; tries == 1 {
						return &noSpaceError{op.Path}
					}
				default:
				}
				return nil
			})
			g := &guardFS{FS: errorfs.Wrap(vfs.NewMem(), once), health: newHealth(slog.New(slog.DiscardHandler))}
			g.health.opened.Store(true)
			f, err := g.Create(name, vfs.WriteCategoryUnspecified)
			if err != nil {
				t.Fatal(err)
			}
			if err := sync(f); !errors.Is(err, syscall.ENOSPC) || tries != 1 {
				t.Errorf("%s of %s was tried %d times: %v", what, name, tries, err)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// Each database that can't be opened at the very end leaves a goroutine of pebble's.
func TestOpenThatLeavesSomethingRunningIsNotTriedForEver(t *testing.T) {
	t.Cleanup(func() { abandoned.Store(0) })
	for part, leaves := range map[string]bool{".log": true, "OPTIONS": true, "db": false} {
		abandoned.Store(abandonedMost - 1)
		fs := vfs.NewMem()
		reopen(t, fs, func(*DB) {})
		var broken atomic.Bool
		broken.Store(true)
		bad := errorfs.InjectorFunc(func(op errorfs.Op) error {
			kind := op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpRename
			if part == "db" {
				kind = op.Kind == errorfs.OpList
			}
			if kind && broken.Load() && (strings.Contains(op.Path, part) || part == "OPTIONS" && strings.HasSuffix(op.Path, ".dbtmp")) {
				return &os.PathError{Op: "open", Path: op.Path, Err: syscall.EIO}
			}
			return nil
		})
		if _, err := Open("db", Options{FS: errorfs.Wrap(fs, bad)}); !errors.Is(err, syscall.EIO) {
			t.Errorf("without %s: %v", part, err)
		}
		broken.Store(false)
		db, err := Open("db", Options{FS: errorfs.Wrap(fs, bad)})
		if leaves != errors.Is(err, ErrSpent) {
			t.Errorf("after there was no %s: %v", part, err)
		}
		if err == nil {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestOpenOnAFullDisk(t *testing.T) {
	fs := vfs.NewMem()
	everything := ""
	disk := &fillable{syncs: true} // else pebble gets so far that it ends the process
	full := errorfs.Wrap(fs, disk)
	disk.full.Store(&everything)
	if _, err := Open("db", Options{FS: full}); !errors.Is(err, history.ErrFull) {
		t.Errorf("a new database on a full disk: %v", err)
	}
	reopen(t, fs, func(db *DB) {
		if err := db.Shard(1).Append(start, "a", roomy, history.Run{First: 1, Count: 1}); err != nil {
			t.Error(err)
		}
		if err := db.Flush(); err != nil {
			t.Error(err)
		}
	})
	if _, err := Open("db", Options{FS: full}); !errors.Is(err, history.ErrFull) {
		t.Errorf("a database on a full disk: %v", err)
	}
	disk.full.Store(nil)
	reopen(t, full, func(db *DB) {
		if b, ok, err := db.Shard(1).Bounds("a"); b.Next != 2 || !ok || err != nil {
			t.Errorf("Bounds = %+v, %v, %v", b, ok, err)
		}
	})
}

// What pebble would do while it opens a database, it can't do with almost no room left.
func TestOpenWithAlmostNoRoom(t *testing.T) {
	fs := vfs.NewMem()
	almost := &usedFS{FS: fs, left: openBytes - 1}
	for _, what := range []string{"a new database", "a database"} {
		if _, err := Open("db", Options{FS: almost}); !errors.Is(err, history.ErrFull) {
			t.Errorf("%s: %v", what, err)
		}
		reopen(t, &usedFS{FS: fs, left: openBytes}, func(*DB) {})
	}
}

// usedFS is a file system of which almost all is used.
type usedFS struct {
	vfs.FS
	left uint64 // bytes
}

func (u *usedFS) GetDiskUsage(dir string) (vfs.DiskUsage, error) {
	if _, err := u.Stat(dir); err != nil && dir != "." {
		return vfs.DiskUsage{}, err
	}
	return vfs.DiskUsage{AvailBytes: u.left}, nil
}

// Pebble panics when it can't sync a directory: that is no damage, over which all that is
// held would be thrown away.
func TestDirectoryThatCantBeSyncedIsNoDamage(t *testing.T) {
	broken := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSync && op.Path == "db" {
			return &os.PathError{Op: "sync", Path: op.Path, Err: syscall.EIO}
		}
		return nil
	})
	_, err := Open("db", Options{FS: errorfs.Wrap(vfs.NewMem(), broken)})
	if !errors.Is(err, syscall.EIO) || errors.Is(err, history.ErrCorrupt) {
		t.Errorf("Open = %v", err)
	}
}
