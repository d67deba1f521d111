package client

import (
	"bufio"
	"bytes"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/switchboardhub/switchboard/wire"
)

// FuzzReadBackup checks that whatever is not a whole backup is refused, and that what
// is visited is frames.
func FuzzReadBackup(f *testing.F) {
	var whole bytes.Buffer
	b := &backupWriter{to: bufio.NewWriter(&whole), sum: crc32.New(crc32.MakeTable(crc32.Castagnoli))}
	b.write([]byte(backupMagic))
	b.write(wire.AppendFrame(nil, wire.Header{Kind: wire.KindRestore, Sequence: 7}, "t", "", nil))
	b.write(wire.AppendFrame(nil, wire.Header{Kind: wire.KindPublish, Count: 1, Sequence: 7}, "t", "me", []byte("run")))
	b.total.Checksum = b.sum.Sum32()
	b.write(wire.AppendControl(nil, wire.Header{Kind: wire.KindGoodbye}, "", b.total))
	if err := b.to.Flush(); err != nil {
		f.Fatal(err)
	}
	f.Add(whole.Bytes())
	f.Add(whole.Bytes()[:whole.Len()-3])
	f.Add([]byte(backupMagic))
	f.Fuzz(func(t *testing.T, file []byte) {
		bytesOfFrames := int64(len(backupMagic))
		total, err := readBackup(bytes.NewReader(file), func(frame wire.Frame) error {
			bytesOfFrames += int64(len(frame))
			return nil
		})
		switch {
		case err == nil && total.Bytes != bytesOfFrames:
			t.Errorf("%d bytes were visited of a backup of %d", bytesOfFrames, total.Bytes)
		case err != nil && !errors.Is(err, ErrBadBackup):
			t.Errorf("got %v", err)
		}
	})
}
