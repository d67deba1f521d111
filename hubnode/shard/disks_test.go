package shard

import (
	"errors"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft-wal/types"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/history/disk"
)

// machineDisk is the disk of one machine: what its store and its logs write is in one
// file system, which forgets what was not synced when the power fails.
type machineDisk struct {
	mu    sync.Mutex // guards the fields below
	files *vfs.MemFS
}

func newMachineDisk() *machineDisk { return &machineDisk{files: vfs.NewCrashableMem()} }

func (d *machineDisk) now() *vfs.MemFS {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.files
}

// powerFails returns what a disk holds if the power fails now: what was synced, and by
// chance some of what was not.
func (d *machineDisk) powerFails(chance *rand.Rand) *vfs.MemFS {
	return d.now().CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: chance.IntN(101), RNG: chance})
}

// replace puts other content in place of what there is.
func (d *machineDisk) replace(fs *vfs.MemFS) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files = fs
}

// memFiles are the files of a machineDisk, as a replica's logs see them. onChange, if
// any, is called after each change.
type memFiles struct {
	fs       *vfs.MemFS
	onChange func()
}

func (m memFiles) changed() {
	if m.onChange != nil {
		m.onChange()
	}
}

func (m memFiles) ListDir(dir string) ([]string, error) {
	names, err := m.fs.List(dir)
	slices.Sort(names)
	return names, err
}

// Create is like that of raft-wal: the name is synced with the content, at the first time.
func (m memFiles) Create(dir, name string, size uint64) (types.WritableFile, error) {
	if _, err := m.fs.Stat(path.Join(dir, name)); err == nil {
		return nil, os.ErrExist
	}
	f, err := m.fs.Create(path.Join(dir, name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	m.changed()
	return &memFile{File: f, of: m, dir: dir, syncName: size > 0}, nil
}

func (m memFiles) Delete(dir, name string) error {
	if err := m.fs.Remove(path.Join(dir, name)); err != nil {
		return err
	}
	m.changed()
	return m.SyncDir(dir)
}

func (m memFiles) OpenReader(dir, name string) (types.ReadableFile, error) {
	return m.fs.Open(path.Join(dir, name))
}

func (m memFiles) OpenWriter(dir, name string) (types.WritableFile, error) {
	if _, err := m.fs.Stat(path.Join(dir, name)); err != nil {
		return nil, err
	}
	f, err := m.fs.OpenReadWrite(path.Join(dir, name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	return &memFile{File: f, of: m, dir: dir}, m.SyncDir(dir)
}

func (m memFiles) Rename(dir, from, to string) error {
	defer m.changed()
	return m.fs.Rename(path.Join(dir, from), path.Join(dir, to))
}

func (m memFiles) MkdirAll(dir string) error {
	defer m.changed()
	return m.fs.MkdirAll(dir, 0o700)
}

// RemoveAll is not done at once: a crash can leave any part of it.
func (m memFiles) RemoveAll(dir string) error {
	names, err := m.fs.List(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	slices.Sort(names)
	slices.Reverse(names) // the segments, whose names are digits, last
	for _, name := range names {
		if err := m.fs.Remove(path.Join(dir, name)); err != nil {
			return err
		}
		m.changed()
	}
	return m.fs.Remove(dir)
}

func (m memFiles) SyncDir(dir string) error {
	d, err := m.fs.OpenDir(dir)
	if err != nil {
		return err
	}
	defer m.changed()
	return errors.Join(d.Sync(), d.Close())
}

type memFile struct {
	vfs.File
	of       memFiles
	dir      string
	syncName bool
}

func (f *memFile) WriteAt(b []byte, at int64) (int, error) {
	defer f.of.changed()
	return f.File.WriteAt(b, at)
}

func (f *memFile) Sync() error {
	err := f.File.Sync()
	f.of.changed()
	if err == nil && f.syncName {
		f.syncName = false
		err = f.of.SyncDir(f.dir)
	}
	return err
}

// disks are those of a group's machines.
type disks struct {
	mu  sync.Mutex // guards the map
	all map[string]*machineDisk
}

func newDisks() *disks { return &disks{all: make(map[string]*machineDisk)} }

func (d *disks) of(node string) *machineDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all[node] == nil {
		d.all[node] = newMachineDisk()
	}
	return d.all[node]
}

// lose replaces a machine's disk by an empty one.
func (d *disks) lose(node string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.all, node)
}

// fail cuts the power of all machines at one moment and returns what their disks hold.
func (d *disks) fail(chance *rand.Rand) map[string]*vfs.MemFS {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := make(map[string]*vfs.MemFS)
	for _, node := range slices.Sorted(maps.Keys(d.all)) {
		left[node] = d.all[node].powerFails(chance)
	}
	return left
}

// openHistory opens a machine's history. What is broken is thrown away, as a node does.
func openHistory(t *testing.T, fs vfs.FS, dir string) *disk.DB {
	t.Helper()
	o := disk.Options{FS: fs, Log: slog.New(slog.DiscardHandler)}
	db, err := disk.Open(fs.PathJoin(dir, "history"), o)
	if errors.Is(err, history.ErrCorrupt) {
		t.Log(err)
		for _, part := range []string{"shards", "history"} {
			if err := fs.RemoveAll(fs.PathJoin(dir, part)); err != nil {
				t.Fatal(err)
			}
			syncDir(t, fs, dir)
		}
		db, err = disk.Open(fs.PathJoin(dir, "history"), o)
	}
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func syncDir(t *testing.T, fs vfs.FS, dir string) {
	t.Helper()
	d, err := fs.OpenDir(dir)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// content returns all of a file.
func content(t *testing.T, fs *vfs.MemFS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

// filesIn returns the paths of all files below a directory.
func filesIn(t *testing.T, fs *vfs.MemFS, dir string) []string {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, name := range names {
		name = filepath.Join(dir, name)
		info, err := fs.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case info.IsDir():
			all = append(all, filesIn(t, fs, name)...)
		case !strings.HasSuffix(name, "LOCK"):
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}
