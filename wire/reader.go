package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// slabSizes are those of pooled buffers. A connection's buffer is as large as
// its reads have lately been: one that says little should cost little, and one
// that is busy should read as much as the kernel holds in one system call.
var slabSizes = [...]int{4 << 10, 32 << 10, 256 << 10}

const largest = len(slabSizes) - 1

// Slab is a reference-counted buffer that holds frames as they were read. Who
// keeps a frame beyond the reader's next step retains its slab and releases it
// once.
type Slab struct {
	buf  []byte
	refs atomic.Int32
}

var slabs [len(slabSizes)]sync.Pool

// newSlab returns a slab of the size class, or of at least size bytes when that
// is more, with one reference.
func newSlab(class, size int) *Slab {
	for class < largest && slabSizes[class] < size {
		class++
	}
	if size <= slabSizes[class] {
		if s, ok := slabs[class].Get().(*Slab); ok {
			s.refs.Store(1)
			return s
		}
		size = slabSizes[class]
	}
	s := &Slab{buf: make([]byte, size)}
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
	case n == 0:
		for class, size := range slabSizes {
			if len(s.buf) == size {
				slabs[class].Put(s)
			}
		}
	}
}

// Keep returns bytes of a frame in the slab for whoever keeps them for good: a copy, unless
// the frame was too large for the pool. Then it has the slab to itself, which is read into
// once only. Of a nil slab it returns a copy.
func (s *Slab) Keep(b []byte) []byte {
	if s != nil && len(s.buf) > slabSizes[largest] {
		return b
	}
	return append([]byte(nil), b...)
}

// Lazy is a source that does not need a buffer while it waits. ReadTo reads at
// least one byte into what buffer returns, or returns an error; whenever it has
// to wait, it calls drop before and buffer anew after.
type Lazy interface {
	ReadTo(buffer func() []byte, drop func()) (int, error)
}

// Reader cuts a byte stream into frames. It is for one goroutine.
//
// It takes a slab when there is something to read, larger ones while reads fill
// them, and smaller ones once reads are small again. While it waits between
// frames it holds none; of a source that is not [Lazy] it then reads the first
// bytes into a small buffer of its own, unless it is busy.
type Reader struct {
	src        io.Reader
	lazy       Lazy // src when it is one
	limit      int  // bytes of a frame with its length field
	slab       *Slab
	start, end int // what is read and not yet returned: slab.buf[start:end]
	class      int // of the slab to be taken next
	lead       []byte

	// For the lazy source, made once.
	buffer func() []byte
	drop   func()
	need   int // what buffer makes room for
}

// leadSize is the size of the buffer in which others than lazy sources wait.
const leadSize = 256

// NewReader returns a reader of frames of at most limit bytes, length field
// included.
func NewReader(src io.Reader, limit int) *Reader {
	r := &Reader{src: src, limit: limit}
	if lazy, ok := src.(Lazy); ok {
		r.lazy, r.buffer, r.drop = lazy, r.room, r.rest
	}
	return r
}

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
	r.need = need
	var n int
	var err error
	switch {
	case r.lazy != nil:
		n, err = r.lazy.ReadTo(r.buffer, r.drop)
	case r.start == r.end && r.class == 0:
		n, err = r.fillLead()
	default:
		n, err = readSome(r.src, r.room())
	}
	if n > 0 {
		r.adapt(n, len(r.slab.buf)-r.end)
		r.end += n
	}
	return err
}

// room returns where the next bytes go.
func (r *Reader) room() []byte {
	r.makeRoom(r.need)
	return r.slab.buf[r.end:]
}

// rest gives the slab back for the time in which nothing comes.
func (r *Reader) rest() {
	if r.start == r.end {
		r.slab.Release()
		r.slab, r.start, r.end = nil, 0, 0
	}
}

// adapt chooses the class of the next slab by what a read brought of what it had
// room for.
func (r *Reader) adapt(n, room int) {
	switch {
	case n == room && r.class < largest:
		r.class++
	case r.class > 0 && n < slabSizes[r.class-1]/4:
		r.class--
	}
}

// fillLead waits for data without holding a slab, and reads on when that was
// not all.
func (r *Reader) fillLead() (int, error) {
	r.rest()
	if r.lead == nil {
		r.lead = make([]byte, leadSize)
	}
	n, err := readSome(r.src, r.lead)
	if n > 0 {
		copy(r.room(), r.lead[:n])
	}
	return n, err
}

// makeRoom sees to it that the slab has room for need bytes from start on and
// that none of it is shared.
func (r *Reader) makeRoom(need int) {
	size := slabSizes[r.class]
	if r.slab != nil && len(r.slab.buf)-r.start >= need {
		switch {
		case r.start < r.end && len(r.slab.buf) >= size:
			return // a frame that has begun
		case r.start == r.end && len(r.slab.buf) == size && r.slab.refs.Load() == 1:
			r.start, r.end = 0, 0 // nobody else looks at it: start over
			return
		case r.start == r.end && len(r.slab.buf) == size && size-r.end >= size/8: // a shorter read is not worth its system call
			return
		}
	}
	old := r.slab
	next := newSlab(r.class, need)
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
