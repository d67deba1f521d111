package shard

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/hashicorp/raft"
)

const snapshotFile = "snapshot"

// snapshots keeps a replica's latest snapshot, which is small: the store has the
// artifacts. With a directory it is on disk.
type snapshots struct {
	fs  files
	dir string // empty: in memory only

	mu     sync.Mutex     // guards the fields below
	latest *savedSnapshot // the store holds all of it
	coming *savedSnapshot // of another replica, while what the store lacks of it is being fetched
}

// savedSnapshot is a snapshot with what Raft wants to know of it.
type savedSnapshot struct {
	Meta    raft.SnapshotMeta
	State   []byte
	Lacking bool // it came from another replica: the store does not hold all of it yet
}

// openSnapshots returns the snapshots in a directory.
func openSnapshots(fs files, dir string) (*snapshots, error) {
	s := &snapshots{fs: fs, dir: dir}
	if dir == "" {
		return s, nil
	}
	text, err := readFile(fs, dir, snapshotFile)
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	var saved savedSnapshot
	if err := gob.NewDecoder(bytes.NewReader(text)).Decode(&saved); err != nil {
		return nil, fmt.Errorf("%s: %w", snapshotFile, err)
	}
	if saved.Lacking {
		return nil, errLacking
	}
	s.latest = &saved
	return s, nil
}

var (
	errLacking = errors.New("history was still being fetched from another replica")
	errOlder   = errors.New("there is a newer snapshot")
)

// Create implements raft.SnapshotStore.
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, at uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &sink{to: s, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d", term, index), Index: index, Term: term,
		Configuration: c, ConfigurationIndex: at,
	}}, nil
}

// List implements raft.SnapshotStore.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest == nil {
		return nil, nil
	}
	meta := s.latest.Meta
	return []*raft.SnapshotMeta{&meta}, nil
}

// Open implements raft.SnapshotStore. The one that is being fetched can be opened, too: it is
// what Raft restores.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, saved := range []*savedSnapshot{s.coming, s.latest} {
		if saved != nil && saved.Meta.ID == id {
			meta := saved.Meta
			return &meta, io.NopCloser(bytes.NewReader(saved.State)), nil
		}
	}
	return nil, nil, fmt.Errorf("there is no snapshot %s any more", id)
}

// save makes a snapshot the latest one; one that is lacking becomes that when it was fetched.
// Raft writes the replica's own at any time, also long after it was taken and while another
// one is taken over, whose log is gone then: an older one is refused, and Raft goes on as if
// there were none.
func (s *snapshots) save(saved *savedSnapshot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest != nil && s.latest.Meta.Index > saved.Meta.Index {
		return errOlder
	}
	if !saved.Lacking && s.coming != nil && s.coming.Meta.Index > saved.Meta.Index {
		return errOlder
	}
	if err := s.write(saved); err != nil {
		return err
	}
	if saved.Lacking {
		s.coming = saved
	} else {
		s.latest = saved
	}
	return nil
}

// write puts a snapshot on disk. mu is held.
func (s *snapshots) write(saved *savedSnapshot) error {
	if s.dir == "" {
		return nil
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(saved); err != nil {
		return err
	}
	return writeFile(s.fs, s.dir, snapshotFile, b.Bytes())
}

// fetched says that the store holds all of the snapshot that was coming: it is the latest one.
func (s *snapshots) fetched() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.coming == nil || s.latest != nil && s.latest.Meta.Index > s.coming.Meta.Index {
		return errOlder
	}
	whole := *s.coming
	whole.Lacking = false
	if err := s.write(&whole); err != nil {
		return err
	}
	s.latest, s.coming = &whole, nil
	return nil
}

// givenUp says that the snapshot that was coming is not fetched. Raft goes on from the latest
// one, with its log, and so does the replica after a restart.
func (s *snapshots) givenUp() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.coming == nil {
		return nil
	}
	s.coming = nil
	switch {
	case s.dir == "":
		return nil
	case s.latest != nil:
		return s.write(s.latest)
	}
	return s.fs.Delete(s.dir, snapshotFile)
}

// sink takes one snapshot.
type sink struct {
	to     *snapshots
	meta   raft.SnapshotMeta
	own    bool // it was made here, from what the store holds
	state  bytes.Buffer
	closed bool
}

func (s *sink) Write(b []byte) (int, error) { return s.state.Write(b) }

// ID implements raft.SnapshotSink.
func (s *sink) ID() string { return s.meta.ID }

// Cancel implements raft.SnapshotSink.
func (s *sink) Cancel() error { return nil }

// Close implements raft.SnapshotSink: the snapshot is complete. Raft closes it, too,
// after [captured.Persist] has.
func (s *sink) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	s.meta.Size = int64(s.state.Len())
	return s.to.save(&savedSnapshot{Meta: s.meta, State: s.state.Bytes(), Lacking: !s.own})
}

// held returns the last log entry of the latest snapshot, 0 without one.
func (s *snapshots) held() uint64 {
	index, _ := s.end()
	return index
}

// end returns the last log entry of the latest snapshot and its term, 0 without one.
func (s *snapshots) end() (index, term uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest == nil {
		return 0, 0
	}
	return s.latest.Meta.Index, s.latest.Meta.Term
}
