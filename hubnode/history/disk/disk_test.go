package disk

import (
	"log/slog"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/history/storetest"
)

func TestMain(m *testing.M) {
	// Left over by databases that can't be opened at the very end: see abandonedMost. One that is
	// not closed leaves more.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/cockroachdb/pebble/v2.(*ConcurrencyLimitScheduler).periodicGranter"))
}

var (
	start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	roomy = history.Limits{MaxArtifacts: 1 << 30}
)

func after(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

// openDB opens a database that is closed when the test ends.
func openDB(tb testing.TB, fs vfs.FS) *DB {
	tb.Helper()
	db, err := Open("db", Options{Log: slog.New(slog.NewTextHandler(tb.Output(), nil)), FS: fs})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Error(err)
		}
	})
	return db
}

func TestShardIsAStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) history.Store {
		t.Helper()
		s := openDB(t, vfs.NewMem()).Shard(7)
		t.Cleanup(func() { _ = s.Close() })
		return s
	})
}
