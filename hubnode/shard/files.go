package shard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"

	"github.com/switchboardhub/switchboard/hubnode/history"
)

// files are where a replica keeps its state. What is created, renamed or deleted may
// be forgotten when the power fails, until its directory is synced.
type files interface {
	// VFS is what the log's segments are in.
	types.VFS
	// Rename puts a file in the place of another one.
	Rename(dir, from, to string) error
	// MkdirAll makes a directory, and those above it.
	MkdirAll(dir string) error
	// RemoveAll removes a directory with all that is in it.
	RemoveAll(dir string) error
	// SyncDir returns once what was done to the names in a directory is there for good.
	SyncDir(dir string) error
}

// machineFiles are the machine's.
type machineFiles struct{ segments *fs.FS }

func newMachineFiles() machineFiles { return machineFiles{fs.New()} }

// ListDir implements types.VFS.
func (m machineFiles) ListDir(dir string) ([]string, error) { return m.segments.ListDir(dir) }

// Create implements types.VFS. A file with a size syncs its directory when it is synced
// itself for the first time.
func (m machineFiles) Create(dir, name string, size uint64) (types.WritableFile, error) {
	if size == 0 {
		return os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) //nolint:gosec // the node's own directory
	}
	return m.segments.Create(dir, name, size)
}

// Delete implements types.VFS.
func (m machineFiles) Delete(dir, name string) error { return m.segments.Delete(dir, name) }

// OpenReader implements types.VFS.
func (m machineFiles) OpenReader(dir, name string) (types.ReadableFile, error) {
	return m.segments.OpenReader(dir, name)
}

// OpenWriter implements types.VFS. Whoever made the file may have died before its name
// was synced.
func (m machineFiles) OpenWriter(dir, name string) (types.WritableFile, error) {
	if err := m.SyncDir(dir); err != nil {
		return nil, err
	}
	return m.segments.OpenWriter(dir, name)
}

func (machineFiles) Rename(dir, from, to string) error {
	return os.Rename(filepath.Join(dir, from), filepath.Join(dir, to))
}

func (machineFiles) MkdirAll(dir string) error  { return os.MkdirAll(dir, 0o700) }
func (machineFiles) RemoveAll(dir string) error { return os.RemoveAll(dir) }

func (machineFiles) SyncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // the node's own directory
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// passing reports whether an error says nothing of what is on the disk: there is no room
// now, or no file descriptor, or the files belong to somebody else, or a log has to be written
// anew before a store is. (An error of reading does, and so does a file that is not there.)
func passing(err error) bool {
	if errors.Is(err, errUnsynced) {
		return true
	}
	for _, is := range []syscall.Errno{
		syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM,
		syscall.EACCES, syscall.EPERM, syscall.EROFS, syscall.EBUSY, syscall.EAGAIN, syscall.EINTR,
	} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

const checksumSize = 4

// appendChecksum returns content and its checksum, in memory of their own.
func appendChecksum(content []byte) []byte {
	b := append(make([]byte, 0, len(content)+checksumSize), content...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(content, castagnoli))
}

// cutChecksum returns the content that appendChecksum was given. The error wraps
// history.ErrCorrupt.
func cutChecksum(b []byte) ([]byte, error) {
	if n := len(b) - checksumSize; n >= 0 && binary.BigEndian.Uint32(b[n:]) == crc32.Checksum(b[:n], castagnoli) {
		return b[:n], nil
	}
	return nil, fmt.Errorf("%w: wrong checksum of %d bytes", history.ErrCorrupt, len(b))
}

// writeFile puts a file in its place whole, or not at all, and returns once it
// survives a crash. It is for readFile: a checksum follows the content.
func writeFile(fs files, dir, name string, content []byte) error {
	unfinished := name + ".new"
	if err := fs.Delete(dir, unfinished); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := fs.Create(dir, unfinished, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(appendChecksum(content), 0)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := fs.Rename(dir, unfinished, name); err != nil {
		return err
	}
	return fs.SyncDir(dir)
}

// readFile returns what writeFile wrote. The error wraps os.ErrNotExist when there is
// no such file, history.ErrCorrupt when it is not as it was written.
func readFile(fs files, dir, name string) ([]byte, error) {
	f, err := fs.OpenReader(dir, name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, math.MaxInt64))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if b, err = cutChecksum(b); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}
