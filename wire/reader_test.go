package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// stream is frames of sizes that meet each border of the reader: its idle
// buffer, each slab, and what is larger.
func stream() (frames []Frame, all []byte) {
	sizes := []int{0, 1, 100, 231, 232, 233, 256, 1000}
	for _, slab := range slabSizes {
		sizes = append(sizes, slab-HeaderSize-8, slab, slab+1)
	}
	for i, size := range append(sizes, 300_000, 5, 5, 5) {
		f := AppendFrame(nil, Header{Kind: KindSend, Ref: uint32(i)}, "target", "", bytes.Repeat([]byte{byte(i)}, size))
		frames, all = append(frames, f), append(all, f...)
	}
	return frames, all
}

func TestReaderReturnsEachFrame(t *testing.T) {
	frames, all := stream()
	for name, src := range map[string]func() io.Reader{
		"all at once":           func() io.Reader { return bytes.NewReader(all) },
		"one byte at a time":    func() io.Reader { return iotest.OneByteReader(bytes.NewReader(all)) },
		"half reads":            func() io.Reader { return iotest.HalfReader(bytes.NewReader(all)) },
		"the end with the data": func() io.Reader { return iotest.DataErrReader(bytes.NewReader(all)) },
	} {
		t.Run(name, func(t *testing.T) {
			r := NewReader(src(), 1<<20)
			defer r.Close()
			for i, want := range frames {
				got, err := r.Next()
				if err != nil {
					t.Fatalf("frame %d: %v", i, err)
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("frame %d differs: %d bytes, want %d", i, len(got), len(want))
				}
			}
			if _, err := r.Next(); !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("after the last frame: %v, want io.EOF", err)
			}
		})
	}
}

func TestReaderTellsAnEndInsideAFrame(t *testing.T) {
	whole := AppendFrame(nil, Header{Kind: KindPing}, "target", "", make([]byte, 500))
	for n := 1; n < len(whole); n += 7 {
		r := NewReader(bytes.NewReader(whole[:n]), 1<<20)
		if _, err := r.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("after %d of %d bytes: %v, want io.ErrUnexpectedEOF", n, len(whole), err)
		}
		r.Close()
	}
}

func TestReaderRefusesALongFrameBeforeItTakesMemory(t *testing.T) {
	head := binary.BigEndian.AppendUint32(nil, 1<<31)
	allocated := testing.AllocsPerRun(100, func() {
		r := NewReader(bytes.NewReader(head), 1<<20)
		if _, err := r.Next(); !errors.Is(err, ErrFrameTooLarge) {
			t.Errorf("Next = %v, want ErrFrameTooLarge", err)
		}
		if r.slab != nil && len(r.slab.buf) > slabSizes[0] {
			t.Errorf("the reader took %d bytes for a frame that it refused", len(r.slab.buf))
		}
		r.Close()
	})
	if allocated > 10 {
		t.Errorf("refusing takes %.0f allocations", allocated)
	}
}

func TestReaderLimitIsTheWholeFrame(t *testing.T) {
	f := AppendFrame(nil, Header{Kind: KindPing}, "", "", make([]byte, 100))
	r := NewReader(bytes.NewReader(f), len(f)-1)
	if _, err := r.Next(); !errors.Is(err, ErrFrameTooLarge) {
		t.Errorf("a frame one byte over the limit: %v, want ErrFrameTooLarge", err)
	}
	r.Close()
	r = NewReader(bytes.NewReader(f), 10)
	r.SetLimit(len(f))
	if _, err := r.Next(); err != nil {
		t.Errorf("a frame of exactly the new limit: %v", err)
	}
	r.Close()
}

func TestReaderRefusesALengthShorterThanAHeader(t *testing.T) {
	r := NewReader(bytes.NewReader(binary.BigEndian.AppendUint32(nil, HeaderSize-5)), 1<<20)
	defer r.Close()
	if _, err := r.Next(); !errors.Is(err, ErrMalformed) {
		t.Errorf("Next = %v, want ErrMalformed", err)
	}
}

func TestRetainedFramesStayWhileReadingGoesOn(t *testing.T) {
	frames, all := stream()
	r := NewReader(iotest.HalfReader(bytes.NewReader(all)), 1<<20)
	var kept []Frame
	var slabs []*Slab
	for range frames {
		f, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		kept, slabs = append(kept, f), append(slabs, r.Slab().Retain())
	}
	r.Close()
	for i := range frames {
		if !bytes.Equal(kept[i], frames[i]) {
			t.Errorf("frame %d changed while it was retained", i)
		}
		slabs[i].Release()
	}
}

func TestKeptBytesStayWhileReadingGoesOn(t *testing.T) {
	frames, all := stream()
	r := NewReader(iotest.HalfReader(bytes.NewReader(append(all, all...))), 1<<20)
	defer r.Close()
	var kept [][]byte
	for range 2 * len(frames) {
		f, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, r.Slab().Keep(f.Body()))
		if large, copied := len(f) > slabSizes[largest], len(f.Body()) > 0 && &kept[len(kept)-1][0] != &f.Body()[0]; large && copied {
			t.Errorf("a frame of %d bytes was copied", len(f))
		}
	}
	for i, b := range kept {
		if want := frames[i%len(frames)].Body(); !bytes.Equal(b, want) {
			t.Errorf("what was kept of frame %d differs: %d bytes, want %d", i, len(b), len(want))
		}
	}
}

func TestIdleReaderHoldsNoSlab(t *testing.T) {
	small := AppendFrame(nil, Header{Kind: KindPing}, "", "", nil)
	src, w := io.Pipe()
	r := NewReader(src, 1<<20)
	defer r.Close()
	go func() { // ended by the pipe's other end
		for range 3 {
			_, _ = w.Write(small)
		}
		_ = w.Close()
	}()
	for range 3 {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if r.slab != nil {
		t.Error("a reader that waits after small frames holds a slab")
	}
}

func TestReleasingTooOftenIsNoticed(t *testing.T) {
	s := newSlab(0, slabSizes[largest]+1)
	s.Release()
	defer func() {
		if recover() == nil {
			t.Error("the second release of one reference went unnoticed")
		}
	}()
	s.Release()
}

// endless repeats a stream without end.
type endless struct{ all, rest []byte }

func (e *endless) Read(b []byte) (int, error) {
	if len(e.rest) == 0 {
		e.rest = e.all
	}
	n := copy(b, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

func BenchmarkReaderSmallFrames(b *testing.B) {
	one := AppendFrame(nil, Header{Kind: KindPublish, Count: 1}, "orders.new", "agent-7", make([]byte, 150))
	r := NewReader(&endless{all: bytes.Repeat(one, 1000)}, 1<<20)
	defer r.Close()
	b.SetBytes(int64(len(one)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Next(); err != nil {
			b.Fatal(err)
		}
	}
}
