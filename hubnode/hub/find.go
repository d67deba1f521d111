package hub

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/switchboardhub/switchboard/wire"
)

// The frames that wait until their target is found are bounded by both.
const (
	findMax      = 10_000
	findMaxBytes = 64 << 20
)

// finder keeps the frames whose target this node has not heard of, while it
// asks the other nodes: a client is reachable from everywhere as soon as its
// own connect has returned.
type finder struct {
	asking atomic.Int32 // targets being asked for; 0 on almost every message

	passing sync.RWMutex // held for reading from when frames are taken until they are sent on; before mu

	mu      sync.Mutex // guards the fields below
	waiting map[string][]stray
	held    map[string]int  // targets that are just being taken over: who holds them releases what waits
	sending map[string]bool // those whose frames somebody is just sending on
	fetched map[string]bool // those of held whose session is somewhere else yet
	frames  int
	bytes   int
	none    vacancy
}

// busy reports whether frames for this target wait already.
func (f *finder) busy(target []byte) bool {
	if f.asking.Load() == 0 {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.waiting[string(target)]
	return ok
}

// add keeps a frame; first says that nobody asks for its target yet.
func (f *finder) add(w stray) (first, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.frames >= findMax || f.bytes >= findMaxBytes {
		return false, false
	}
	target := string(w.p.frame.Target())
	if f.waiting == nil {
		f.waiting = make(map[string][]stray)
	}
	_, asked := f.waiting[target]
	f.waiting[target] = append(f.waiting[target], w)
	f.frames++
	f.bytes += len(w.p.frame)
	if !asked {
		f.asking.Add(1)
	}
	return !asked, true
}

// begin reports whether nobody else is sending what waits for a target: who does takes
// all of it, in order. Whoever begins goes on until take returns nothing.
func (f *finder) begin(target string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sending[target] {
		return false
	}
	if f.sending == nil {
		f.sending = make(map[string]bool)
	}
	f.sending[target] = true
	return true
}

// take returns the frames that wait for a target; none means that the target
// is no longer asked for, or that somebody holds it.
func (f *finder) take(target string) []stray {
	f.mu.Lock()
	defer f.mu.Unlock()
	frames, asked := f.waiting[target]
	if len(frames) == 0 || f.held[target] > 0 {
		delete(f.sending, target)
	}
	if !asked || f.held[target] > 0 {
		return nil
	}
	if len(frames) == 0 {
		delete(f.waiting, target)
		f.asking.Add(-1)
		if len(f.waiting) == 0 {
			f.none.reachedLocked()
		}
		return nil
	}
	f.waiting[target] = f.waiting[target][:0:0]
	f.frames -= len(frames)
	for _, w := range frames {
		f.bytes -= len(w.p.frame)
	}
	return frames
}

// withdraw takes back the artifacts of a client that wait. What it sent and is not
// among them has been sent on when withdraw returns.
func (f *finder) withdraw(from wire.ClientID) []stray {
	if f.asking.Load() == 0 {
		return nil
	}
	var frames []stray
	f.mu.Lock()
	for target, all := range f.waiting {
		var rest []stray
		for _, w := range all {
			if k := w.p.frame.Kind(); k != wire.KindSend && k != wire.KindReply || string(w.p.frame.From()) != from {
				rest = append(rest, w)
				continue
			}
			frames = append(frames, w)
			f.frames--
			f.bytes -= len(w.p.frame)
		}
		f.waiting[target] = rest
	}
	f.mu.Unlock()
	f.passing.Lock() // who took frames before sends them on first
	defer f.passing.Unlock()
	return frames
}

// settle returns when nothing waits, or ctx has ended.
func (f *finder) settle(ctx context.Context) {
	f.none.wait(ctx, &f.mu, func() bool { return len(f.waiting) == 0 })
}

// hold makes frames for a target wait, as those do for one that is asked for.
func (f *finder) hold(target string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting == nil {
		f.waiting = make(map[string][]stray)
	}
	if f.held == nil {
		f.held = make(map[string]int)
	}
	if _, asked := f.waiting[target]; !asked {
		f.waiting[target] = nil
		f.asking.Add(1)
	}
	f.held[target]++
}

// fetch notes that the session of a held target is somewhere else yet, or is no longer.
func (f *finder) fetch(target string, elsewhere bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !elsewhere {
		delete(f.fetched, target)
		return
	}
	if f.fetched == nil {
		f.fetched = make(map[string]bool)
	}
	f.fetched[target] = true
}

func (f *finder) fetches(target string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fetched[target]
}

// release undoes hold, and reports whether nobody else holds the target.
func (f *finder) release(target string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held[target]--; f.held[target] > 0 {
		return false
	}
	delete(f.held, target)
	return true
}

// releaseHeld undoes finder.hold and sends on what waited.
func (h *Hub) releaseHeld(target string) {
	if h.finds.release(target) {
		h.sendFound(target, "", nil)
	}
}

// find keeps a copy of the frame and asks the other nodes for its target.
func (in *intake) find(p *parcel, o origin) {
	first, ok := in.hub.finds.add(astray(p, o))
	switch {
	case !ok:
		in.hub.metrics.dropped(dropNoClient, p.frame.Count())
		o.refuse(in, overloaded("too many artifacts are for clients that this node has not heard of"))
	case first:
		h, target := in.hub, string(p.frame.Target())
		if !h.spawn(func() { h.findAndSend(target) }) {
			h.finds.take(target) // stopped: nobody is there to hear of it
		}
	}
}

// findAndSend asks where a client is and sends on what waits for it.
func (h *Hub) findAndSend(target string) {
	ctx, cancel := context.WithTimeout(h.life, findTime)
	defer cancel()
	node, err := h.whereIs(ctx, target)
	h.sendFound(target, node, err)
}

// sendFound sends on what waits for a target that may be here, on the node that the
// directory names, or on the one that has said so. Where it is on none, unsure is
// why it may be somewhere all the same, nil when it is nowhere.
func (h *Hub) sendFound(target, said string, unsure error) {
	if !h.finds.begin(target) {
		return
	}
	in := h.newIntake()
	in.resends = true
	for in.sendSomeFound(target, said, unsure) {
	}
	in.flush()
}

// sendSomeFound reports false when nothing waited.
func (in *intake) sendSomeFound(target, said string, unsure error) bool {
	h := in.hub
	h.finds.passing.RLock()
	defer h.finds.passing.RUnlock()
	frames := h.finds.take(target)
	for _, w := range frames {
		switch {
		case w.p.frame.Kind() == wire.KindAck, w.p.frame.Kind() == wire.KindError:
			in.answerFound(w.p.frame, said)
		case in.handHere([]byte(target), w.p, w.o): // it connected here meanwhile
		case in.passFound(w, said):
		case unsure != nil:
			h.metrics.dropped(dropNoClient, w.p.frame.Count())
			w.o.refuse(in, unsure)
		default:
			w.o.lost(in, w.p)
		}
	}
	return frames != nil
}

// passFound queues a frame that waited for the node that its target is on.
func (in *intake) passFound(w stray, said string) bool {
	h := in.hub
	h.sending.RLock()
	defer h.sending.RUnlock()
	node, link := h.locate(string(w.p.frame.Target()))
	if link == nil {
		node, link = said, h.link(said)
	}
	if link != nil {
		in.pass(node, link, w.p, w.o)
	}
	return link != nil
}

// whereIs returns the node that says it holds a client; empty when none does. The
// error says that one that might did not answer.
func (h *Hub) whereIs(ctx context.Context, id string) (best string, err error) {
	var bestEpoch uint64
	h.askAll(ctx, func(ctx context.Context, node string) (func(), error) {
		epoch, failed := h.askEpoch(ctx, node, id)
		return func() {
			switch {
			case failed != nil && h.link(node) != nil:
				err = &wire.Error{Code: wire.CodeUnavailable, Detail: "node " + node + " does not say whether client " + id + " is there: try again"}
			case epoch > bestEpoch || (epoch == bestEpoch && epoch > 0 && node > best):
				best, bestEpoch = node, epoch
			}
		}, nil
	})
	return best, err
}

// stray is a frame that waits, with its own memory.
type stray struct {
	p *parcel
	o origin
}

// astray copies a frame that has to wait.
func astray(p *parcel, o origin) stray {
	return stray{p: &parcel{frame: append(wire.Frame(nil), p.frame...), seq: p.seq}, o: o}
}
