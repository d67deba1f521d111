package shard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/switchboardhub/switchboard/hubnode/history"
)

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
func writeFile(dir, name string, content []byte) error {
	f, err := os.CreateTemp(dir, name+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(appendChecksum(content))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // the node's own directory
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readFile returns what writeFile wrote. The error wraps os.ErrNotExist when there is
// no such file, history.ErrCorrupt when it is not as it was written.
func readFile(dir, name string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(dir, name)) //nolint:gosec // the node's own directory
	if err != nil {
		return nil, err
	}
	if b, err = cutChecksum(b); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}
