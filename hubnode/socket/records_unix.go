//go:build linux || darwin

package socket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"
)

const (
	headerSize = 5 // of a record: type, version, length
	// inSize is how many bytes of records one read takes at most.
	inSize = 64 << 10
	// outSize has room for a step's records.
	outSize = stepPlain + 4<<10
	// maxUnsent bounds the records that wait to be sent: more than those of a
	// step are only answers to a peer that asks and does not read.
	maxUnsent = 2 * outSize
)

var (
	ins  = sync.Pool{New: func() any { b := make([]byte, inSize); return &b }}
	outs = sync.Pool{New: func() any { b := make([]byte, 0, outSize); return &b }}
)

// errNothing tells crypto/tls that the rest of a record has not arrived. To it
// that is a deadline that has passed: it goes on with the next read.
var errNothing error = nothingError{}

type nothingError struct{}

func (nothingError) Error() string   { return "nothing more has arrived" }
func (nothingError) Timeout() bool   { return true }
func (nothingError) Temporary() bool { return true }

// errUnsent ends a connection whose peer makes it answer and reads no answers.
var errUnsent = errors.New("the peer does not read what it asked for")

// records is the connection that crypto/tls sees: memory with records that have
// arrived and with records to be sent.
type records struct {
	*Conn
	waits bool // reads wait for records: during the handshake

	// Of the reading goroutine alone.
	in         *[]byte // pooled; nil when everything that arrived was read
	start, end int     // what is left of it
	header     [headerSize]byte
	seen       int // bytes of the header that were read
	body       int // bytes behind it that were not
	room       func() []byte
	rest       func()
	drop       func() // of the fill under way

	mu   sync.Mutex // guards the fields below; is not held while somebody waits
	out  *[]byte    // pooled; nil when everything was sent
	sent int        // bytes of it that were
	held bool       // who holds it sends; others only add to it
	lost error      // of a send that took records with it: nothing can follow them
	one  [1][]byte  // the argument of TryWrite
}

func newRecords(conn *Conn) *records {
	r := &records{Conn: conn}
	r.room, r.rest = r.takeRoom, r.giveRoom
	return r
}

// Read returns at most what is left of one record. crypto/tls keeps a buffer of
// the largest piece that it was given for as long as the connection lasts.
func (r *records) Read(b []byte) (int, error) {
	if r.in == nil {
		if !r.waits {
			return 0, errNothing
		}
		if _, err := r.send(true); err != nil { // the answer waits for all of it
			return 0, err
		}
		if err := r.fill(func() {}); err != nil {
			return 0, err
		}
	}
	n := 0
	if r.seen < headerSize {
		n = r.readHeader(b)
	}
	if r.seen == headerSize {
		n += r.readBody(b[n:])
	}
	if r.start == r.end {
		r.giveBack()
	}
	return n, nil
}

// readHeader reads what is left of a record's header.
func (r *records) readHeader(b []byte) int {
	n := copy(b, (*r.in)[r.start:min(r.end, r.start+headerSize-r.seen)])
	copy(r.header[r.seen:], b[:n])
	r.start += n
	if r.seen += n; r.seen == headerSize {
		r.body = int(binary.BigEndian.Uint16(r.header[headerSize-2:]))
	}
	return n
}

// readBody reads what is left of what is behind it.
func (r *records) readBody(b []byte) int {
	n := copy(b, (*r.in)[r.start:min(r.end, r.start+r.body)])
	r.start += n
	if r.body -= n; r.body == 0 {
		r.seen = 0
	}
	return n
}

// fill reads whatever has arrived. While there is nothing it waits, holds no
// buffer, and calls drop before.
func (r *records) fill(drop func()) error {
	r.drop = drop
	n, err := r.ReadTo(r.room, r.rest)
	r.drop = nil
	if err != nil {
		r.giveBack()
		return err
	}
	r.start, r.end = 0, n
	return nil
}

func (r *records) takeRoom() []byte {
	if r.in == nil {
		r.in, _ = ins.Get().(*[]byte)
	}
	return *r.in
}

func (r *records) giveRoom() {
	r.giveBack()
	r.drop()
}

func (r *records) giveBack() {
	if r.in != nil {
		ins.Put(r.in)
		r.in = nil
	}
}

// lastWord is how the record begins that ends a connection in TLS 1.3: with room
// for nothing but an alert. No frame is as short.
var lastWord = [headerSize]byte{23, 3, 3, 0, 2 + 1 + 16}

// peerClosed reports whether the other side has closed the connection, or it is
// broken, and everything that had come before was read.
func (r *records) peerClosed() bool {
	if r.seen > 0 {
		return false
	}
	var next []byte
	if r.in != nil {
		next = (*r.in)[r.start:r.end]
	} else {
		var b [headerSize]byte
		n, closed := r.look(b[:])
		if closed {
			return true
		}
		next = b[:n]
	}
	return bytes.HasPrefix(next, lastWord[:])
}

// Write takes a record, and sends it unless somebody is about to. It does not
// wait: crypto/tls holds a lock meanwhile that closing needs too.
func (r *records) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.out == nil {
		r.out, _ = outs.Get().(*[]byte)
	}
	if len(*r.out)-r.sent+len(b) > maxUnsent {
		return 0, errUnsent
	}
	if r.sent > 0 && len(*r.out)+len(b) > cap(*r.out) { // what was sent is not kept
		*r.out = append((*r.out)[:0], (*r.out)[r.sent:]...)
		r.sent = 0
	}
	*r.out = append(*r.out, b...)
	if !r.held {
		if _, err := r.trySendLocked(); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// hold makes the caller the one who sends, until it calls release.
func (r *records) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = true
}

// release also sends what others have added since, as far as the connection takes
// it at once; an error is for the next write to find again.
func (r *records) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = false
	_, _ = r.trySendLocked()
}

// send sends what waits: all of it, or as much as the connection takes at once.
// It reports whether that was all.
func (r *records) send(wait bool) (bool, error) {
	if !wait {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.trySendLocked()
	}
	for {
		r.mu.Lock()
		out, sent, err := r.out, r.sent, r.lost
		r.out, r.sent = nil, 0
		r.mu.Unlock()
		if out == nil || err != nil {
			return err == nil, err
		}
		_, err = r.Conn.Write((*out)[sent:])
		recycleOut(out)
		if err != nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.lost = err
			return false, err
		}
	}
}

// trySendLocked sends what the connection takes at once and reports whether that
// was all.
func (r *records) trySendLocked() (bool, error) {
	if r.out == nil || r.lost != nil {
		return r.lost == nil, r.lost
	}
	r.one[0] = (*r.out)[r.sent:]
	n, err := r.TryWrite(r.one[:])
	r.one[0] = nil
	r.sent += n
	if err != nil || r.sent < len(*r.out) {
		return false, err
	}
	recycleOut(r.out)
	r.out, r.sent = nil, 0
	return true, nil
}

// recycleOut gives a buffer back, unless it grew beyond what is usual.
func recycleOut(out *[]byte) {
	if cap(*out) == outSize {
		*out = (*out)[:0]
		outs.Put(out)
	}
}
