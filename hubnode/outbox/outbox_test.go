package outbox_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/switchboardhub/switchboard/hubnode/outbox"
	"github.com/switchboardhub/switchboard/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

// frame makes a frame of a kind whose body is a number and padding.
func frame(kind wire.Kind, seq wire.Sequence, ref uint32, size int) []byte {
	body := make([]byte, max(size, 0))
	for i := range body {
		body[i] = byte(ref) + byte(i)
	}
	return wire.AppendFrame(nil, wire.Header{Kind: kind, Count: 1, Sequence: seq, Ref: ref}, "topic", "", body)
}

func live(ref uint32, size int) []byte { return frame(wire.KindPublish, 0, ref, size) }

// push splits a frame as the hub does.
func push(o *outbox.Outbox, f []byte) outbox.Verdict {
	return o.Push(f[:wire.HeaderSize], f[wire.HeaderSize:], nil)
}

// stuck is a connection whose writes wait for a permit each, and which keeps
// what it was given.
type stuck struct {
	permits chan struct{}
	entered chan struct{} // one for each write that begins
	closed  chan struct{}

	mu  sync.Mutex // guards got
	got []byte
}

func newStuck() *stuck {
	return &stuck{permits: make(chan struct{}, 1000), entered: make(chan struct{}, 1000), closed: make(chan struct{})}
}

func (s *stuck) Write(b []byte) (int, error) {
	select {
	case s.entered <- struct{}{}:
	default:
	}
	select {
	case <-s.permits:
	case <-s.closed:
		return 0, net.ErrClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, b...)
	return len(b), nil
}

func (s *stuck) free() { close(s.permits) }

func (s *stuck) refs(t *testing.T) []uint32 {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	return refs(t, s.got)
}

// refs returns the refs of the frames in b, whose bodies it checks.
func refs(t *testing.T, b []byte) []uint32 {
	t.Helper()
	var all []uint32
	for len(b) > 0 {
		n := 4 + int(binary.BigEndian.Uint32(b))
		f, err := wire.ParseFrame(b[:n])
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range f.Body() {
			if v != byte(f.Ref())+byte(i) {
				t.Fatalf("frame %d: byte %d of the body is wrong", f.Ref(), i)
			}
		}
		all = append(all, f.Ref())
		b = b[n:]
	}
	return all
}

func within(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s: still waiting after %s", what, patience)
	}
}

func drain(t *testing.T, o *outbox.Outbox) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if !o.Drain(ctx) {
		t.Fatal("Drain: not everything was written")
	}
}

func TestFramesAreWrittenInTheOrderOfPushing(t *testing.T) {
	w := newStuck()
	o := outbox.New(w, outbox.Config{LimitBytes: 64 << 20})
	var want []uint32
	for i := range uint32(2000) {
		size := []int{0, 1, 100, 4 << 10, 5 << 10, 70 << 10}[i%6]
		if v := push(o, live(i, size)); v != outbox.Queued && v != outbox.QueuedCold {
			t.Fatalf("Push = %v", v)
		}
		want = append(want, i)
		if i%100 == 7 {
			o.Flush()
			w.permits <- struct{}{}
		}
	}
	w.free()
	drain(t, o)
	if got := w.refs(t); !slices.Equal(got, want) {
		t.Errorf("frames came as %v", got)
	}
	o.Close()
	o.Wait()
}

func TestAFrameInPartsIsWrittenWhole(t *testing.T) {
	w := newStuck()
	o := outbox.New(w, outbox.Config{LimitBytes: 8 << 20})
	var want []uint32
	for i, cuts := range [][]int{{}, {10}, {10, 10, 20}, {24, 4 << 10}, {30, 60 << 10, 60<<10 + 50, 140 << 10}} {
		for j, size := range []int{200, 4 << 10, 150 << 10} {
			ref := uint32(3*i + j)
			f := live(ref, size)
			var parts [][]byte
			from := 0
			for _, to := range cuts {
				to = min(to, len(f))
				parts = append(parts, f[from:to])
				from = to
			}
			if v := o.PushParts(append(parts, f[from:])...); v != outbox.Queued && v != outbox.QueuedCold {
				t.Fatalf("PushParts = %v", v)
			}
			push(o, live(100+ref, 10))
			want = append(want, ref, 100+ref)
		}
	}
	pending := o.Pending()
	if v := o.PushParts(make([]byte, 4<<20), make([]byte, 4<<20)); v != outbox.Full || o.Pending() != pending {
		t.Errorf("PushParts of more than there is room for = %v, %d bytes wait, want %d", v, o.Pending(), pending)
	}
	o.Flush()
	w.free()
	drain(t, o)
	if got := w.refs(t); !slices.Equal(got, want) {
		t.Errorf("frames came as %v, want %v", got, want)
	}
	o.Close()
	if v := o.PushParts(make([]byte, 1<<20), make([]byte, 1<<20)); v != outbox.Closed {
		t.Errorf("PushParts after Close = %v", v)
	}
	o.Wait()
}

// The contract of Flush: whoever is told QueuedCold flushes, whoever is told
// Queued need not, and everything is written all the same.
func TestNoFrameIsForgottenBetweenPushAndFlush(t *testing.T) {
	const pushers, each = 8, 3000
	a, b := net.Pipe()
	o := outbox.New(a, outbox.Config{LimitBytes: 1 << 30})
	var pushing sync.WaitGroup
	for p := range uint32(pushers) {
		pushing.Go(func() {
			for i := range uint32(each) {
				if push(o, live(p<<24|i, int(i%3)*3000)) == outbox.QueuedCold {
					o.Flush()
				}
			}
		})
	}
	r := wire.NewReader(b, 1<<20)
	defer r.Close()
	_ = b.SetReadDeadline(time.Now().Add(patience))
	var next [pushers]uint32
	for range pushers * each {
		f, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		p, i := f.Ref()>>24, f.Ref()&0xffffff
		if i != next[p] {
			t.Fatalf("pusher %d: got frame %d, want %d", p, i, next[p])
		}
		next[p]++
	}
	pushing.Wait()
	drain(t, o)
	o.Close()
	o.Wait()
	_, _ = a.Close(), b.Close()
}

func TestOnlyTheFirstPusherHasToFlush(t *testing.T) {
	w := newStuck()
	o := outbox.New(w, outbox.Config{LimitBytes: 1 << 20})
	if v := push(o, live(1, 0)); v != outbox.QueuedCold {
		t.Errorf("first Push = %v, want QueuedCold", v)
	}
	if v := push(o, live(2, 0)); v != outbox.Queued {
		t.Errorf("second Push = %v, want Queued: the first flushes", v)
	}
	o.Flush()
	<-w.entered
	if v := push(o, live(3, 0)); v != outbox.Queued {
		t.Errorf("Push while writing = %v, want Queued", v)
	}
	w.free()
	drain(t, o)
	if got := w.refs(t); !slices.Equal(got, []uint32{1, 2, 3}) {
		t.Errorf("written: %v", got)
	}
	o.Close()
	o.Wait()
}

func TestLimits(t *testing.T) {
	w := newStuck()
	size := len(live(0, 100))
	o := outbox.New(w, outbox.Config{LimitBytes: 3 * size})
	for i := range uint32(3) {
		if v := push(o, live(i, 100)); v == outbox.Full {
			t.Fatalf("frame %d did not fit", i)
		}
	}
	if v := push(o, live(3, 100)); v != outbox.Full {
		t.Errorf("Push over the limit = %v, want Full", v)
	}
	for i := range 3 {
		if v := o.PushControl(live(9, 100)); v == outbox.Full {
			t.Errorf("control frame %d did not fit into twice the limit", i)
		}
	}
	if v := o.PushControl(live(9, 100)); v != outbox.Full {
		t.Errorf("PushControl over twice the limit = %v, want Full", v)
	}
	o.Flush()
	<-w.entered
	if got := o.Pending(); got != 6*size {
		t.Errorf("Pending = %d while writing, want %d", got, 6*size)
	}
	if v := push(o, live(3, 100)); v != outbox.Full {
		t.Errorf("Push during the write = %v, want Full: what is being written counts", v)
	}
	w.free()
	drain(t, o)
	if v := push(o, live(4, 10*size)); v == outbox.Full {
		t.Error("a frame above the limit does not fit an empty queue")
	}
	drain(t, o)
	o.Close()
	o.Wait()
}

func TestNothingFollowsTheLastFrame(t *testing.T) {
	w := newStuck()
	o := outbox.New(w, outbox.Config{LimitBytes: 1 << 20})
	push(o, live(1, 0))
	if v := o.PushLast(live(2, 0)); v != outbox.Queued {
		t.Errorf("PushLast = %v, want Queued", v)
	}
	for what, v := range map[string]outbox.Verdict{"Push": push(o, live(3, 0)), "PushControl": o.PushControl(live(3, 0)), "PushLast": o.PushLast(live(3, 0))} {
		if v != outbox.Closed {
			t.Errorf("%s after the last frame = %v, want Closed", what, v)
		}
	}
	w.free()
	drain(t, o)
	if got := w.refs(t); !slices.Equal(got, []uint32{1, 2}) {
		t.Errorf("written: %v", got)
	}
	o.Close()
	o.Wait()
}

func TestWriteErrorFailsOnce(t *testing.T) {
	a, b := net.Pipe()
	_ = b.Close()
	failed := make(chan error, 10)
	o := outbox.New(a, outbox.Config{LimitBytes: 1 << 20, Failed: func(err error) { failed <- err }})
	push(o, live(1, 0))
	o.Flush()
	o.Wait()
	if v := push(o, live(2, 0)); v != outbox.Closed {
		t.Errorf("Push after the error = %v, want Closed", v)
	}
	o.Flush()
	if o.Drain(t.Context()) {
		t.Error("Drain says that all was written")
	}
	if err := <-failed; !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Failed(%v), want %v", err, io.ErrClosedPipe)
	}
	if len(failed) > 0 {
		t.Error("Failed was called twice")
	}
	if got := o.Pending(); got != 0 {
		t.Errorf("Pending = %d after the end", got)
	}
	_ = a.Close()
}

func TestCloseDropsWhatWaitsAndWakesEveryone(t *testing.T) {
	w := newStuck()
	o := outbox.New(w, outbox.Config{LimitBytes: 1 << 20, Failed: func(err error) { t.Errorf("Failed(%v) after Close", err) }})
	push(o, live(1, 100))
	o.Flush()
	<-w.entered
	push(o, live(2, 100))
	waiting := o.Pending()
	below := o.Below(0)
	drained := make(chan bool, 1)
	go func() { drained <- o.Drain(context.Background()) }()
	o.Close()
	o.Close()
	select {
	case <-o.Below(-1):
		t.Error("Wait would return while the writer writes")
	default:
	}
	close(w.closed)
	o.Wait()
	within(t, "Below", below)
	select {
	case all := <-drained:
		if all {
			t.Error("Drain says that all was written")
		}
	case <-time.After(patience):
		t.Fatal("Drain still waits")
	}
	if got := w.refs(t); len(got) != 0 {
		t.Errorf("written: %v", got)
	}
	if lost := o.Lost(); lost != waiting {
		t.Errorf("Lost = %d, want %d: the write under way and what waited", lost, waiting)
	}
}

func TestDrainEndsWithItsContext(t *testing.T) {
	w := newStuck()
	o := outbox.New(w, outbox.Config{LimitBytes: 1 << 20})
	push(o, live(1, 100))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if o.Drain(ctx) {
		t.Error("Drain says that all was written")
	}
	w.free()
	drain(t, o)
	o.Close()
	o.Wait()
}

func TestBelowWaitsForBytesToBeWritten(t *testing.T) {
	w := newStuck()
	o := outbox.New(w, outbox.Config{LimitBytes: 1 << 20})
	size := len(live(0, 100))
	push(o, live(1, 100))
	o.Flush()
	<-w.entered
	push(o, live(2, 100))
	one := o.Below(size)
	none := o.Below(0)
	within(t, "Below what waits", o.Below(2*size))
	select {
	case <-one:
		t.Error("Below is ready though more waits")
	default:
	}
	w.permits <- struct{}{}
	within(t, "Below one frame", one)
	w.free()
	within(t, "Below nothing", none)
	o.Close()
	o.Wait()
}

// countedSlab reads a frame into a slab and returns it with the slab, which
// has one reference: the test's.
func countedSlab(t *testing.T, f []byte) ([]byte, *wire.Slab) {
	t.Helper()
	r := wire.NewReader(bytes.NewReader(f), 10<<20)
	got, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	slab := r.Slab().Retain()
	r.Close()
	return got, slab
}

// lastReference releases the test's reference and reports whether it was the
// last: one more has to panic.
func lastReference(slab *wire.Slab) (last bool) {
	defer func() { last = recover() != nil }()
	slab.Release()
	slab.Release()
	return false
}

func TestLargeFramesAreReferencedAndReleasedOnce(t *testing.T) {
	const size = 100 << 10 // not a pooled slab: releasing it too often harms nobody else
	for name, end := range map[string]func(*stuck, *outbox.Outbox){
		"written": func(w *stuck, o *outbox.Outbox) { w.free(); o.Drain(context.Background()) },
		"closed":  func(_ *stuck, o *outbox.Outbox) { o.Close() },
		"failed": func(w *stuck, o *outbox.Outbox) {
			close(w.closed)
			o.Flush()
			o.Wait()
		},
		"dropped": func(_ *stuck, o *outbox.Outbox) { o.DropOldest(1 << 20) },
		"kept, then written": func(w *stuck, o *outbox.Outbox) {
			o.PushControl(frame(wire.KindPong, 0, 0, 1))
			o.DropOldest(1<<20 - 150<<10)
			w.free()
			o.Drain(context.Background())
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newStuck()
			o := outbox.New(w, outbox.Config{LimitBytes: 1 << 20, Failed: func(error) {}})
			f, slab := countedSlab(t, live(1, size))
			if v := o.Push(f[:wire.HeaderSize], f[wire.HeaderSize:], slab); v != outbox.QueuedCold {
				t.Fatalf("Push = %v", v)
			}
			slab.Retain() // 3: ours, this one, the outbox's
			slab.Release()
			end(w, o)
			if !lastReference(slab) {
				t.Error("the outbox still holds a reference")
			}
			o.Close()
			o.Wait()
		})
	}
}

func TestALaggingConnectionCopiesRatherThanPins(t *testing.T) {
	w := newStuck()
	o := outbox.New(w, outbox.Config{LimitBytes: 200 << 10})
	push(o, live(1, 100<<10))
	f, slab := countedSlab(t, live(2, 10<<10))
	o.Push(f[:wire.HeaderSize], f[wire.HeaderSize:], slab)
	copied := append([]byte(nil), f...)
	clear(f) // as its next reader would
	w.free()
	drain(t, o)
	if got := w.refs(t); !slices.Equal(got, []uint32{1, 2}) || !bytes.HasSuffix(w.got, copied) {
		t.Errorf("written: %v", got)
	}
	slab.Release()
	o.Close()
	o.Wait()
}

func TestDropOldest(t *testing.T) {
	const size = 100
	whole := len(live(0, size))
	control := func(ref uint32) []byte { return frame(wire.KindPong, 0, ref, size) }
	stored := func(ref uint32) []byte { return frame(wire.KindPublish, 7, ref, size) }
	direct := func(ref uint32) []byte { return frame(wire.KindSend, 500, ref, size) }
	lost := func(n uint32) []byte {
		f := frame(wire.KindLost, wire.Sequence(n), n, size) // as long as the others, to count in frames
		binary.BigEndian.PutUint16(f[6:], 0)
		return f
	}
	for name, test := range map[string]struct {
		frames  [][]byte
		limit   int // in frames
		want    int // in frames
		dropped int
		untold  int
		left    []uint32
	}{
		"nothing when there is room":         {[][]byte{live(1, size), live(2, size)}, 3, 1, 0, 0, []uint32{1, 2}},
		"the oldest first":                   {[][]byte{live(1, size), live(2, size), live(3, size)}, 3, 1, 1 + 1, 0, []uint32{3}},
		"control frames stay in order":       {[][]byte{control(1), live(2, size), control(3), live(4, size), control(5)}, 5, 5, 2, 0, []uint32{1, 3, 5}},
		"direct artifacts go":                {[][]byte{direct(1), direct(2)}, 2, 2, 2, 0, nil},
		"artifacts of a topic with history":  {[][]byte{stored(1), live(2, size), stored(3)}, 3, 3, 1, 0, []uint32{1, 3}},
		"what tells of losses is taken back": {[][]byte{lost(7), live(2, size), lost(5), live(4, size), lost(1)}, 5, 2, 1, 12, []uint32{4, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newStuck()
			w.free()
			o := outbox.New(w, outbox.Config{LimitBytes: test.limit * whole})
			for _, f := range test.frames {
				if v := push(o, f); v == outbox.Full {
					t.Fatal("a frame does not fit")
				}
			}
			if got, untold := o.DropOldest(test.want * whole); got != test.dropped || untold != test.untold {
				t.Errorf("DropOldest = %d, %d; want %d, %d", got, untold, test.dropped, test.untold)
			}
			if got, want := o.Pending(), len(test.left)*whole; got != want {
				t.Errorf("Pending = %d, want %d", got, want)
			}
			o.Flush()
			drain(t, o)
			if got := w.refs(t); !slices.Equal(got, test.left) {
				t.Errorf("left: %v, want %v", got, test.left)
			}
			o.Close()
			o.Wait()
		})
	}
}

func TestDropOldestKeepsLargeFramesWhole(t *testing.T) {
	w := newStuck()
	w.free()
	o := outbox.New(w, outbox.Config{LimitBytes: 1 << 20})
	for i := range uint32(9) {
		kind := wire.KindPublish
		if i%3 == 0 {
			kind = wire.KindGap // any that stays
		}
		push(o, frame(kind, 0, i, int(i%2)*(70<<10)+10))
	}
	if got, _ := o.DropOldest(1 << 20); got != 6 {
		t.Errorf("DropOldest = %d, want 6", got)
	}
	push(o, live(10, 10))
	o.Flush()
	drain(t, o)
	if got := w.refs(t); !slices.Equal(got, []uint32{0, 3, 6, 10}) {
		t.Errorf("left: %v", got)
	}
	o.Close()
	o.Wait()
}

// Everything at once, for the race detector: pushers, droppers, waiters and a
// connection that breaks in the middle.
func TestStress(t *testing.T) {
	for round := range 20 {
		a, b := net.Pipe()
		o := outbox.New(a, outbox.Config{LimitBytes: 64 << 10, Failed: func(error) {}})
		var pushing, others sync.WaitGroup
		for p := range uint32(4) {
			pushing.Go(func() {
				for i := range uint32(1000) {
					f := live(p<<24|i, int(i%5)*2000)
					v := push(o, f)
					if v == outbox.Full {
						o.DropOldest(len(f))
						v = push(o, f)
					}
					if v == outbox.QueuedCold {
						o.Flush()
					}
				}
			})
		}
		others.Go(func() {
			for v := outbox.Queued; v != outbox.Closed; v = o.PushControl(frame(wire.KindPing, 0, 0, 0)) {
				o.Drain(t.Context())
				<-o.Below(100)
			}
		})
		others.Go(func() {
			r := wire.NewReader(b, 1<<20)
			defer r.Close()
			for n := 0; round%2 == 0 || n < 500; n++ {
				if _, err := r.Next(); err != nil {
					return
				}
			}
			_ = b.Close()
		})
		pushing.Wait()
		_ = b.Close()
		others.Wait()
		o.Close()
		_ = a.Close()
		o.Wait()
	}
}

func TestALongQueueIsAccountedForStepByStep(t *testing.T) {
	w := newStuck()
	o := outbox.New(w, outbox.Config{LimitBytes: 16 << 20})
	for i := range uint32(40) {
		push(o, live(i, 100<<10))
	}
	all := o.Pending()
	o.Flush()
	some := o.Below(all - 1)
	for range 10 {
		w.permits <- struct{}{}
	}
	within(t, "the first of many bytes", some)
	w.free()
	drain(t, o)
	o.Close()
	o.Wait()
}
