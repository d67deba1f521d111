package shard

import (
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft-wal/types"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/hubnode/history/disk"
)

// machineDisk is the disk of one machine: what its store and its logs write is in one
// file system, which forgets what was not synced when the power fails.
type machineDisk struct {
	files  *vfs.MemFS
	frozen sync.RWMutex          // held while nothing of the logs reaches it
	votes  atomic.Pointer[error] // what writing votes fails with; nil: it does not
	failed atomic.Int64          // how often it did
	drops  atomic.Int64          // so many times syncing a file of a log fails: what was written to it is dropped
}

// keepsNoVotes makes it impossible to write votes, or possible again.
func (d *machineDisk) keepsNoVotes(why error) {
	if why == nil {
		d.votes.Store(nil)
		return
	}
	d.votes.Store(&why)
}

func newMachineDisk(fs *vfs.MemFS) *machineDisk { return &machineDisk{files: fs} }

// powerFails returns what a disk holds if the power fails now: what was synced, and by
// chance some of what was not.
func (d *machineDisk) powerFails(chance *rand.Rand) *vfs.MemFS {
	return d.files.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: chance.IntN(101), RNG: chance})
}

// killed returns what a disk holds if only the processes end now: all that they did.
func (d *machineDisk) killed(t *testing.T) *vfs.MemFS {
	t.Helper()
	left := vfs.NewCrashableMem()
	if _, err := vfs.Clone(d.files, left, "node", "node", vfs.CloneSync); err != nil {
		t.Errorf("copy a disk: %v", err)
	}
	return left
}

// memFiles are the files of a machineDisk, as a replica's logs see them.
type memFiles struct {
	*machineDisk
	onChange func()                          // called after each change; may be nil
	onSync   func(name string) (done func()) // called before a file is synced, and done after it; may be nil
}

// change does one thing to the disk.
func (m memFiles) change(do func() error) error {
	m.frozen.RLock()
	err := do()
	m.frozen.RUnlock()
	if err == nil && m.onChange != nil {
		m.onChange()
	}
	return err
}

func (m memFiles) ListDir(dir string) ([]string, error) {
	names, err := m.files.List(dir)
	slices.Sort(names)
	return names, err
}

// Create is like that of raft-wal: the name of a file with a size is synced with its
// content, at the first time.
func (m memFiles) Create(dir, name string, size uint64) (types.WritableFile, error) {
	if why := m.votes.Load(); why != nil && strings.HasPrefix(name, votesFile) {
		m.failed.Add(1)
		return nil, &os.PathError{Op: "open", Path: path.Join(dir, name), Err: *why}
	}
	var f vfs.File
	err := m.change(func() (err error) {
		if _, err := m.files.Stat(path.Join(dir, name)); err == nil {
			return os.ErrExist
		}
		f, err = m.files.Create(path.Join(dir, name), vfs.WriteCategoryUnspecified)
		return err
	})
	return &memFile{File: f, of: m, dir: dir, name: name, syncName: size > 0}, err
}

func (m memFiles) Delete(dir, name string) error {
	if err := m.change(func() error { return m.files.Remove(path.Join(dir, name)) }); err != nil {
		return err
	}
	return m.SyncDir(dir)
}

func (m memFiles) OpenReader(dir, name string) (types.ReadableFile, error) {
	return m.files.Open(path.Join(dir, name))
}

func (m memFiles) OpenWriter(dir, name string) (types.WritableFile, error) {
	if _, err := m.files.Stat(path.Join(dir, name)); err != nil {
		return nil, err
	}
	f, err := m.files.OpenReadWrite(path.Join(dir, name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	return &memFile{File: f, of: m, dir: dir, name: name}, m.SyncDir(dir)
}

func (m memFiles) Rename(dir, from, to string) error {
	return m.change(func() error { return m.files.Rename(path.Join(dir, from), path.Join(dir, to)) })
}

func (m memFiles) MkdirAll(dir string) error {
	return m.change(func() error { return m.files.MkdirAll(dir, 0o700) })
}

// RemoveAll is not done at once: a crash can leave any part of it.
func (m memFiles) RemoveAll(dir string) error {
	names, err := m.ListDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, name := range names {
		if err == nil {
			err = m.change(func() error { return m.files.Remove(path.Join(dir, name)) })
		}
	}
	if err != nil {
		return err
	}
	return m.change(func() error { return m.files.Remove(dir) })
}

func (m memFiles) SyncDir(dir string) error {
	d, err := m.files.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(m.change(d.Sync), d.Close())
}

type memFile struct {
	vfs.File
	of       memFiles
	dir      string
	name     string
	syncName bool
	dropped  bool // what is written to it never reaches the disk, and nobody is told any more
}

func (f *memFile) WriteAt(b []byte, at int64) (n int, err error) {
	return len(b), f.of.change(func() error {
		_, err := f.File.WriteAt(b, at)
		return err
	})
}

func (f *memFile) Sync() error {
	if f.of.onSync != nil {
		defer f.of.onSync(f.name)()
	}
	if f.dropped {
		return nil
	}
	if strings.HasSuffix(f.name, ".wal") && f.of.drops.Add(-1) >= 0 {
		f.dropped = true
		return &os.PathError{Op: "sync", Path: path.Join(f.dir, f.name), Err: syscall.EIO}
	}
	err := f.of.change(f.File.Sync)
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
		d.all[node] = newMachineDisk(vfs.NewCrashableMem())
	}
	return d.all[node]
}

// replace gives a machine another disk.
func (d *disks) replace(node string, fs *vfs.MemFS) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all[node] = newMachineDisk(fs)
}

// powerFails takes the power from some nodes at one moment, and gives it back when all
// of them are down.
func (g *group) powerFails(chance *rand.Rand, nodes ...string) {
	left := make(map[string]*vfs.MemFS)
	for _, node := range nodes {
		g.disks.of(node).frozen.Lock()
	}
	for _, node := range nodes {
		left[node] = g.disks.of(node).powerFails(chance)
	}
	for _, node := range nodes {
		if m := g.node(node); m != nil {
			g.cutOff(m) // it says nothing any more of what it does in the rest of its life
		}
	}
	for _, node := range nodes {
		g.disks.of(node).frozen.Unlock()
	}
	for _, node := range nodes {
		g.kill(node)
		g.disks.replace(node, left[node])
	}
	for _, node := range nodes {
		g.start(node)
	}
}

// openHistory opens a machine's history. What is broken is thrown away, as a node does.
func openHistory(t *testing.T, fs vfs.FS, dir string, beforeFlush func() error) *disk.DB {
	t.Helper()
	o := disk.Options{FS: fs, Log: slog.New(slog.DiscardHandler), BeforeFlush: beforeFlush}
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
