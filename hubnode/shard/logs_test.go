package shard

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"

	"github.com/switchboardhub/switchboard/hubnode/history"
)

// A follower throws away what a new leader does not have. Its log can be read all
// the same after a restart: raft-wal v0.4.0 could not (hashicorp/raft-wal#31).
func TestALogWhoseEndWasThrownAwayCanBeReadAgain(t *testing.T) {
	dir := t.TempDir()
	l := openLogs(t, dir, false)
	for i := range uint64(9) {
		if err := l.entries.StoreLog(&raft.Log{Index: i + 1, Term: 1, Data: []byte{byte(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.entries.DeleteRange(7, 9); err != nil {
		t.Fatal(err)
	}
	if err := l.entries.StoreLog(&raft.Log{Index: 7, Term: 2, Data: []byte{77}}); err != nil {
		t.Fatal(err)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	l = openLogs(t, dir, true)
	for i := range uint64(7) {
		var got raft.Log
		if err := l.entries.GetLog(i+1, &got); err != nil || got.Index != i+1 {
			t.Errorf("entry %d: %v, %v", i+1, got, err)
		}
	}
	if last, err := l.entries.LastIndex(); last != 7 || err != nil {
		t.Errorf("the last entry is %d, %v", last, err)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
}

// What entries are encoded with is no matter of the file: versions before this one encoded
// them otherwise, and read what it wrote.
func TestALogIsWhatRaftWALMakesOfIt(t *testing.T) {
	dir := t.TempDir()
	l := openLogs(t, dir, false)
	var want []*raft.Log
	for i := range uint64(40) {
		want = append(want, &raft.Log{
			Index: i + 1, Term: 1 + i/7, Type: raft.LogCommand, Data: bytes.Repeat([]byte{byte(i)}, int(i*i*i)),
			AppendedAt: time.Unix(int64(i), 5).UTC(),
		})
	}
	for _, some := range [][]*raft.Log{want[:1], want[1:30], want[30:]} {
		if err := l.entries.StoreLogs(some); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	w, err := wal.Open(dir, wal.WithMetaStore(&walIndex{fs: newMachineFiles(), begun: true}), wal.WithSegmentSize(segmentBytes), wal.WithLogger(hclog.NewNullLogger()))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range want {
		checked := *l
		checked.Extensions = checksumOf(l)
		var got raft.Log
		if err := w.GetLog(l.Index, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(checked, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("entry %d:\n%s", l.Index, diff)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// A log of which a part is missing or damaged is not opened as if it were empty.
func TestALogThatLostAPartIsNotOpened(t *testing.T) {
	for _, name := range []string{segmentsFile, votesFile} {
		for what, damage := range map[string]func(path string) error{
			"missing": os.Remove,
			"cut off": func(path string) error { return os.Truncate(path, 3) },
			"flipped": func(path string) error {
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				b[len(b)/2] ^= 4
				return os.WriteFile(path, b, 0o600)
			},
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				dir := t.TempDir()
				l := openLogs(t, dir, false)
				if err := errors.Join(l.votes.SetUint64([]byte("CurrentTerm"), 7), l.entries.StoreLog(&raft.Log{Index: 1, Term: 7}), l.close()); err != nil {
					t.Fatal(err)
				}
				l = openLogs(t, dir, true)
				if term, err := l.votes.GetUint64([]byte("CurrentTerm")); term != 7 || err != nil {
					t.Fatalf("the term is %d, %v", term, err)
				}
				if err := l.close(); err != nil {
					t.Fatal(err)
				}
				if err := damage(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
				if _, err := diskLogs(logsIn(t, newMachineFiles(), dir, true)); !errors.Is(err, history.ErrCorrupt) {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}

func openLogs(t *testing.T, dir string, begun bool) *logs {
	t.Helper()
	l, err := diskLogs(logsIn(t, newMachineFiles(), dir, begun))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func logsIn(t *testing.T, fs files, dir string, begun bool) logOptions {
	t.Helper()
	return logOptions{
		files: fs, dir: dir, begun: begun, segment: segmentBytes, damaged: func(err error) { t.Error(err) },
		log: slog.New(slog.DiscardHandler), raftLog: hclog.NewNullLogger(),
	}
}
