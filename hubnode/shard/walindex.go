package shard

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"sync"
	"time"

	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"github.com/switchboardhub/switchboard/hubnode/history"
)

const (
	segmentsFile = "segments" // which files the log is in
	votesFile    = "votes"    // terms and votes
)

// walIndex is where a log on disk keeps which files it is in, and Raft its terms and
// votes: small files with checksums, replaced whole. (The log's own way is a memory
// map of a database, whose damage ends the process with a signal, or goes unnoticed.)
type walIndex struct {
	fs    files
	begun bool         // there was a log before: it is damage when it is not there
	sync  func() error // what the segments hold, before it is said that they hold it; nil: it always is
	dir   string

	mu    sync.Mutex // guards votes
	votes map[string][]byte
}

// Load implements types.MetaStore. A part that is missing was lost.
func (x *walIndex) Load(dir string) (state types.PersistentState, err error) {
	x.dir = dir
	begun, err := x.read(segmentsFile, &state)
	if err != nil {
		return state, err
	}
	voted, err := x.read(votesFile, &x.votes)
	switch {
	case err != nil:
		return state, err
	case x.begun && !begun, x.begun && !voted:
		return state, fmt.Errorf("%w: %s or %s is not there", history.ErrCorrupt, segmentsFile, votesFile)
	case !voted:
		x.votes = make(map[string][]byte)
		return state, x.write(votesFile, x.votes)
	}
	return state, x.reopen(&state)
}

// reopen sees to it that the last segment can be appended to. raft-wal v0.4.1 refuses it
// for ever when the node died while the segment was being ended, or just afterwards: then
// what it holds goes to a new one.
func (x *walIndex) reopen(state *types.PersistentState) error {
	if len(state.Segments) == 0 {
		return nil
	}
	last := &state.Segments[len(state.Segments)-1]
	filer := segment.NewFiler(x.dir, x.fs)
	if !last.SealTime.IsZero() {
		return nil
	}
	ended, err := filer.RecoverTail(*last)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = ended.Close() }() // it was only read
	if sealed, _, err := ended.Sealed(); err != nil || !sealed {
		return err
	}
	entries, err := entriesOf(ended, last.MinIndex)
	if err != nil {
		return err
	}
	again := *last
	again.ID, again.BaseIndex, again.CreateTime = state.NextSegmentID, last.MinIndex, time.Now()
	again.SizeLimit = 2 * segmentBytes // it must have room for as much
	if err := x.fs.Delete(x.dir, segment.FileName(again)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err // a try before this one left it
	}
	open, err := filer.Create(again)
	if err != nil {
		return err
	}
	if err := errors.Join(open.Append(entries), open.Close()); err != nil {
		return err
	}
	*last = again
	state.NextSegmentID++
	return x.CommitState(*state)
}

// writeAnew puts a log of a file of its own in the place of the one in a directory, with its
// entries as they are written, and returns once that survives a crash: until then the old one
// is there.
func writeAnew(fs files, dir string, segmentSize int, entries []types.LogEntry) error {
	x := &walIndex{fs: fs, dir: dir}
	var state types.PersistentState
	if _, err := x.read(segmentsFile, &state); err != nil {
		return err
	}
	state.Segments = nil
	if len(entries) > 0 {
		size := uint64(segmentSize) // it must have room for all of it
		for _, e := range entries {
			size += uint64(len(e.Data) + encodedMore)
		}
		info := types.SegmentInfo{
			ID: state.NextSegmentID, BaseIndex: entries[0].Index, MinIndex: entries[0].Index,
			Codec: new(wal.BinaryCodec).ID(), CreateTime: time.Now(), SizeLimit: uint32(min(size, math.MaxUint32)),
		}
		if err := fs.Delete(dir, segment.FileName(info)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err // a try before this one left it
		}
		open, err := segment.NewFiler(dir, fs).Create(info)
		if err != nil {
			return err
		}
		if err := errors.Join(open.Append(entries), open.Close()); err != nil {
			return err
		}
		state.Segments = []types.SegmentInfo{info}
		state.NextSegmentID++
	}
	return x.CommitState(state)
}

// entriesOf returns the entries of a segment from an index on.
func entriesOf(w types.SegmentWriter, from uint64) ([]types.LogEntry, error) {
	var entries []types.LogEntry
	for i := from; i <= w.LastIndex(); i++ {
		b, err := w.GetLog(i)
		if err != nil {
			return nil, err
		}
		entries = append(entries, types.LogEntry{Index: i, Data: append([]byte(nil), b.Bs...)})
		_ = b.Close() // never fails
	}
	return entries, nil
}

func (x *walIndex) read(name string, into any) (there bool, err error) {
	b, err := readFile(x.fs, x.dir, name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return false, fmt.Errorf("%w: %s: %w", history.ErrCorrupt, name, err)
	}
	return true, nil
}

func (x *walIndex) write(name string, what any) error {
	b, err := json.Marshal(what)
	if err != nil {
		return err
	}
	return writeFile(x.fs, x.dir, name, b)
}

// CommitState implements types.MetaStore.
func (x *walIndex) CommitState(state types.PersistentState) error {
	if x.sync != nil {
		if err := x.sync(); err != nil {
			return err
		}
	}
	return x.write(segmentsFile, state)
}

// GetStable implements types.MetaStore.
func (x *walIndex) GetStable(key []byte) ([]byte, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.votes[string(key)], nil
}

// SetStable implements types.MetaStore.
func (x *walIndex) SetStable(key, value []byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	votes := maps.Clone(x.votes)
	votes[string(key)] = append([]byte(nil), value...)
	if err := x.write(votesFile, votes); err != nil {
		return err
	}
	x.votes = votes
	return nil
}

// Close implements io.Closer.
func (x *walIndex) Close() error { return nil }
