package hubnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/history/disk"
)

// stores are what the node's replicas hold, by shard: on disk when the settings
// name a directory, else in memory.
type stores struct {
	dir    string
	shards int // in the settings
	log    *slog.Logger
	sync   func() error // the replicas' logs, before what is in their stores survives a crash

	away     atomic.Pointer[absence]                            // nil: the disk is open, or was not tried yet
	openDisk func(dir string, o disk.Options) (*disk.DB, error) // for tests; nil: disk.Open

	mu     sync.Mutex // guards the fields below
	db     *disk.DB
	memory map[int]*history.Memory
}

// absence is why a node is without what is on its disk.
type absence struct {
	since time.Time
	why   string
}

const (
	// The disk that can't be opened is tried again, at first soon.
	reopenFirst = time.Second
	reopenMost  = 30 * time.Second
)

// awaitOpen opens the disk, and returns once it is open, or ctx has ended. A disk that is
// full, or can't be opened for another reason that may pass, is tried again and again:
// failed is called after each try. No other error than a [layoutError], and [disk.ErrSpent],
// ends it.
func (s *stores) awaitOpen(ctx context.Context, failed func()) error {
	for wait := reopenFirst; ; wait = min(2*wait, reopenMost) {
		err := s.open()
		var layout *layoutError
		if err == nil || errors.As(err, &layout) || errors.Is(err, disk.ErrSpent) {
			if s.away.Swap(nil) != nil && err == nil {
				s.log.Info("history is open: the node begins with its shards")
			}
			return err
		}
		s.missing(err)
		s.log.Error("history can't be opened: the node serves without its shards, and tries again", slog.Any("error", err), slog.Duration("in", wait))
		failed()
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return nil
		}
	}
}

// missing notes why the disk can't be opened. Of a full disk the text is the same each time,
// whichever file there was no room for.
func (s *stores) missing(err error) {
	now := &absence{time.Now(), err.Error()}
	if errors.Is(err, history.ErrFull) || errors.Is(err, syscall.ENOSPC) {
		now.why = "there is no room on the disk"
	}
	if before := s.away.Load(); before != nil {
		now.since = before.since
	}
	s.away.Store(now)
}

// historyDir is where, in the directory for history, the artifacts are.
func (s *stores) historyDir() string { return filepath.Join(s.dir, "history") }

// open opens the disk. What is broken there is thrown away, the replicas' logs
// with it: the node's replicas are made anew from the others.
func (s *stores) open() error {
	if s.dir == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("directory for history: %w", err)
	}
	if err := s.matchShards(); err != nil {
		return err
	}
	openDisk := s.openDisk
	if openDisk == nil {
		openDisk = disk.Open
	}
	db, err := openDisk(s.historyDir(), disk.Options{Log: s.log, BeforeFlush: s.sync})
	if errors.Is(err, history.ErrCorrupt) {
		s.log.Error("this node's history is broken: it is made anew from the other nodes", slog.Any("error", err))
		err = s.throwAway()
		if err == nil {
			db, err = openDisk(s.historyDir(), disk.Options{Log: s.log, BeforeFlush: s.sync})
		}
	}
	if err != nil {
		return fmt.Errorf("open history in %s: %w", s.historyDir(), err)
	}
	s.db = db
	return nil
}

// layoutError says that the disk's history was dealt out to another number of shards than
// the settings have, where its topics would not be found.
type layoutError struct {
	dir        string
	have, want int
}

func (e *layoutError) Error() string {
	return fmt.Sprintf("%s holds history in %d shards, the settings say %d: set storage.shards to %d, or give this node an empty disk (remove its claim)", e.dir, e.have, e.want, e.have)
}

// matchShards returns a [layoutError] when the disk is of another number of shards. A new
// disk notes the number.
func (s *stores) matchShards() error {
	const format = "shards: %d\n"
	path := filepath.Join(s.dir, "layout")
	text, err := os.ReadFile(path) //nolint:gosec // of the directory in the settings
	if errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(path+".new", fmt.Appendf(nil, format, s.shards), 0o600); err != nil {
			return fmt.Errorf("directory for history: %w", err)
		}
		return errors.Join(os.Rename(path+".new", path), s.syncDir())
	}
	if err != nil {
		return fmt.Errorf("directory for history: %w", err)
	}
	var have int
	if _, err := fmt.Sscanf(string(text), format, &have); err == nil && have != s.shards {
		return &layoutError{s.dir, have, s.shards}
	}
	return nil // what a power cut left of the note says nothing
}

// throwAway removes all that is on the disk. The logs are gone for good before the
// artifacts are: a replica never comes back with less than its log says it has.
func (s *stores) throwAway() error {
	if err := errors.Join(os.RemoveAll(filepath.Join(s.dir, "shards")), s.syncDir()); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(s.historyDir()), s.syncDir())
}

func (s *stores) syncDir() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// close ends the use of the disk.
func (s *stores) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return nil
	}
	err := errors.Join(s.db.Flush(), s.db.Close())
	s.db = nil
	return err
}

// store returns the store of a shard.
func (s *stores) store(shard int) (history.Store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.dir != "" && s.db == nil:
		return nil, errors.New("history is not open")
	case s.db != nil:
		return s.db.Shard(uint32(shard)), nil
	}
	if s.memory[shard] == nil {
		if s.memory == nil {
			s.memory = make(map[int]*history.Memory)
		}
		s.memory[shard] = history.NewMemory()
	}
	return s.memory[shard], nil
}

// inMemory returns how many bytes of artifacts are held in memory.
func (s *stores) inMemory() (bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.memory {
		bytes += m.Bytes()
	}
	return bytes
}

// syncInterval returns how often what was stored is synced to disk: 0 for always.
func syncInterval(s config.Storage) time.Duration {
	if s.Sync == config.SyncInterval {
		return time.Duration(s.SyncInterval)
	}
	return 0
}
