package disk

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/blob"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// guardFS makes a full disk bearable for pebble.
//
// When a table can't be written pebble tries again at once, for ever: such a
// failure is told slowly. When the manifest can't be written pebble ends the
// process, as it can't tell what is in the file: such writes are tried here
// until they succeed, and pebble sees none of it. Only Open, which has nothing
// to lose, is told. (A file that could not be synced is another matter: see Sync.)
//
// Nor does it let pebble open a file of runs that lie apart whose end is damaged:
// pebble (2.1.7) panics over that, on whichever goroutine.
//
// Before a file is made that memory is flushed to, it calls beforeFlush. What goes into the
// file was appended by then.
type guardFS struct {
	vfs.FS
	health      *health
	beforeFlush func() error // may be nil
}

// flushCategory is pebble's, of the files that memory is flushed to.
const flushCategory vfs.DiskWriteCategory = "pebble-memtable-flush"

// vital reports whether pebble gives up when a file can't be written.
func vital(fs vfs.FS, name string) bool {
	base := fs.PathBase(name)
	return strings.HasPrefix(base, "MANIFEST") || strings.HasPrefix(base, "marker.")
}

// try calls op until it succeeds or fails for another reason than a full disk.
func (g *guardFS) try(name string, isVital bool, op func() error) error {
	for waited := false; ; waited = true {
		err := op()
		if err == nil || !g.health.opened.Load() {
			if waited {
				g.health.waited(name)
			}
			return err
		}
		if !isVital || !vfs.IsNoSpaceError(err) {
			if waited {
				g.health.waited(name)
			}
			if vfs.IsNoSpaceError(err) {
				time.Sleep(retryInterval)
			}
			return err
		}
		g.health.waiting(name, err)
		time.Sleep(retryInterval)
	}
}

// Create implements vfs.FS.
func (g *guardFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	isVital := vital(g.FS, name)
	if strings.HasSuffix(name, ".log") { // of which it makes one though it uses none
		g.health.scheduled.Store(true)
	}
	if category == flushCategory && g.beforeFlush != nil {
		if err := g.beforeFlush(); err != nil {
			time.Sleep(retryInterval) // pebble tries again at once
			return nil, err
		}
	}
	var f vfs.File
	err := g.try(name, isVital, func() (err error) {
		f, err = g.FS.Create(name, category)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &guardFile{File: f, fs: g, name: name, vital: isVital}, nil
}

// Open implements vfs.FS.
func (g *guardFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := g.FS.Open(name, opts...)
	if !strings.HasSuffix(name, ".blob") {
		return f, err
	}
	if err != nil {
		return nil, err
	}
	if err := checkEnd(f); err != nil {
		g.health.corrupted(pebble.DataCorruptionInfo{Path: name, Details: err})
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// checkEnd returns an error when pebble would find a file's end damaged. The error is
// none that pebble knows.
func checkEnd(f vfs.File) error {
	r, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return err
	}
	_, err = blob.NewFileReader(context.Background(), r, blob.FileReaderOptions{})
	if err != nil && pebble.IsCorruptionError(err) {
		return corrupt("%v", err) // %w would let pebble see what it is
	}
	return err
}

// OpenDir implements vfs.FS. What pebble does to a directory can't be given up.
func (g *guardFS) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &guardFile{File: f, fs: g, name: name, vital: true}, nil
}

// Rename implements vfs.FS.
func (g *guardFS) Rename(oldname, newname string) error {
	return g.try(newname, vital(g.FS, newname), func() error { return g.FS.Rename(oldname, newname) })
}

// Unwrap implements vfs.FS.
func (g *guardFS) Unwrap() vfs.FS { return g.FS }

type guardFile struct {
	vfs.File
	fs    *guardFS
	name  string
	vital bool
}

// Write implements vfs.File.
func (f *guardFile) Write(p []byte) (n int, err error) {
	err = f.fs.try(f.name, f.vital, func() error {
		k, err := f.File.Write(p[n:])
		n += k
		return err
	})
	return n, err
}

// Preallocate implements vfs.File.
func (f *guardFile) Preallocate(offset, length int64) error {
	return f.fs.try(f.name, f.vital, func() error { return f.File.Preallocate(offset, length) })
}

// Sync implements vfs.File. What failed is not tried again: the kernel may have dropped what
// it could not write, and says of the next try that all is well. Pebble writes a table to
// another file then, and ends the process over its manifest: who starts it again begins with
// what is there, and a new one.
func (f *guardFile) Sync() error { return f.fs.try(f.name, false, f.File.Sync) }

// SyncData implements vfs.File.
func (f *guardFile) SyncData() error { return f.fs.try(f.name, false, f.File.SyncData) }

// SyncTo implements vfs.File.
func (f *guardFile) SyncTo(length int64) (fullSync bool, err error) {
	err = f.fs.try(f.name, false, func() (err error) {
		fullSync, err = f.File.SyncTo(length)
		return err
	})
	return fullSync, err
}
