package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// A key is a kind, a shard, a topic's number and, for runs, the sequence of the
// last artifact, all big endian. States and names lie apart from the runs, so
// that opening reads only them.
const (
	kindName  byte = 'n' // a topic's name
	kindState byte = 's' // its state, written with each change
	kindRun   byte = 'r'

	topicKeyLen = 1 + 4 + 4
	runKeyLen   = topicKeyLen + 8
)

var errMalformed = errors.New("malformed entry")

func appendShardKey(b []byte, kind byte, shard uint32) []byte {
	return binary.BigEndian.AppendUint32(append(b, kind), shard)
}

func appendTopicKey(b []byte, kind byte, shard, topic uint32) []byte {
	return binary.BigEndian.AppendUint32(appendShardKey(b, kind, shard), topic)
}

func appendRunKey(b []byte, shard, topic uint32, last wire.Sequence) []byte {
	return appendSequence(appendTopicKey(b, kindRun, shard, topic), last)
}

func appendSequence(b []byte, s wire.Sequence) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(s))
}

func parseTopicKey(key []byte) (shard, topic uint32, err error) {
	if len(key) != topicKeyLen {
		return 0, 0, errMalformed
	}
	return binary.BigEndian.Uint32(key[1:]), binary.BigEndian.Uint32(key[5:]), nil
}

// stored is a run as it lies on disk.
type stored struct {
	run    history.Run
	at     int64  // append, Unix nanoseconds
	before uint64 // bytes of the bodies the topic was ever given before this one
}

func (r *stored) end() wire.Sequence { return r.run.First + wire.Sequence(r.run.Count) }

// appendRunHeader appends what comes before a run's body; total counts the
// bodies up to it.
func appendRunHeader(b []byte, run history.Run, at int64, total uint64) []byte {
	b = binary.AppendUvarint(b, uint64(run.Count))
	b = binary.AppendVarint(b, at)
	b = binary.AppendUvarint(b, total)
	b = binary.AppendUvarint(b, uint64(len(run.From)))
	return append(b, run.From...)
}

// parseRun reads an entry into r. The body is a part of value.
func parseRun(key, value []byte, r *stored) error {
	if len(key) != runKeyLen {
		return errMalformed
	}
	last := binary.BigEndian.Uint64(key[topicKeyLen:])
	d := decoder{b: value}
	count := d.uvarint()
	at := d.varint()
	total := d.uvarint()
	from := d.bytes(d.uvarint())
	if d.bad || count == 0 || count > last || total < uint64(len(d.b)) {
		return errMalformed
	}
	*r = stored{
		run: history.Run{
			First: wire.Sequence(last - count + 1), Count: int(count),
			From: wire.ClientID(from), Time: unixNano(at), Body: slices.Clip(d.b),
		},
		at:     at,
		before: total - uint64(len(d.b)),
	}
	return nil
}

// appendState appends a topic's state: small numbers where they are mostly
// small.
func appendState(b []byte, s *state) []byte {
	b = binary.AppendUvarint(b, uint64(s.next))
	b = binary.AppendUvarint(b, uint64(s.next-s.first))
	b = binary.AppendUvarint(b, uint64(s.next-s.purged))
	b = binary.AppendUvarint(b, s.total)
	b = binary.AppendUvarint(b, s.total-s.base)
	b = binary.AppendVarint(b, s.newest)
	b = binary.AppendUvarint(b, uint64(s.newest-s.oldest))
	b = binary.AppendVarint(b, int64(s.limits.MaxArtifacts))
	b = binary.AppendVarint(b, s.limits.MaxBytes)
	return binary.AppendVarint(b, int64(s.limits.MaxAge))
}

func parseState(value []byte) (state, error) {
	d := decoder{b: value}
	var s state
	s.next = wire.Sequence(d.uvarint())
	s.first = s.next - wire.Sequence(d.uvarint())
	s.purged = s.next - wire.Sequence(d.uvarint())
	s.total = d.uvarint()
	s.base = s.total - d.uvarint()
	s.newest = d.varint()
	s.oldest = s.newest - int64(d.uvarint())
	s.limits.MaxArtifacts = int(d.varint())
	s.limits.MaxBytes = d.varint()
	s.limits.MaxAge = time.Duration(d.varint())
	if d.bad || len(d.b) > 0 || s.first > s.next || s.purged > s.next || s.base > s.total {
		return state{}, errMalformed
	}
	return s, nil
}

// decoder takes values from the front of b until one is bad.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	d.advance(n)
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	d.advance(n)
	return v
}

func (d *decoder) advance(n int) {
	if n <= 0 {
		d.bad, d.b = true, nil
		return
	}
	d.b = d.b[n:]
}

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

// corrupt says that what was read is not what was written.
func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %w", history.ErrCorrupt, fmt.Errorf(format, args...))
}
