package hubnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/history/disk"
)

func TestDiskOfAnotherNumberOfShardsIsRefused(t *testing.T) {
	dir := t.TempDir()
	open := func(shards int) error {
		s := stores{dir: dir, shards: shards, log: slog.New(slog.DiscardHandler)}
		if err := s.open(); err != nil {
			return err
		}
		return s.close()
	}
	for range 2 { // a new disk, and the same again
		if err := open(16); err != nil {
			t.Fatal(err)
		}
	}
	const want = "holds history in 16 shards, the settings say 8: set storage.shards to 16"
	if err := open(8); err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("%v, want an error with %q", err, want)
	}
	if err := open(16); err != nil {
		t.Fatalf("after it was refused: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "layout"), nil, 0o600); err != nil { // as a power cut may leave it
		t.Fatal(err)
	}
	if err := open(16); err != nil {
		t.Fatalf("with an empty note: %v", err)
	}
}

func TestDiskThatCantBeOpenedIsTriedAgain(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := stores{dir: dir, shards: 16, log: slog.New(slog.DiscardHandler)}
		var tries []time.Duration
		start := time.Now()
		s.openDisk = func(string, disk.Options) (*disk.DB, error) {
			tries = append(tries, time.Since(start))
			return nil, fmt.Errorf("%w: write 00000%d.sst", history.ErrFull, len(tries))
		}
		var said []absence
		err := s.awaitOpen(ctx, func() {
			if said = append(said, *s.away.Load()); len(said) == 8 {
				cancel()
			}
		})
		if err != nil {
			t.Errorf("a disk that is full until the node ends: %v", err)
		}
		if want := []int{0, 1, 3, 7, 15, 31, 61, 91}; !slices.EqualFunc(tries, want, func(at time.Duration, seconds int) bool { return at == time.Duration(seconds)*time.Second }) {
			t.Errorf("it was tried after %v, want seconds %d", tries, want)
		}
		for _, away := range said {
			if away != (absence{start, "there is no room on the disk"}) {
				t.Errorf("it says %q since %v, want the same each time", away.why, away.since.Sub(start))
			}
		}
	})
}

func TestDiskThatFreesUpIsOpened(t *testing.T) {
	s := stores{dir: t.TempDir(), shards: 16, log: slog.New(slog.DiscardHandler)}
	s.openDisk = func(dir string, o disk.Options) (*disk.DB, error) {
		if s.away.Load() == nil {
			return nil, errors.New("input/output error")
		}
		return disk.Open(dir, o)
	}
	var why string
	if err := s.awaitOpen(t.Context(), func() { why = s.away.Load().why }); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(why, "input/output error") {
		t.Errorf("it said %q meanwhile", why)
	}
	if away := s.away.Load(); away != nil {
		t.Errorf("it is open, and says %q", away.why)
	}
	if _, err := s.store(3); err != nil {
		t.Error(err)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	s.openDisk = func(string, disk.Options) (*disk.DB, error) {
		return nil, fmt.Errorf("open history: %w", disk.ErrSpent)
	}
	if err := s.awaitOpen(t.Context(), func() { t.Error("a disk that only a new process can open is tried again") }); !errors.Is(err, disk.ErrSpent) {
		t.Errorf("a disk that only a new process can open: %v", err)
	}
	s.shards = 8
	var layout *layoutError
	if err := s.awaitOpen(t.Context(), func() { t.Error("a disk of another number of shards is tried again") }); !errors.As(err, &layout) {
		t.Errorf("a disk of another number of shards: %v", err)
	}
}
