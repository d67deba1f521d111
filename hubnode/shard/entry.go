package shard

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// The operations that a record can be.
const (
	opAppend byte = 1 // artifacts of one frame
	opPurge  byte = 2 // what a topic holds before a sequence goes
	opBegin  byte = 4 // a new topic begins at a sequence
	opFetch  byte = 3 // what a member of a durable subscription says and wants
)

// Publisher says which of a client's frames a frame is, so that it is stored
// once however often it is sent.
type Publisher struct {
	ID     uint64 // of one life of a client; 0: its frames are not numbered
	Number uint64 // of the frame, among those of this publisher to this topic; rises by 1
	Oldest bool   // what has lower numbers is settled: this may follow a hole
	// At is the sequence that the frame's first artifact has to get, or the frame is
	// not stored. 0: whichever comes next.
	At wire.Sequence
}

// record is one operation of a log entry.
type record struct {
	op     byte
	time   time.Time
	by     Publisher
	frame  wire.Frame    // opAppend: its route, count and body
	topic  string        // opPurge, opBegin
	before wire.Sequence // opPurge; of opBegin: the first one
	fetch  fetchBody     // opFetch
}

// ticket says who proposed an entry, so that it hears of its result. An entry begins
// with a checksum of all that follows, and the ticket: the log on disk does not
// notice a flipped bit.
type ticket struct {
	by     uint64 // one run of one replica
	number uint64
}

const ticketSize = 4 + 8 + 8

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// newEntry begins an entry, to which size bytes of records are appended. seal ends it.
func newEntry(size int) []byte { return make([]byte, ticketSize, ticketSize+size) }

// seal puts the ticket and the checksum into an entry that has all its records.
func seal(entry []byte, t ticket) []byte {
	binary.BigEndian.PutUint64(entry[4:], t.by)
	binary.BigEndian.PutUint64(entry[12:], t.number)
	binary.BigEndian.PutUint32(entry, crc32.Checksum(entry[4:], castagnoli))
	return entry
}

// cutTicket returns an entry's ticket and its records.
func cutTicket(entry []byte) (ticket, []byte, error) {
	if len(entry) < ticketSize {
		return ticket{}, nil, fmt.Errorf("%w: log entry of %d bytes", wire.ErrMalformed, len(entry))
	}
	if want, have := binary.BigEndian.Uint32(entry), crc32.Checksum(entry[4:], castagnoli); want != have {
		return ticket{}, nil, fmt.Errorf("%w: log entry with checksum %08x, want %08x", history.ErrCorrupt, have, want)
	}
	return ticket{binary.BigEndian.Uint64(entry[4:]), binary.BigEndian.Uint64(entry[12:])}, entry[ticketSize:], nil
}

const (
	recordHead = 1 + 8                  // op, time
	appendHead = recordHead + 8 + 8 + 1 // publisher, number, flags
	purgeHead  = recordHead + 8

	flagOldest byte = 1
)

// appendAppend appends a record of a frame's artifacts to an entry, without the
// first skip bytes of its body.
func appendAppend(entry []byte, now time.Time, by Publisher, f wire.Frame, skip int) []byte {
	entry = appendHeadOf(entry, opAppend, appendHead+len(f)-skip, now)
	entry = binary.BigEndian.AppendUint64(entry, by.ID)
	entry = binary.BigEndian.AppendUint64(entry, by.Number)
	flags := byte(0)
	if by.Oldest {
		flags = flagOldest
	}
	h := f.Header()
	h.Kind, h.Flags, h.Sequence, h.Ref = wire.KindPublish, 0, by.At, 0
	return wire.AppendFrame(append(entry, flags), h, f.Target(), f.From(), f.Body()[skip:])
}

// appendPurge appends a record that purges a topic.
func appendPurge(entry []byte, now time.Time, topic string, before wire.Sequence) []byte {
	return appendPlace(entry, opPurge, now, topic, before)
}

// appendBegin appends a record that makes a new topic begin at a sequence.
func appendBegin(entry []byte, now time.Time, topic string, first wire.Sequence) []byte {
	return appendPlace(entry, opBegin, now, topic, first)
}

func appendPlace(entry []byte, op byte, now time.Time, topic string, before wire.Sequence) []byte {
	entry = appendHeadOf(entry, op, purgeHead+len(topic), now)
	entry = binary.BigEndian.AppendUint64(entry, uint64(before))
	return append(entry, topic...)
}

func appendHeadOf(entry []byte, op byte, size int, now time.Time) []byte {
	entry = binary.BigEndian.AppendUint32(entry, uint32(size))
	entry = append(entry, op)
	return binary.BigEndian.AppendUint64(entry, uint64(now.UnixNano()))
}

// eachRecord visits the records of an entry, which they alias. The entry is
// without its ticket.
func eachRecord(entry []byte, visit func(record)) error {
	for len(entry) > 0 {
		if len(entry) < 4 {
			return fmt.Errorf("%w: log entry ends inside a length", wire.ErrMalformed)
		}
		n := uint64(binary.BigEndian.Uint32(entry))
		if n > uint64(len(entry)-4) {
			return fmt.Errorf("%w: log entry ends inside a record", wire.ErrMalformed)
		}
		r, err := parseRecord(entry[4 : 4+n])
		if err != nil {
			return err
		}
		visit(r)
		entry = entry[4+n:]
	}
	return nil
}

func parseRecord(b []byte) (record, error) {
	if len(b) < recordHead {
		return record{}, fmt.Errorf("%w: record of %d bytes", wire.ErrMalformed, len(b))
	}
	r := record{op: b[0], time: time.Unix(0, int64(binary.BigEndian.Uint64(b[1:]))).UTC()}
	switch r.op {
	case opAppend:
		if len(b) < appendHead {
			return r, fmt.Errorf("%w: record of %d bytes", wire.ErrMalformed, len(b))
		}
		r.by = Publisher{
			ID:     binary.BigEndian.Uint64(b[recordHead:]),
			Number: binary.BigEndian.Uint64(b[recordHead+8:]),
			Oldest: b[recordHead+16]&flagOldest != 0,
		}
		f, err := wire.ParseFrame(b[appendHead:])
		if err != nil {
			return r, err
		}
		r.frame, r.by.At = f, f.Sequence()
		return r, nil
	case opPurge, opBegin:
		if len(b) < purgeHead {
			return r, fmt.Errorf("%w: record of %d bytes", wire.ErrMalformed, len(b))
		}
		r.before = wire.Sequence(binary.BigEndian.Uint64(b[recordHead:]))
		r.topic = string(b[purgeHead:])
		return r, nil
	case opFetch:
		return r, wire.DecodeJSON(b[recordHead:], &r.fetch)
	}
	return r, fmt.Errorf("%w: operation %d", wire.ErrMalformed, r.op)
}
