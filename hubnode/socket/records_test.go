//go:build linux || darwin

package socket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// FuzzRecords cuts a stream into reads of the system and reads it in pieces of any
// size: all of it comes, and no piece is of two records.
func FuzzRecords(f *testing.F) {
	record := func(n int) []byte { return append([]byte{23, 3, 3, byte(n >> 8), byte(n)}, make([]byte, n)...) }
	f.Add(record(0), uint16(1), uint16(3))
	f.Add(append(record(300), record(2)...), uint16(7), uint16(100))
	f.Add(append(append(record(0), record(0)...), 23, 3), uint16(5), uint16(1))
	f.Fuzz(func(t *testing.T, stream []byte, arrives, reads uint16) {
		ends := make(map[int]bool) // where records end
		for at := 0; at+headerSize <= len(stream); {
			at += headerSize + int(binary.BigEndian.Uint16(stream[at+3:]))
			ends[at] = true
		}
		r := newRecords(nil)
		var got []byte
		b := make([]byte, max(1, reads))
		for rest := stream; len(rest) > 0; {
			n := min(len(rest), max(1, int(arrives)))
			part := bytes.Clone(rest[:n])
			r.in, r.start, r.end = &part, 0, n
			rest = rest[n:]
			for {
				n, err := r.Read(b)
				if errors.Is(err, errNothing) {
					break
				}
				if err != nil || n == 0 {
					t.Fatalf("Read = %d, %v", n, err)
				}
				for i := len(got) + 1; i < len(got)+n; i++ {
					if ends[i] {
						t.Fatalf("a read of %d bytes at %d goes beyond the end at %d", n, len(got), i)
					}
				}
				got = append(got, b[:n]...)
			}
		}
		if !bytes.Equal(got, stream) {
			t.Errorf("read %x of %x", got, stream)
		}
	})
}

// Answers that nobody reads don't pile up for ever.
func TestUnsentAnswersAreBounded(t *testing.T) {
	r := newRecords(nil)
	r.hold()
	answer := make([]byte, 100)
	for n := 0; n <= maxUnsent; n += len(answer) {
		if _, err := r.Write(answer); err != nil {
			if n < outSize {
				t.Errorf("refused after %d bytes: %v", n, err)
			}
			return
		}
	}
	t.Errorf("took more than %d bytes", maxUnsent)
}
