package outbox

import (
	"encoding/binary"
	"iter"
	"math"
	"slices"

	"github.com/switchboardhub/switchboard/wire"
)

// PushConflated is Push for a frame of artifacts that Push has found no room
// for. It makes room: queued live artifacts go that were followed by another
// one of the same route and the same value of the attribute key; where that is
// not enough, the oldest of those without the attribute, then the oldest ones.
// It returns how many artifacts that took, and what Lost frames told of that
// went too.
//
// A route is a subscription and a topic, or a sender's way to this client. What
// stays keeps its order. Requests have no key, for each waits for an answer;
// control frames and artifacts of topics with history stay as in DropOldest.
//
// What is being written can't be dropped any more. What is not has at least half
// of the limit, and a pushed frame of live artifacts finds room whatever its
// size; another one is refused when it does not fit even so.
func (o *Outbox) PushConflated(head, tail []byte, slab *wire.Slab, key string) (v Verdict, artifacts, untold int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	size := len(head) + len(tail)
	toCome := size
	if droppable(wire.Frame(head)) {
		if v = o.pushLocked(head, tail, slab, math.MaxInt); v == Closed {
			return v, 0, 0
		}
		toCome = 0
	}
	o.conflated = true
	for {
		waiting := waitingBytes(o.queue)
		room := max(o.cfg.LimitBytes-(o.pending-waiting), o.cfg.LimitBytes/2)
		if waiting+toCome <= room {
			break
		}
		// A walk through the queue has to pay for itself: a quarter of the room
		// can be filled before the next one.
		most := room - room/4 + size
		dropped, told := o.conflateLocked(key, waiting+toCome-most)
		artifacts += dropped
		untold += told
		if dropped == 0 {
			break
		} // else look again: a run's rest may take more than it did
	}
	if toCome > 0 {
		v = o.pushLocked(head, tail, slab, o.cfg.LimitBytes)
	}
	return v, artifacts, untold
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

// conflateLocked drops about as many bytes as wanted, or more.
func (o *Outbox) conflateLocked(key string, want int) (artifacts, untold int) {
	plan := planConflation(o.queue, key, want)
	old := o.queue
	o.queue = make([]segment, 0, len(old))
	var run wire.Run
	for f, tail := range frames(old) {
		if f.Kind() == wire.KindLost {
			o.pending -= len(f)
			untold += lostIn(f)
			continue
		}
		if !droppable(f) {
			o.requeueLocked(f, tail)
			continue
		}
		stays, n := plan.judge(f)
		if n == f.Count() {
			o.requeueLocked(f, tail)
			continue
		}
		if n > 0 {
			run.Reset()
			_ = run.AppendPicked(f.Body(), func(place int) bool { return stays[place] }) // runs were checked when they came in
			h := f.Header()
			h.Count = uint16(n)
			part := wire.AppendFrame(nil, h, f.Target(), f.From(), run.Body())
			o.copyLocked(part, nil)
			o.pending += len(part)
		}
		o.pending -= len(f)
		artifacts += f.Count() - n
	}
	recycle(old)
	o.wakeLocked()
	return artifacts, untold
}

// requeueLocked queues a frame again that was queued before; a tail that is a
// segment of its own moves.
func (o *Outbox) requeueLocked(f wire.Frame, tail *segment) {
	if tail == nil {
		o.copyLocked(f, nil)
		return
	}
	o.copyLocked(f[:len(f)-len(tail.b)], nil)
	o.queue = append(o.queue, *tail)
	*tail = segment{}
}

// frames yields the queued frames in order, each valid until the next, and the
// tail of one that has a segment of its own for it.
func frames(queue []segment) iter.Seq2[wire.Frame, *segment] {
	return func(yield func(wire.Frame, *segment) bool) {
		var whole wire.Frame
		for i := 0; i < len(queue); i++ {
			for b := queue[i].b; len(b) > 0; {
				n := frameLen(b)
				if n <= len(b) {
					if !yield(wire.Frame(b[:n]), nil) {
						return
					}
					b = b[n:]
					continue
				}
				i++
				whole = append(append(whole[:0], b...), queue[i].b...)
				if !yield(whole, &queue[i]) {
					return
				}
				b = nil
			}
		}
	}
}

// conflation says which artifacts of a queue stay.
type conflation struct {
	key    string
	newest map[string]spot // by route and key
	stale  []bool          // of those not judged yet, in their order: there is a newer one
	stays  []bool          // of those of the frame that was judged last
	name   []byte          // its route, and its key
	route  int             // the route's length

	keyless  bool // the artifacts of this frame have no key
	overhead int  // the frame's, which counts with its first artifact

	// How many bytes go beyond those that have a newer one.
	plain, keyed int
}

// spot is where in the queue an artifact is, and its size.
type spot struct{ place, size int }

// planConflation looks at a queue of which so many bytes have to go.
func planConflation(queue []segment, key string, want int) *conflation {
	c := &conflation{key: key, newest: make(map[string]spot)}
	plain := 0
	for f := range frames(queue) {
		if !droppable(f) {
			continue
		}
		c.enter(f)
		r := wire.NewRunReader(f.Body())
		for size, keyed := c.look(&r); size > 0; size, keyed = c.look(&r) {
			place := len(c.stale)
			c.stale = append(c.stale, false)
			if !keyed {
				plain += size
				continue
			}
			if older, ok := c.newest[string(c.name)]; ok {
				want -= older.size
				c.stale[older.place] = true
			}
			c.newest[string(c.name)] = spot{place, size}
		}
	}
	want = max(want, 0)
	c.plain = min(want, plain)
	c.keyed = want - c.plain
	return c
}

// judge tells which of a frame's artifacts stay, and how many, valid until the
// next frame is judged: each droppable one in turn, in the order of the queue.
func (c *conflation) judge(f wire.Frame) (stays []bool, n int) {
	c.stays = c.stays[:0]
	c.enter(f)
	r := wire.NewRunReader(f.Body())
	for size, keyed := c.look(&r); size > 0; size, keyed = c.look(&r) {
		stay := !c.stale[0] && !c.goes(size, keyed)
		c.stale = c.stale[1:]
		c.stays = append(c.stays, stay)
		if stay {
			n++
		}
	}
	return c.stays, n
}

// goes reports whether an artifact has to go that has no newer one.
func (c *conflation) goes(size int, keyed bool) bool {
	budget := &c.plain
	if keyed {
		budget = &c.keyed
	}
	if *budget <= 0 {
		return false
	}
	*budget -= size
	return true
}

// enter sets the route of the artifacts that are looked at next.
func (c *conflation) enter(f wire.Frame) {
	c.overhead = len(f) - len(f.Body())
	c.keyless = f.Flags()&wire.FlagRequest != 0
	b := c.name[:0]
	b = append(b, byte(f.Kind()))
	end := f.From()
	if f.Kind() == wire.KindPublish {
		b = binary.BigEndian.AppendUint32(b, f.Ref())
		end = f.Target()
	}
	b = binary.AppendUvarint(b, uint64(len(end)))
	b = append(b, end...)
	c.name = b
	c.route = len(c.name)
}

// look moves on to the next artifact and returns its size, 0 behind the last
// one, and whether it has a key, which is then in name.
func (c *conflation) look(r *wire.RunReader) (size int, keyed bool) {
	size, value, _ := r.Skip(c.key) // runs were checked when they came in
	if size > 0 {
		size += c.overhead
		c.overhead = 0
	}
	c.name = append(c.name[:c.route], value...)
	return size, value != nil && !c.keyless
}
