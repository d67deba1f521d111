package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

const flipRuns = 60

// flipBody is short, but for a few that lie apart from their keys.
func flipBody(i int) []byte {
	repeats := 10
	if i%30 == 0 {
		repeats = apartBytes / 5
	}
	return bytes.Repeat([]byte(fmt.Sprint("body ", i)), repeats)
}

// TestAFlippedByteIsNoticed flips bytes of all files in turn. What is lost may
// be noticed when it is opened or when it is read.
func TestAFlippedByteIsNoticed(t *testing.T) {
	fs := vfs.NewMem()
	reopen(t, fs, func(db *DB) {
		for i := range flipRuns {
			err := db.Shard(1).Append(after(i), "a", roomy, history.Run{First: wire.Sequence(i + 1), Count: 1, From: "p", Body: flipBody(i)})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	})
	names, err := fs.List("db")
	if err != nil {
		t.Fatal(err)
	}
	noticed := make(map[string]int)
	aparts := 0
	for _, name := range names {
		apart := strings.HasSuffix(name, ".blob")
		table := apart || strings.HasSuffix(name, ".sst")
		if !table && !strings.HasPrefix(name, "MANIFEST") {
			continue
		}
		good := readFile(t, fs, name)
		lost := 0
		if apart {
			aparts++
		}
		for at := range good {
			if table && at%31 != 0 && at < len(good)-100 {
				continue
			}
			broken := bytes.Clone(good)
			broken[at] ^= 0x10
			copied := vfs.NewMem()
			for _, other := range names {
				content := broken
				if other != name {
					content = readFile(t, fs, other)
				}
				writeFile(t, copied, other, content)
			}
			err := readFlipped(t, copied)
			switch {
			case errors.Is(err, history.ErrCorrupt):
				noticed[name]++
			case errors.Is(err, errLost):
				lost++
			case err != nil:
				t.Errorf("%s, byte %d: %v", name, at, err)
			}
		}
		t.Logf("%s: %d bytes, %d of the flips were noticed, %d lost what was at the end", name, len(good), noticed[name], lost)
		if table && noticed[name] < 100 {
			t.Errorf("%d flips in %s were noticed", noticed[name], name)
		}
	}
	if aparts == 0 {
		t.Error("no run lies apart from its key")
	}
}

var errLost = errors.New("what was appended last is not there")

// readFlipped reads what there is and fails a test when it is wrong.
func readFlipped(t *testing.T, fs vfs.FS) error {
	t.Helper()
	db, err := Open("db", Options{FS: fs})
	if err != nil {
		return err
	}
	defer func() {
		if err := db.Close(); err != nil && !errors.Is(err, history.ErrCorrupt) {
			t.Errorf("Close = %v", err)
		}
	}()
	s := db.Shard(1)
	next := wire.Sequence(1)
	b, _, err := s.Bounds("a")
	if err != nil {
		return err
	}
	for next < b.Next {
		next, err = s.Read("a", next, 500, func(r history.Run) {
			i := int(r.First - 1)
			if i >= flipRuns || r.Count != 1 || r.From != "p" || !r.Time.Equal(after(i)) || !bytes.Equal(r.Body, flipBody(i)) {
				t.Errorf("wrong run %+v", r)
			}
		})
		if err != nil {
			return err
		}
	}
	if b.Next != flipRuns+1 {
		return errLost
	}
	_, err = s.SequenceAt("a", after(20))
	return err
}

func readFile(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(fs.PathJoin("db", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	content := make([]byte, info.Size())
	if _, err := f.ReadAt(content, 0); err != nil && len(content) > 0 {
		t.Fatal(err)
	}
	return content
}

func writeFile(t *testing.T, fs vfs.FS, name string, content []byte) {
	t.Helper()
	if err := fs.MkdirAll("db", 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Create(fs.PathJoin("db", name), vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
}

// TestAMissingFileIsNoticed takes a file whose absence is no hindrance to opening.
func TestAMissingFileIsNoticed(t *testing.T) {
	fs := vfs.NewMem()
	reopen(t, fs, func(db *DB) {
		run := history.Run{First: 1, Count: 1, From: "p", Body: flipBody(0)}
		if err := errors.Join(db.Shard(1).Append(after(0), "a", roomy, run), db.Flush()); err != nil {
			t.Fatal(err)
		}
	})
	names, err := fs.List("db")
	if err != nil {
		t.Fatal(err)
	}
	removed := 0
	for _, name := range names {
		if strings.HasSuffix(name, ".blob") {
			removed++
			if err := fs.Remove(fs.PathJoin("db", name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if removed == 0 {
		t.Fatal("no run lies apart from its key")
	}
	reopen(t, fs, func(db *DB) {
		if _, err := db.Shard(1).Read("a", 1, 1, func(history.Run) {}); !errors.Is(err, history.ErrCorrupt) {
			t.Errorf("Read = %v, want corrupt", err)
		}
	})
}

// Damage that keeps the store from being opened is told from what is wrong around it.
func TestWhatKeepsAStoreFromBeingOpened(t *testing.T) {
	made := func(t *testing.T) string {
		t.Helper()
		dir := t.TempDir()
		db, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		run := history.Run{First: 1, Count: 1, From: "a", Time: time.Unix(1, 0), Body: flipBody(0)}
		if err := errors.Join(db.Shard(0).Append(time.Unix(1, 0), "t", history.Limits{MaxArtifacts: 9}, run), db.Flush(), db.Close()); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	each := func(t *testing.T, pattern string, change func(path string) error) {
		t.Helper()
		all, err := filepath.Glob(pattern)
		if err != nil || len(all) == 0 {
			t.Fatalf("%s: %v, %v", pattern, all, err)
		}
		for _, path := range all {
			if err := change(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, test := range map[string]struct {
		do      func(t *testing.T, dir string)
		corrupt bool
	}{
		"a table is not there":      {func(t *testing.T, dir string) { t.Helper(); each(t, dir+"/*.sst", os.Remove) }, true},
		"the manifest is not there": {func(t *testing.T, dir string) { t.Helper(); each(t, dir+"/MANIFEST-*", os.Remove) }, true},
		"another name in the options": {func(t *testing.T, dir string) {
			t.Helper()
			each(t, dir+"/OPTIONS-*", func(p string) error {
				b, err := os.ReadFile(p)
				if err != nil {
					return err
				}
				return os.WriteFile(p, bytes.Replace(b, []byte("pebble.concatenate"), []byte("pebble.concaten`te"), 1), 0o600)
			})
		}, true},
		"it is a file": {func(t *testing.T, dir string) {
			t.Helper()
			if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}, false},
		"it is open": {func(t *testing.T, dir string) {
			t.Helper()
			db, err := Open(dir, Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := made(t)
			test.do(t, dir)
			db, err := Open(dir, Options{})
			if err == nil {
				_ = db.Close()
			}
			if err == nil || errors.Is(err, history.ErrCorrupt) != test.corrupt {
				t.Errorf("got %v; is it damage? want %v", err, test.corrupt)
			}
		})
	}
}
