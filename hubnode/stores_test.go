package hubnode

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
