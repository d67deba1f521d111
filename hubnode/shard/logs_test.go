package shard

import (
	"io"
	"log/slog"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// A follower throws away what a new leader does not have. Its log can be read all
// the same after a restart: raft-wal v0.4.0 could not (hashicorp/raft-wal#31).
func TestALogWhoseEndWasThrownAwayCanBeReadAgain(t *testing.T) {
	dir := t.TempDir()
	open := func() *logs {
		l, err := diskLogs(dir, 0, func(err error) { t.Error(err) }, slog.New(slog.DiscardHandler), hclog.New(&hclog.LoggerOptions{Output: io.Discard}))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
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
	l = open()
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
