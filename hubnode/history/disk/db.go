package disk

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/switchboardhub/switchboard/hubnode/history"
)

// Options for a [DB].
type Options struct {
	Log        *slog.Logger // nil: nothing is logged
	CacheBytes int64        // of memory for blocks read; zero: 32 MiB. Up to 64 MiB come on top, for what is not on disk yet
	FS         vfs.FS       // nil: the machine's
	// BeforeFlush is called before something that was appended comes to survive a crash, on
	// a goroutine of pebble's. While it returns errors nothing does, and is tried again. Nil:
	// there is nothing to do before.
	BeforeFlush func() error

	tune func(*pebble.Options) // for tests; nil: nothing to change
}

// DB holds the histories of a node's shards. It is safe for concurrent use.
type DB struct {
	pebble *pebble.DB
	health *health

	flushBytes int64  // when memory is flushed
	dir        string // on fs; where room is looked for
	fs         vfs.FS

	fillMu  sync.Mutex        // guards the fields below; held while appends have to wait
	filled  int64             // bytes appended since the latest flush began, about
	flushes []<-chan struct{} // that may not be done, oldest first

	statsMu sync.Mutex // guards stats
	stats   Stats      // the latest

	mu     sync.Mutex // guards the fields below
	shards map[uint32]*Store
}

// ErrSpent reports that a database could not be opened too often in this process: only a new
// one can.
var ErrSpent = errors.New("opening history failed too often, and each time left something running: only a new process is rid of that")

// When pebble (2.1.7) can't open a database after all that is in it was read, a goroutine of
// its scheduler of compactions goes on for good, with the database that it is for. That many
// of them may.
const abandonedMost = 500

// abandoned is how many databases were not opened, and go on all the same.
var abandoned atomic.Int64

// Open opens the database in a directory, which is created when it isn't there.
// Only one process can have it open. The error wraps [history.ErrCorrupt] when
// what is there can't be read, [history.ErrFull] when there is no room to open
// it, [ErrSpent] when it is of no use to try again.
func Open(dir string, o Options) (_ *DB, err error) {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	h := newHealth(log)
	db := &DB{health: h, shards: make(map[uint32]*Store)}
	po := pebbleOptions(o, h)
	db.dir, db.fs = dir, po.FS
	db.flushBytes = int64(po.MemTableSize) / 8 * 7
	if abandoned.Load() >= abandonedMost {
		return nil, fmt.Errorf("open history: %w", ErrSpent)
	}
	if err := roomToOpen(dir, po.FS); err != nil {
		return nil, fmt.Errorf("open history: %w", err)
	}
	if db.pebble, err = open(dir, po); err != nil {
		if h.scheduled.Load() {
			abandoned.Add(1)
		}
		return nil, fmt.Errorf("open history: %w", openError(err))
	}
	if err := db.load(); err != nil {
		_ = db.pebble.Close() // the first error says more
		return nil, fmt.Errorf("open history: %w", err)
	}
	h.opened.Store(true)
	return db, nil
}

// openBytes have to be left of the disk to open the database, which writes a manifest and
// its options. Pebble does that on a goroutine of its own, too, and there ends the process
// when it can't.
const openBytes = 16 << 20

func roomToOpen(dir string, fs vfs.FS) error {
	u, err := fs.GetDiskUsage(dir)
	if err != nil { // it is not there yet
		u, err = fs.GetDiskUsage(fs.PathDir(dir))
	}
	if err == nil && u.AvailBytes < openBytes {
		return fmt.Errorf("%w: %d bytes are left on the disk", history.ErrFull, u.AvailBytes)
	}
	return nil // whoever can't tell tries
}

// open is pebble.Open, with what it finds fatal as an error.
func open(dir string, o *pebble.Options) (db *pebble.DB, err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case runtime.Error: // over files that make no sense
			err = corrupt("%v", r)
		case error: // what it can't go on after: also a directory that can't be synced
			err = r
		default:
			err = corrupt("%v", r)
		}
	}()
	return pebble.Open(dir, o)
}

// openError tells damage from what is wrong around the files. Pebble says of some kinds
// of damage only what does not fit: a name in its options, a table that is not there.
func openError(err error) error {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno) && errno != syscall.ENOENT:
		return storeError(err) // no permission, no space, locked by another process, a failing disk
	case strings.Contains(err.Error(), "unknown format version"), // of a later version of this program
		strings.Contains(err.Error(), "lock held"):
		return err
	}
	return fmt.Errorf("%w: %w", history.ErrCorrupt, err)
}

// storeError wraps what a caller branches on; err is not nil.
func storeError(err error) error {
	switch {
	case errors.Is(err, history.ErrCorrupt):
		return err
	case pebble.IsCorruptionError(err):
		return fmt.Errorf("%w: %w", history.ErrCorrupt, err)
	case vfs.IsNoSpaceError(err):
		return fmt.Errorf("%w: %w", history.ErrFull, err)
	}
	return err
}

// load reads the topics of all shards.
func (db *DB) load() error {
	names := make(map[[2]uint32]string)
	err := db.scan(kindName, func(shard, topic uint32, value []byte) error {
		names[[2]uint32{shard, topic}] = string(value)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read topics: %w", err)
	}
	err = db.scan(kindState, func(shard, topic uint32, value []byte) error {
		name, ok := names[[2]uint32{shard, topic}]
		if !ok {
			return errors.New("topic without a name")
		}
		st, err := parseState(value)
		if err != nil {
			return err
		}
		db.Shard(shard).restore(name, topic, st)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read topics: %w", err)
	}
	return nil
}

// scan visits what there is of one kind; an error of visit means corruption.
func (db *DB) scan(kind byte, visit func(shard, topic uint32, value []byte) error) (err error) {
	it, err := db.pebble.NewIter(&pebble.IterOptions{LowerBound: []byte{kind}, UpperBound: []byte{kind + 1}})
	if err != nil {
		return storeError(err)
	}
	defer func() {
		if cerr := it.Close(); err == nil && cerr != nil {
			err = storeError(cerr)
		}
	}()
	for ok := it.First(); ok; ok = it.Next() {
		shard, topic, err := parseTopicKey(it.Key())
		if err != nil {
			return corrupt("%x: %w", it.Key(), err)
		}
		if err := visit(shard, topic, it.Value()); err != nil {
			return corrupt("shard %d, topic %d: %w", shard, topic, err)
		}
	}
	return nil
}

// Shard returns the store of a shard, the same each time; it is empty when
// nothing was kept for the shard. It does no I/O.
func (db *DB) Shard(id uint32) *Store {
	db.mu.Lock()
	defer db.mu.Unlock()
	s := db.shards[id]
	if s == nil {
		s = newStore(db, id)
		db.shards[id] = s
	}
	return s
}

// Drop takes all of a shard's data. A store that Shard returned before is empty
// then, and can be used.
func (db *DB) Drop(id uint32) error { return db.Shard(id).Clear() }

// Flush returns when all that was written before will survive a crash of the
// machine. It fails at once, and nothing is lost, when there is no room for it:
// the error wraps [history.ErrFull] then, and writing goes on in the background
// until it succeeds.
func (db *DB) Flush() error {
	if _, err := db.health.unwritten(); err != nil {
		return fmt.Errorf("flush history: %w", err)
	}
	done, err := db.pebble.AsyncFlush()
	if err != nil {
		return fmt.Errorf("flush history: %w", storeError(err))
	}
	if err := db.wait(done); err != nil {
		return fmt.Errorf("flush history: %w", err)
	}
	return nil
}

// wait returns when a flush is done, or when one has failed.
func (db *DB) wait(done <-chan struct{}) error {
	for {
		changed, err := db.health.unwritten()
		if err != nil {
			return err
		}
		select {
		case <-done:
			return nil
		case <-changed:
		}
	}
}

// reserveBytes of the disk are left to what frees it: deletions have to be
// flushed, behind the appends before them, and compactions need room.
const reserveBytes = 2 * memtables * memtableBytes

// room returns when there is room in memory for size bytes more, or says why
// there won't be soon. Pebble's own way, to wait until there is, is of no use
// to who appends to a full disk; that it doesn't come to it, memory is flushed
// here before pebble does.
func (db *DB) room(size int) error {
	if err := db.health.refusal(); err != nil {
		return err
	}
	db.fillMu.Lock()
	defer db.fillMu.Unlock()
	db.filled += int64(size)
	if db.filled < db.flushBytes {
		return nil
	}
	if u, err := db.fs.GetDiskUsage(db.dir); err == nil && u.AvailBytes < reserveBytes {
		return fmt.Errorf("%w: %d bytes are left on the disk", history.ErrFull, u.AvailBytes)
	}
	if len(db.flushes) >= memtables-1 {
		if err := db.wait(db.flushes[0]); err != nil {
			return err
		}
		db.flushes = slices.Delete(db.flushes, 0, 1)
	}
	done, err := db.pebble.AsyncFlush()
	if err != nil {
		return storeError(err)
	}
	db.filled = 0
	db.flushes = append(db.flushes, done)
	return nil
}

// Close ends the use of the database and of its stores; it does not flush. The
// caller has ended all other calls before.
func (db *DB) Close() error {
	if err := db.pebble.Close(); err != nil {
		return fmt.Errorf("close history: %w", storeError(err))
	}
	return nil
}
