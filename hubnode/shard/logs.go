package shard

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/fs"
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
	close   func() error
}

// memoryLogs end with the process.
func memoryLogs() *logs {
	s := raft.NewInmemStore()
	return &logs{entries: s, votes: s, close: func() error { return nil }}
}

// diskLogs are in a directory. With an interval, writes are synced as often as
// that and not before they are acknowledged. damaged hears of damage that is found
// later.
func diskLogs(dir string, interval time.Duration, damaged func(error), log *slog.Logger, raftLog hclog.Logger) (*logs, error) {
	var vfs types.VFS = fs.New()
	var lazy *lazySync
	if interval > 0 {
		lazy = newLazySync(vfs, interval, log)
		vfs = lazy
	}
	w, err := openLog(dir, vfs, raftLog)
	closeAll := func() error {
		var err error
		if w != nil {
			err = w.Close()
		}
		if lazy != nil {
			lazy.close()
		}
		return err
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the log in %s: %w", dir, err), closeAll())
	}
	cache, err := raft.NewLogCache(cachedLogs, w)
	if err != nil {
		return nil, errors.Join(err, closeAll())
	}
	return &logs{entries: guardedLogs{cache, damaged}, votes: w, close: closeAll}, nil
}

// openLog opens a log. Some kinds of damage it panics over.
func openLog(dir string, vfs types.VFS, log hclog.Logger) (w *wal.WAL, err error) {
	defer recovered(&err)
	return wal.Open(dir, wal.WithMetaStore(&walIndex{}), wal.WithSegmentSize(segmentBytes), wal.WithSegmentFiler(segment.NewFiler(dir, vfs)), wal.WithLogger(log))
}

// recovered makes an error of a panic over damaged files.
func recovered(err *error) {
	if why := recover(); why != nil {
		*err = fmt.Errorf("%w: %v", history.ErrCorrupt, why)
	}
}

// guardedLogs is a log that tells of damage when it is written, rather than to panic:
// a process that ends over it would do so again after its restart. It is as monotonic as
// the cache says: behind a snapshot that was taken over, Raft then begins the log anew.
type guardedLogs struct {
	*raft.LogCache
	damaged func(error)
}

// StoreLog implements raft.LogStore.
func (g guardedLogs) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (g guardedLogs) StoreLogs(all []*raft.Log) error {
	return g.guard(func() error { return g.LogCache.StoreLogs(all) })
}

// DeleteRange implements raft.LogStore.
func (g guardedLogs) DeleteRange(from, to uint64) error {
	return g.guard(func() error { return g.LogCache.DeleteRange(from, to) })
}

func (g guardedLogs) guard(change func() error) error {
	err := func() (err error) {
		defer recovered(&err)
		return change()
	}()
	if errors.Is(err, history.ErrCorrupt) {
		g.damaged(err)
	}
	return err
}

// lazySync is a file system that syncs what was written from time to time.
type lazySync struct {
	types.VFS
	log  *slog.Logger
	stop chan struct{}
	done sync.WaitGroup

	mu    sync.Mutex // guards files
	files map[*lazyFile]struct{}
}

func newLazySync(vfs types.VFS, interval time.Duration, log *slog.Logger) *lazySync {
	l := &lazySync{VFS: vfs, log: log, stop: make(chan struct{}), files: make(map[*lazyFile]struct{})}
	l.done.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				l.syncAll()
			case <-l.stop:
				return
			}
		}
	})
	return l
}

func (l *lazySync) close() {
	close(l.stop)
	l.done.Wait()
	l.syncAll()
}

func (l *lazySync) syncAll() {
	l.mu.Lock()
	files := make([]*lazyFile, 0, len(l.files))
	for f := range l.files {
		files = append(files, f)
	}
	l.mu.Unlock()
	for _, f := range files {
		if err := f.sync(); err != nil {
			l.log.Error("log not synced", slog.Any("error", err))
		}
	}
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
	err := f.WritableFile.Sync()
	if err != nil {
		f.dirty.Store(true)
	}
	return err
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

// Files of a replica's directory beside its log.
const (
	identityFile  = "replica"
	restoringFile = "restoring" // a snapshot is being taken over: without it the store is whole
)

// readIdentity returns the id of the replica whose state is in a directory, empty
// when there is none, or none that is whole. The error wraps history.ErrCorrupt when
// it can't be read.
func readIdentity(dir string) (string, error) {
	if _, err := os.Stat(filepath.Join(dir, restoringFile)); err == nil {
		return "", nil
	}
	id, err := readFile(dir, identityFile)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return string(id), err
}

var (
	_ io.Closer              = (*lazyFile)(nil)
	_ raft.MonotonicLogStore = guardedLogs{}
)
