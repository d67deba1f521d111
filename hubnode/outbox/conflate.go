package outbox

import (
	"container/list"
	"encoding/binary"
	"iter"
	"slices"

	"github.com/switchboardhub/switchboard/wire"
)

// sortAhead is how many bytes of what waited before are sorted for each byte
// that is pushed: a full queue is sorted before a quarter of it has come anew,
// and no push pays for all of it.
const sortAhead = 4

// PushConflated is Push for a frame of artifacts that Push has found no room
// for, now or since the last time that the reader kept up. It makes room: queued
// live artifacts go that were followed by another one of the same route and the
// same value of the attribute key; where that is not enough, the oldest of those
// without the attribute, then the oldest ones. It returns how many artifacts
// that took.
//
// A route is a subscription and a topic, or a sender's way to this client. What
// stays keeps its order. Requests have no key, for each waits for an answer;
// control frames and artifacts of topics with history stay as in DropOldest.
//
// What is being written can't be dropped any more. What is not has at least half
// of the limit, and a pushed frame of live artifacts finds room whatever its
// size; another one is refused when it does not fit even so. Until what waited
// before is sorted, twice the limit may wait.
func (o *Outbox) PushConflated(head, tail []byte, key string) (v Verdict, artifacts int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.sealed {
		return Closed, 0
	}
	o.conflates = true
	if o.sorted == nil {
		o.sorted = newSorted(key)
	}
	before := o.sorted.bytes + waitingBytes(o.queue)
	inFlight := o.pending - before
	f := o.sorted.whole(head, tail)
	room := max(o.cfg.LimitBytes-inFlight, o.cfg.LimitBytes/2)

	dropped := o.sorted.dropped
	o.sortLocked(sortAhead*len(f), room)
	live := droppable(f)
	if live {
		o.sorted.push(f, room)
	} else {
		o.sorted.makeRoom(room - len(f))
	}
	artifacts = o.sorted.dropped - dropped
	o.pending = inFlight + o.sorted.bytes + waitingBytes(o.queue)
	switch {
	case live:
		v = o.verdictLocked()
	case o.pending+len(f) <= o.cfg.LimitBytes:
		v = o.holdLocked(f)
	default:
		v = Full
	}
	if o.sorted.all.Len() == 0 {
		o.sorted = nil
	}
	o.wakeLocked()
	return v, artifacts
}

// holdLocked queues a frame that can't be dropped behind what is sorted.
func (o *Outbox) holdLocked(f wire.Frame) Verdict {
	before := o.sorted.bytes
	o.sorted.add(&sortedFrame{bytes: slices.Clone(f)}, (*list.List).PushBack)
	o.pending += o.sorted.bytes - before
	return o.verdictLocked()
}

// sortLocked sorts about n bytes of the queue, from its end on, for that is
// where the newest are.
func (o *Outbox) sortLocked(n, room int) {
	for n > 0 && len(o.queue) > 0 {
		from := len(o.queue) - 1
		for o.queue[from].chunk == nil { // a tail goes with its head
			from--
		}
		var part []*sortedFrame
		for f := range frames(o.queue[from:]) {
			part = o.sorted.split(part, f)
		}
		for _, f := range slices.Backward(part) {
			if !o.sorted.replaced(f) {
				o.sorted.add(f, (*list.List).PushFront)
				o.sorted.makeRoom(room)
			}
		}
		n -= waitingBytes(o.queue[from:])
		o.recycle(o.queue[from:])
		o.queue = o.queue[:from]
	}
}

// unsortLocked moves about n bytes of what is sorted back to the queue, in
// frames of as many artifacts as fit well.
func (o *Outbox) unsortLocked(n int) {
	s := o.sorted
	before := s.bytes
	for e := s.all.Front(); e != nil && before-s.bytes < n; e = s.all.Front() {
		f := s.remove(e)
		if !f.live {
			o.pending += len(f.bytes)
			o.copyLocked(f.bytes, nil)
			continue
		}
		first := f.bytes
		s.run.Reset()
		for {
			next := wire.NewRunReader(f.bytes.Body())
			_, _ = s.run.AppendNext(&next) // runs were checked when they came in
			if e = s.all.Front(); e == nil || s.run.Count() == wire.MaxCount || len(s.run.Body()) > largeChunk/2 {
				break
			}
			if f = e.Value.(*sortedFrame); !f.live || !sameRoute(first, f.bytes) {
				break
			}
			s.remove(e)
		}
		h := first.Header()
		h.Count = uint16(s.run.Count())
		packed := wire.AppendFrame(nil, h, first.Target(), first.From(), s.run.Body())
		o.pending += len(packed)
		o.copyLocked(packed, nil)
	}
	o.pending -= before - s.bytes
	if s.all.Len() == 0 {
		o.sorted = nil
	}
	o.wakeLocked()
}

// nextStepLocked takes about a step of what waits.
func (o *Outbox) nextStepLocked() []segment {
	n, _ := step(o.queue)
	for n < len(o.queue) && o.queue[n].chunk == nil { // a tail goes with its head
		n++
	}
	o.spare = append(o.spare[:0], o.queue[:n]...)
	o.queue = slices.Delete(o.queue, 0, n)
	return o.spare
}

func waitingBytes(queue []segment) (n int) {
	for _, s := range queue {
		n += len(s.b)
	}
	return n
}

// frames yields the queued frames in order, each valid until the next.
func frames(queue []segment) iter.Seq[wire.Frame] {
	return func(yield func(wire.Frame) bool) {
		var whole wire.Frame
		for i := 0; i < len(queue); i++ {
			for b := queue[i].b; len(b) > 0; {
				n := wire.FrameSize(b)
				if n <= len(b) {
					if !yield(wire.Frame(b[:n])) {
						return
					}
					b = b[n:]
					continue
				}
				i++ // a large frame's tail is a segment of its own
				whole = append(append(whole[:0], b...), queue[i].b...)
				if !yield(whole) {
					return
				}
				b = nil
			}
		}
	}
}

// sorted is the end of the queue of a reader that was too slow: frames of one
// artifact each, to be found by their keys. It takes some 200 bytes more for
// each than it counts.
type sorted struct {
	key     string
	all     *list.List               // of *sortedFrame, in their order
	keyed   *list.List               // of their elements in all: live artifacts with a key, in their order
	plain   *list.List               // likewise, without one
	newest  map[string]*list.Element // of all, by route and key
	lost    *list.Element            // of all: the one frame that tells of losses
	bytes   int                      // of all
	dropped int                      // artifacts that were, ever

	scratch wire.Frame
	name    []byte
	run     wire.Run
}

// sortedFrame is one artifact, or a frame that can't be dropped.
type sortedFrame struct {
	bytes wire.Frame
	live  bool          // an artifact that can be dropped
	name  string        // its route and key, empty without a key
	kin   *list.Element // its place in keyed or plain
}

func newSorted(key string) *sorted {
	return &sorted{key: key, all: list.New(), keyed: list.New(), plain: list.New(), newest: make(map[string]*list.Element)}
}

// whole puts a frame together, valid until the next.
func (s *sorted) whole(head, tail []byte) wire.Frame {
	s.scratch = append(append(s.scratch[:0], head...), tail...)
	return s.scratch
}

// split appends the artifacts of a frame, each in one of its own, or the frame
// itself when it can't be dropped.
func (s *sorted) split(all []*sortedFrame, f wire.Frame) []*sortedFrame {
	if !droppable(f) {
		return append(all, &sortedFrame{bytes: slices.Clone(f)})
	}
	h := f.Header()
	h.Count = 1
	keyless := f.Flags()&wire.FlagRequest != 0
	s.name = appendRoute(s.name[:0], f)
	route := len(s.name)
	for r := wire.NewRunReader(f.Body()); ; {
		value, _ := r.Peek(s.key) // runs were checked when they came in
		s.run.Reset()
		if more, _ := s.run.AppendNext(&r); !more {
			return all
		}
		one := &sortedFrame{live: true, bytes: wire.AppendFrame(nil, h, f.Target(), f.From(), s.run.Body())}
		if value != nil && !keyless {
			s.name = append(s.name[:route], value...)
			one.name = string(s.name)
		}
		all = append(all, one)
	}
}

// push appends the artifacts of a live frame, whatever their size; older ones
// make room for them.
func (s *sorted) push(f wire.Frame, room int) {
	part := s.split(nil, f)
	size := 0
	for _, f := range part {
		size += len(f.bytes)
		if older, ok := s.newest[f.name]; ok {
			s.drop(older)
		}
	}
	s.makeRoom(room - size)
	for _, f := range part {
		if older, ok := s.newest[f.name]; ok { // of the same frame
			s.drop(older)
		}
		s.add(f, (*list.List).PushBack)
	}
}

// replaced drops an artifact that has a newer one.
func (s *sorted) replaced(f *sortedFrame) bool {
	_, ok := s.newest[f.name]
	if ok {
		s.dropped++
	}
	return ok
}

// add puts a frame in at one of the ends.
func (s *sorted) add(f *sortedFrame, push func(*list.List, any) *list.Element) {
	lost := lostIn(f.bytes)
	if lost > 0 && s.lost != nil { // one frame tells it all
		first := s.lost.Value.(*sortedFrame)
		h := first.bytes.Header()
		h.Sequence += wire.Sequence(lost)
		first.bytes = wire.AppendFrame(first.bytes[:0], h, "", "", nil)
		return
	}
	e := push(s.all, f)
	s.bytes += len(f.bytes)
	switch {
	case lost > 0:
		s.lost = e
	case f.live && f.name != "":
		f.kin = push(s.keyed, e)
		s.newest[f.name] = e
	case f.live:
		f.kin = push(s.plain, e)
	}
}

// makeRoom drops artifacts until no more than so many bytes are left, or none
// that may be dropped.
func (s *sorted) makeRoom(most int) {
	for s.bytes > most {
		oldest := s.plain.Front()
		if oldest == nil {
			oldest = s.keyed.Front()
		}
		if oldest == nil {
			return
		}
		s.drop(oldest.Value.(*list.Element))
	}
}

func (s *sorted) drop(e *list.Element) {
	s.remove(e)
	s.dropped++
}

func (s *sorted) remove(e *list.Element) *sortedFrame {
	f := s.all.Remove(e).(*sortedFrame)
	s.bytes -= len(f.bytes)
	switch {
	case e == s.lost:
		s.lost = nil
	case f.name != "":
		s.keyed.Remove(f.kin)
		delete(s.newest, f.name)
	case f.live:
		s.plain.Remove(f.kin)
	}
	return f
}

// appendRoute appends what tells the route of a frame's artifacts from others.
func appendRoute(b []byte, f wire.Frame) []byte {
	b = append(b, byte(f.Kind()))
	end := f.From()
	if f.Kind() == wire.KindPublish {
		b = binary.BigEndian.AppendUint32(b, f.Ref())
		end = f.Target()
	}
	b = binary.AppendUvarint(b, uint64(len(end)))
	return append(b, end...)
}

// sameRoute reports whether artifacts of both frames can be in one.
func sameRoute(a, b wire.Frame) bool {
	return a.Kind() == b.Kind() && a.Flags() == b.Flags() && a.Ref() == b.Ref() &&
		string(a.Target()) == string(b.Target()) && string(a.From()) == string(b.From())
}
