package outbox_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/outbox"
	"github.com/switchboardhub/switchboard/wire"
)

// narrow is a connection that can be written without waiting: it takes room
// bytes that way at a time.
type narrow struct {
	*stuck
	room   int
	tried  int
	fault  error
	during func() // called by the next try
}

func (n *narrow) TryWrite(all [][]byte) (int, error) {
	b := bytes.Join(all, nil)
	n.tried++
	if f := n.during; f != nil {
		n.during = nil
		f()
	}
	if n.fault != nil {
		return 0, n.fault
	}
	took := min(n.room, len(b))
	n.mu.Lock()
	defer n.mu.Unlock()
	n.got = append(n.got, b[:took]...)
	return took, nil
}

func TestALittleIsWrittenInPassing(t *testing.T) {
	for name, test := range map[string]struct {
		frames, size int
		room         int
		tries        int
		leaves       bool // something for the writer
	}{
		"all of it fits":             {frames: 3, size: 100, room: 1 << 20, tries: 1},
		"only a part fits":           {frames: 3, size: 100, room: 150, tries: 1, leaves: true},
		"nothing fits":               {frames: 3, size: 100, room: 0, tries: 1, leaves: true},
		"large frames fit":           {frames: 3, size: 8 << 10, room: 1 << 20, tries: 1},
		"a large frame's head fits":  {frames: 3, size: 8 << 10, room: wire.HeaderSize, tries: 1, leaves: true},
		"one large frame fits":       {frames: 3, size: 8 << 10, room: len(live(0, 8<<10)), tries: 1, leaves: true},
		"much":                       {frames: 3000, size: 100, room: 1 << 20, tries: 0, leaves: true},
		"a little in too many parts": {frames: 20, size: 5 << 10, room: 1 << 20, tries: 0, leaves: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := &narrow{stuck: newStuck(), room: test.room}
			o := outbox.New(w, outbox.Config{LimitBytes: 1 << 20})
			var want []uint32
			for i := range uint32(test.frames) {
				push(o, live(i, test.size))
				want = append(want, i)
			}
			o.Flush()
			if w.tried != test.tries {
				t.Errorf("tried %d times to write, want %d", w.tried, test.tries)
			}
			if left := o.Pending() > 0; left != test.leaves {
				t.Errorf("%d bytes wait after Flush", o.Pending())
			}
			w.free()
			drain(t, o)
			if got := w.refs(t); !slices.Equal(got, want) {
				t.Errorf("frames came as %v", got)
			}
			o.Close()
			o.Wait()
		})
	}
}

func TestFlushAsideLeavesAllToTheWriter(t *testing.T) {
	w := &narrow{stuck: newStuck(), room: 1 << 20}
	o := outbox.New(w, outbox.Config{LimitBytes: 1 << 20})
	push(o, live(1, 100))
	o.FlushAside()
	if w.tried != 0 || o.Pending() == 0 {
		t.Errorf("tried %d times to write, %d bytes wait", w.tried, o.Pending())
	}
	w.free()
	drain(t, o)
	o.Close()
	o.Wait()
}

func TestWhatIsPushedWhileOneWritesInPassingIsWritten(t *testing.T) {
	w := &narrow{stuck: newStuck(), room: 1 << 20}
	o := outbox.New(w, outbox.Config{LimitBytes: 1 << 20})
	w.during = func() {
		if v := push(o, live(2, 10)); v != outbox.Queued {
			t.Errorf("Push = %v, want Queued: somebody writes", v)
		}
	}
	push(o, live(1, 10))
	o.Flush()
	w.free()
	drain(t, o)
	if got := w.refs(t); !slices.Equal(got, []uint32{1, 2}) {
		t.Errorf("frames came as %v", got)
	}
	o.Close()
	o.Wait()
}

func TestAFaultInPassingIsTheWritersToReport(t *testing.T) {
	w := &narrow{stuck: newStuck(), fault: errors.New("reset")}
	close(w.closed)
	failed := make(chan error, 1)
	o := outbox.New(w, outbox.Config{LimitBytes: 1 << 20, Failed: func(err error) { failed <- err }})
	push(o, live(1, 10))
	waiting := o.Pending()
	o.Flush()
	if err := <-failed; err == nil {
		t.Error("failed without an error")
	}
	o.Wait()
	if o.Lost() != waiting {
		t.Errorf("Lost = %d, want %d", o.Lost(), waiting)
	}
	if v := push(o, live(2, 10)); v != outbox.Closed {
		t.Errorf("Push = %v, want Closed", v)
	}
}

func TestClosingWhileOneWritesInPassing(t *testing.T) {
	w := &narrow{stuck: newStuck(), room: 1 << 20}
	o := outbox.New(w, outbox.Config{LimitBytes: 1 << 20})
	w.during = o.Close
	push(o, live(1, 10))
	o.Flush()
	o.Wait()
	if o.Pending() != 0 || o.Lost() != 0 {
		t.Errorf("%d bytes wait, %d are lost; want none: the write went through", o.Pending(), o.Lost())
	}
}

func TestALittleCostsNoAllocation(t *testing.T) {
	w := &discard{}
	o := outbox.New(w, outbox.Config{LimitBytes: 1 << 20})
	f := live(1, 128)
	allocs := testing.AllocsPerRun(1000, func() {
		push(o, f)
		o.Flush()
	})
	if allocs >= 1 {
		t.Errorf("%v allocations for a frame", allocs)
	}
	if !bytes.Equal(w.last, f) {
		t.Errorf("wrote %x, want %x", w.last, f)
	}
	o.Close()
	o.Wait()
}

// discard keeps the last write.
type discard struct{ last []byte }

func (d *discard) Write(b []byte) (int, error) {
	d.last = append(d.last[:0], b...)
	return len(b), nil
}

func (d *discard) TryWrite(all [][]byte) (int, error) { return d.Write(all[0]) }

// gathering is a connection that makes more of several buffers at once.
type gathering struct {
	*narrow
	batches int // of the writer alone
}

func (g *gathering) WriteAll(all [][]byte) (int, error) {
	g.batches++
	return g.Write(bytes.Join(all, nil))
}

func TestTheWriterGivesWhatThereIsAtOnce(t *testing.T) {
	w := &gathering{narrow: &narrow{stuck: newStuck(), room: 100}}
	o := outbox.New(w, outbox.Config{LimitBytes: 1 << 20})
	var want []uint32
	for i := range uint32(4) {
		push(o, live(i, 8<<10))
		want = append(want, i)
	}
	o.Flush()
	w.free()
	drain(t, o)
	o.Close()
	o.Wait()
	if got := w.refs(t); !slices.Equal(got, want) {
		t.Errorf("frames came as %v, want %v", got, want)
	}
	if w.batches != 1 {
		t.Errorf("written in %d batches, want one", w.batches)
	}
}
