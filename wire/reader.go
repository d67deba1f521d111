package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// slabSize is the size of pooled buffers: one full read of a busy connection.
const slabSize = 64 << 10

// Slab is a reference-counted buffer that holds frames as they were read. Who
// keeps a frame beyond the reader's next step retains its slab and releases it
// once.
type Slab struct {
	buf  []byte
	refs atomic.Int32
}

var slabs = sync.Pool{New: func() any { return &Slab{buf: make([]byte, slabSize)} }}

// newSlab returns a slab of at least size bytes with one reference.
func newSlab(size int) *Slab {
	s := &Slab{}
	if size <= slabSize {
		s, _ = slabs.Get().(*Slab)
	} else {
		s.buf = make([]byte, size)
	}
	s.refs.Store(1)
	return s
}

// Retain adds a reference and returns the slab.
func (s *Slab) Retain() *Slab {
	s.refs.Add(1)
	return s
}

// Release gives one reference back; the last one returns the buffer to the
// pool. Releasing nil does nothing.
func (s *Slab) Release() {
	if s == nil {
		return
	}
	switch n := s.refs.Add(-1); {
	case n < 0:
		panic("wire: slab released too often")
	case n == 0 && len(s.buf) == slabSize:
		slabs.Put(s)
	}
}

// Reader cuts a byte stream into frames. It is for one goroutine.
//
// While nothing arrives it holds only a small buffer: a slab is taken when a
// read brings more than fits there, and given back once reads are small again.
type Reader struct {
	src        io.Reader
	limit      int // bytes of a frame with its length field
	slab       *Slab
	start, end int // what is read and not yet returned: slab.buf[start:end]
	busy       bool
	lead       [256]byte
}

// NewReader returns a reader of frames of at most limit bytes, length field
// included.
func NewReader(src io.Reader, limit int) *Reader { return &Reader{src: src, limit: limit} }

// SetLimit changes the largest frame accepted, from the next frame on.
func (r *Reader) SetLimit(limit int) { r.limit = limit }

// Next returns the next frame, valid until Next is called again unless Slab is
// retained.
//
// It returns io.EOF only at a frame boundary, io.ErrUnexpectedEOF inside a
// frame, and errors that wrap [ErrFrameTooLarge], before memory is taken for
// the frame, and [ErrMalformed].
func (r *Reader) Next() (Frame, error) {
	for {
		have := r.end - r.start
		need := HeaderSize
		if have >= 4 {
			length := binary.BigEndian.Uint32(r.slab.buf[r.start:])
			switch {
			case uint64(length)+4 > uint64(r.limit): //nolint:gosec // limits are positive
				return nil, fmt.Errorf("%w: %d bytes, at most %d are accepted", ErrFrameTooLarge, uint64(length)+4, r.limit)
			case length < HeaderSize-4:
				return nil, fmt.Errorf("%w: length %d is shorter than a header", ErrMalformed, length)
			}
			need = int(length) + 4
		}
		if have >= need {
			f, err := ParseFrame(r.slab.buf[r.start : r.start+need : r.start+need])
			r.start += need
			return f, err
		}
		if err := r.fill(need); err != nil {
			if errors.Is(err, io.EOF) && have > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// Slab returns the buffer that holds the frame Next returned last.
func (r *Reader) Slab() *Slab { return r.slab }

// Buffered reports whether Next would return without reading.
func (r *Reader) Buffered() bool {
	have := r.end - r.start
	return have >= HeaderSize && uint64(have) >= uint64(binary.BigEndian.Uint32(r.slab.buf[r.start:]))+4
}

// Close gives the buffer back. The reader can't be used afterwards.
func (r *Reader) Close() {
	r.slab.Release()
	r.slab = nil
}

// fill reads at least one byte more, with room for need bytes from start on.
func (r *Reader) fill(need int) error {
	if r.start == r.end && !r.busy {
		return r.fillIdle()
	}
	r.makeRoom(need)
	n, err := readSome(r.src, r.slab.buf[r.end:])
	r.end += n
	r.busy = n >= len(r.lead)
	return err
}

// fillIdle waits for data without holding a slab.
func (r *Reader) fillIdle() error {
	r.slab.Release()
	r.slab, r.start, r.end = nil, 0, 0
	n, err := readSome(r.src, r.lead[:])
	if n > 0 {
		r.slab = newSlab(slabSize)
		r.end = copy(r.slab.buf, r.lead[:n])
		r.busy = n == len(r.lead)
	}
	return err
}

// makeRoom sees to it that the slab has room for need bytes from start on and
// that none of it is shared.
func (r *Reader) makeRoom(need int) {
	if r.slab != nil && r.start == r.end && r.slab.refs.Load() == 1 {
		r.start, r.end = 0, 0 // nobody else looks at it: start over
	}
	const worthwhile = slabSize / 8 // a shorter read is not worth its system call
	if r.slab != nil && len(r.slab.buf)-r.start >= need && (r.start < r.end || len(r.slab.buf)-r.end >= worthwhile) {
		return
	}
	old := r.slab
	next := newSlab(need)
	r.end = copy(next.buf, old.bytes(r.start, r.end))
	r.slab, r.start = next, 0
	old.Release()
}

func (s *Slab) bytes(start, end int) []byte {
	if s == nil {
		return nil
	}
	return s.buf[start:end]
}

// readSome reads at least one byte, or returns an error. An error that comes
// with bytes is left for the next read to find.
func readSome(src io.Reader, b []byte) (int, error) {
	const maxEmptyReads = 100
	for range maxEmptyReads {
		n, err := src.Read(b)
		if n > 0 {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, io.ErrNoProgress
}
