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

	mu     sync.Mutex // guards the fields below
	latest *savedSnapshot
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

var errLacking = errors.New("history was still being fetched from another replica")

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

// Open implements raft.SnapshotStore.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest == nil || s.latest.Meta.ID != id {
		return nil, nil, fmt.Errorf("there is no snapshot %s any more", id)
	}
	meta := s.latest.Meta
	return &meta, io.NopCloser(bytes.NewReader(s.latest.State)), nil
}

// save makes a snapshot the latest one.
func (s *snapshots) save(saved *savedSnapshot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dir != "" {
		var b bytes.Buffer
		if err := gob.NewEncoder(&b).Encode(saved); err != nil {
			return err
		}
		if err := writeFile(s.fs, s.dir, snapshotFile, b.Bytes()); err != nil {
			return err
		}
	}
	s.latest = saved
	return nil
}

// fetched says that the store holds all of the latest snapshot.
func (s *snapshots) fetched() error {
	s.mu.Lock()
	latest := *s.latest
	s.mu.Unlock()
	latest.Lacking = false
	return s.save(&latest)
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

// held returns the last log entry of the latest snapshot, 0 while the store lacks some of
// it, or without one.
func (s *snapshots) held() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest == nil || s.latest.Lacking {
		return 0
	}
	return s.latest.Meta.Index
}

// last returns the last log entry that the latest snapshot holds, 0 without one.
func (s *snapshots) last() uint64 {
	metas, err := s.List()
	if err != nil || len(metas) == 0 {
		return 0
	}
	return metas[0].Index
}
