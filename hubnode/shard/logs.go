package shard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"github.com/switchboardhub/switchboard/hubnode/history"
)

const (
	segmentBytes = 16 << 20 // of the log on disk: what is preallocated at a time
	cachedLogs   = 256      // entries that followers are sent from memory
)

// logs are a replica's log and its votes.
type logs struct {
	entries raft.LogStore
	votes   raft.StableStore
	lazy    *lazySync // nil: it is synced before anything is acknowledged, or never
	close   func() error
}

// tell makes a log on disk tell another replica of what it finds, and does. Nobody uses it
// meanwhile.
func (l *logs) tell(r *replica) {
	if g, ok := l.entries.(guardedLogs); ok {
		l.entries = guardedLogs{g.LogStore, r.fail, r.replaces}
	}
	if l.lazy != nil {
		l.lazy.tell(r.notSynced)
	}
}

// all returns what is in a log on disk as it is written there. The error wraps
// history.ErrCorrupt when it is not what was stored.
func (l *logs) all() ([]types.LogEntry, error) {
	first, err := l.entries.FirstIndex()
	if err != nil || first == 0 {
		return []types.LogEntry{}, err
	}
	last, err := l.entries.LastIndex()
	if err != nil {
		return nil, err
	}
	all := make([]types.LogEntry, 0, last-first+1)
	for i := first; i <= last; i++ {
		var entry raft.Log
		if err := l.entries.GetLog(i, &entry); err != nil {
			return nil, err
		}
		entry.Extensions = checksumOf(&entry)
		var b bytes.Buffer
		if err := new(wal.BinaryCodec).Encode(&entry, &b); err != nil {
			return nil, err
		}
		all = append(all, types.LogEntry{Index: i, Data: b.Bytes()})
	}
	return all, nil
}

// memoryLogs end with the process.
func memoryLogs() *logs {
	s := raft.NewInmemStore()
	return &logs{entries: s, votes: s, close: func() error { return nil }}
}

// logOptions are what logs on disk are opened with.
type logOptions struct {
	files    files
	dir      string
	begun    bool                  // they were there before
	interval time.Duration         // writes are synced as often, and not before they are acknowledged; 0: before
	segment  int                   // bytes of one file
	lazies   *lazySyncs            // of the node, with an interval; may be nil
	damaged  func(error)           // hears of damage that is found later
	replaces func(from, to uint64) // hears of entries that are about to go; may be nil
	unsynced func(error)           // hears that what was written could not be synced; may be nil
	log      *slog.Logger
	raftLog  hclog.Logger
}

// diskLogs are in a directory.
func diskLogs(o logOptions) (*logs, error) {
	index := &walIndex{fs: o.files, begun: o.begun}
	var vfs types.VFS = o.files
	var lazy *lazySync
	if o.interval > 0 {
		lazy = newLazySync(vfs, o.interval, o.lazies, o.unsynced, o.log)
		vfs, index.sync = lazy, lazy.syncAll
	}
	segments := &segments{SegmentFiler: segment.NewFiler(o.dir, vfs)}
	w, err := openLog(o, index, segments)
	closeAll := func() error {
		var err error
		if w != nil {
			err = w.Close()
		}
		if lazy != nil {
			err = errors.Join(err, lazy.close())
		}
		return err
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the log in %s: %w", o.dir, err), closeAll())
	}
	cache, err := raft.NewLogCache(cachedLogs, &checkedLogs{WAL: w, segments: segments})
	if err != nil {
		return nil, errors.Join(err, closeAll())
	}
	return &logs{entries: guardedLogs{cache, o.damaged, o.replaces}, votes: w, lazy: lazy, close: closeAll}, nil
}

// openLog opens a log. Some kinds of damage it panics over.
func openLog(o logOptions, index *walIndex, in types.SegmentFiler) (w *wal.WAL, err error) {
	defer recovered(&err)
	return wal.Open(o.dir, wal.WithMetaStore(index), wal.WithSegmentSize(o.segment), wal.WithSegmentFiler(in), wal.WithLogger(o.raftLog))
}

// checkedLogs is a log on disk whose entries have a checksum of all that they are, their
// index and their term included: the log itself finds damage in the last ones only.
type checkedLogs struct {
	*wal.WAL
	segments *segments
	storing  sync.Mutex // held by StoreLogs
}

func checksumOf(l *raft.Log) []byte {
	var head [8 + 8 + 1]byte
	binary.BigEndian.PutUint64(head[:], l.Index)
	binary.BigEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	return binary.BigEndian.AppendUint32(nil, crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, l.Data))
}

// StoreLog implements raft.LogStore.
func (c *checkedLogs) StoreLog(l *raft.Log) error { return c.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore. raft-wal would encode each entry into new memory,
// which at full speed is a third of all that a node allocates: it gets entries that are
// empty but for their index, and its segments get what belongs there.
func (c *checkedLogs) StoreLogs(all []*raft.Log) error {
	c.storing.Lock()
	defer c.storing.Unlock()
	size := 0
	for _, l := range all {
		size += len(l.Data) + encodedMore
	}
	memory, _ := encodings.Get().(*bytes.Buffer)
	defer encodings.Put(memory)
	memory.Reset()
	memory.Grow(size)
	encoded, empty := make([]types.LogEntry, len(all)), make([]*raft.Log, len(all))
	for i, l := range all {
		checked := *l
		checked.Extensions = checksumOf(l)
		begin := memory.Len()
		if err := new(wal.BinaryCodec).Encode(&checked, memory); err != nil {
			return err
		}
		encoded[i] = types.LogEntry{Index: l.Index, Data: memory.Bytes()[begin:]}
		empty[i] = &raft.Log{Index: l.Index}
	}
	c.segments.next = encoded
	defer func() { c.segments.next = nil }()
	return c.WAL.StoreLogs(empty)
}

// encodedMore is what an entry takes in the log besides its data, at most.
const encodedMore = 64

// encodings are where entries are encoded.
var encodings = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// segments are those of a log. What is appended to them is next.
type segments struct {
	types.SegmentFiler
	next []types.LogEntry // of the call to StoreLogs that is under way
}

// Create implements types.SegmentFiler.
func (s *segments) Create(info types.SegmentInfo) (types.SegmentWriter, error) {
	return s.writer(s.SegmentFiler.Create(info))
}

// RecoverTail implements types.SegmentFiler.
func (s *segments) RecoverTail(info types.SegmentInfo) (types.SegmentWriter, error) {
	return s.writer(s.SegmentFiler.RecoverTail(info))
}

func (s *segments) writer(w types.SegmentWriter, err error) (types.SegmentWriter, error) {
	if err != nil {
		return nil, err
	}
	return encodedWriter{w, s}, nil
}

// encodedWriter is a segment that entries are appended to.
type encodedWriter struct {
	types.SegmentWriter
	of *segments
}

// Append implements types.SegmentWriter.
func (w encodedWriter) Append(empty []types.LogEntry) error {
	next := w.of.next
	if len(next) != len(empty) || len(next) > 0 && next[0].Index != empty[0].Index {
		return fmt.Errorf("%d log entries to append, %d are encoded", len(empty), len(next))
	}
	return w.SegmentWriter.Append(next)
}

// GetLog implements raft.LogStore.
func (c *checkedLogs) GetLog(index uint64, l *raft.Log) (err error) {
	defer recovered(&err)
	switch err := c.WAL.GetLog(index, l); {
	case errors.Is(err, types.ErrNotFound), errors.Is(err, types.ErrClosed):
		return err
	case err != nil:
		return fmt.Errorf("%w: log entry %d: %w", history.ErrCorrupt, index, err)
	}
	if l.Index != index || !bytes.Equal(l.Extensions, checksumOf(l)) {
		return fmt.Errorf("%w: log entry %d", history.ErrCorrupt, index)
	}
	l.Extensions = nil
	return nil
}

// upTo removes what is in the log when all of it is before a snapshot that the replica
// goes on from: nothing can follow it.
func (l *logs) upTo(snapshot uint64) error {
	last, err := l.entries.LastIndex()
	if err != nil || last == 0 || last >= snapshot {
		return err
	}
	return l.entries.DeleteRange(1, snapshot)
}

// recovered makes an error of a panic over damaged files.
func recovered(err *error) {
	switch why := recover().(type) {
	case nil:
	case error:
		*err = fmt.Errorf("%w: %w", history.ErrCorrupt, why)
	default:
		*err = fmt.Errorf("%w: %v", history.ErrCorrupt, why)
	}
}

// guardedLogs is a log that tells of damage when it is read or written, rather than to panic:
// a process that ends over it would do so again after its restart.
type guardedLogs struct {
	raft.LogStore
	damaged  func(error)
	replaces func(from, to uint64) // may be nil
}

// IsMonotonic implements raft.MonotonicLogStore: there can be no hole in the log, so that
// Raft removes all of it when it takes over a snapshot.
func (guardedLogs) IsMonotonic() bool { return true }

// GetLog implements raft.LogStore.
func (g guardedLogs) GetLog(index uint64, l *raft.Log) error {
	return g.guard(func() error { return g.LogStore.GetLog(index, l) })
}

// StoreLog implements raft.LogStore.
func (g guardedLogs) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (g guardedLogs) StoreLogs(all []*raft.Log) error {
	return g.guard(func() error { return g.LogStore.StoreLogs(all) })
}

// DeleteRange implements raft.LogStore.
func (g guardedLogs) DeleteRange(from, to uint64) error {
	if g.replaces != nil {
		g.replaces(from, to)
	}
	return g.guard(func() error { return g.LogStore.DeleteRange(from, to) })
}

func (g guardedLogs) guard(change func() error) error {
	err := func() (err error) {
		defer recovered(&err)
		return change()
	}()
	if errors.Is(err, types.ErrCorrupt) {
		err = fmt.Errorf("%w: %w", history.ErrCorrupt, err)
	}
	if errors.Is(err, history.ErrCorrupt) {
		g.damaged(err)
	}
	return err
}

// lazySyncs are those of a node's logs, from before one is written to until after it is closed.
type lazySyncs struct {
	mu  sync.Mutex // guards the map
	all map[*lazySync]struct{}
}

// SyncLogs returns once what is in the logs survives a crash. It is to be called before what
// was appended to the stores does: a store that came back ahead of its log would take what is
// stored anew for what it holds already. It has nothing to do without SyncInterval.
func (s *Shards) SyncLogs() error {
	s.lazies.mu.Lock()
	all := slices.Collect(maps.Keys(s.lazies.all))
	s.lazies.mu.Unlock()
	var errs []error
	for _, l := range all {
		errs = append(errs, l.syncAll())
	}
	return errors.Join(errs...)
}

func (s *lazySyncs) add(l *lazySync) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[*lazySync]struct{})
	}
	s.all[l] = struct{}{}
}

func (s *lazySyncs) remove(l *lazySync) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, l)
}

// errUnsynced says that a file of a log could not be synced. The kernel may have dropped what
// it could not write, and says of the next sync that all is well: nobody tries again, and
// nothing that is in the log counts as synced before it is written to other files.
var errUnsynced = errors.New("a file of the log could not be synced, and is not relied on")

// lazySync is a file system that syncs what was written from time to time.
type lazySync struct {
	types.VFS
	among *lazySyncs // may be nil
	stop  chan struct{}
	done  sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	files  map[*lazyFile]struct{}
	failed error       // of the first file that could not be synced
	told   func(error) // hears of that; may be nil
}

func newLazySync(vfs types.VFS, interval time.Duration, among *lazySyncs, told func(error), log *slog.Logger) *lazySync {
	l := &lazySync{VFS: vfs, among: among, told: told, stop: make(chan struct{}), files: make(map[*lazyFile]struct{})}
	among.add(l)
	l.done.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if err := l.syncAll(); err != nil {
					log.Error("log not synced", slog.Any("error", err))
					return
				}
			case <-l.stop:
				return
			}
		}
	})
	return l
}

func (l *lazySync) close() error {
	close(l.stop)
	l.done.Wait()
	defer l.among.remove(l)
	return l.syncAll()
}

// tell makes somebody else hear of a file that could not be synced.
func (l *lazySync) tell(told func(error)) {
	l.mu.Lock()
	l.told = told
	failed := l.failed
	l.mu.Unlock()
	if failed != nil {
		told(failed)
	}
}

// fail notes that a file could not be synced.
func (l *lazySync) fail(err error) error {
	l.mu.Lock()
	first := l.failed == nil
	if first {
		l.failed = fmt.Errorf("%w: %w", errUnsynced, err)
	}
	failed, told := l.failed, l.told
	l.mu.Unlock()
	if first && told != nil {
		told(failed)
	}
	return failed
}

// syncAll returns once all that was written before survives a crash. The error wraps
// errUnsynced when that is not, and will not be, certain.
func (l *lazySync) syncAll() error {
	l.mu.Lock()
	if l.failed != nil {
		defer l.mu.Unlock()
		return l.failed
	}
	files := make([]*lazyFile, 0, len(l.files))
	for f := range l.files {
		files = append(files, f)
	}
	l.mu.Unlock()
	var errs []error
	for _, f := range files {
		errs = append(errs, f.sync())
	}
	return errors.Join(errs...)
}

// Create implements types.VFS.
func (l *lazySync) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := l.VFS.Create(dir, name, size)
	return l.watch(f), err
}

// OpenWriter implements types.VFS.
func (l *lazySync) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := l.VFS.OpenWriter(dir, name)
	return l.watch(f), err
}

func (l *lazySync) watch(f types.WritableFile) types.WritableFile {
	if f == nil {
		return nil
	}
	lazy := &lazyFile{WritableFile: f, of: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.files[lazy] = struct{}{}
	return lazy
}

// lazyFile is a file that notes that it has to be synced.
type lazyFile struct {
	types.WritableFile
	of    *lazySync
	dirty atomic.Bool

	mu     sync.Mutex // guards closed, and is held while the file is synced
	closed bool
}

// Sync notes that what was written has to be synced.
func (f *lazyFile) Sync() error {
	f.dirty.Store(true)
	return nil
}

func (f *lazyFile) sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || !f.dirty.Swap(false) {
		return nil
	}
	if err := f.WritableFile.Sync(); err != nil {
		return f.of.fail(err)
	}
	return nil
}

// Close syncs what was not yet, and closes the file.
func (f *lazyFile) Close() error {
	err := f.sync()
	f.of.mu.Lock()
	delete(f.of.files, f)
	f.of.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return errors.Join(err, f.WritableFile.Close())
}

// identityFile says whose state is in a directory. It is the last that is made, and the
// first that is removed: without it there is no replica.
const identityFile = "replica"

// readIdentity returns the id of the replica whose state is in a directory, empty
// when there is none. The error wraps history.ErrCorrupt when it can't be read.
func readIdentity(fs files, dir string) (string, error) {
	id, err := readFile(fs, dir, identityFile)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return string(id), err
}

var _ io.Closer = (*lazyFile)(nil)
