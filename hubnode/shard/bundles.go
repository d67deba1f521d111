package shard

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// bundles send what can wait a little for one node in one frame: at rest that is the
// heartbeats of all shards that this node leads. Each waits as long as it may, and goes
// earlier with one that may not wait any longer. Those that went together are answered
// together, and so come together again.
type bundles struct {
	carrier Carrier
	takes   func(node string) bool
	pause   time.Duration // between two heartbeats of a shard, which Raft draws out further by the time of an answer

	mu     sync.Mutex // guards the fields below, and how many hurry in each transport
	nodes  map[string]*bundle
	closed bool
}

// bundle is what waits for one node.
type bundle struct {
	calls []waitingCall
	due   time.Time // of the first to go
	timer *time.Timer
}

// waitingCall is a call whose frame is not sent yet.
type waitingCall struct {
	by    *transport
	ref   uint32
	frame []byte
	sent  func() // called when it is about to be sent; may be nil
}

func newBundles(cfg Config) *bundles {
	return &bundles{carrier: cfg.Carrier, takes: cfg.Bundles, pause: cfg.Timing.withDefaults().Heartbeat / 5, nodes: make(map[string]*bundle)}
}

// send sends a call to a node, at the latest when it is due. Who is in a hurry does not
// wait, nor do calls to a node that takes no bundles.
func (b *bundles) send(node string, c waitingCall, due time.Time) {
	wait := time.Until(due)
	together := b.takes(node)
	b.mu.Lock()
	if b.closed || !together || c.by.hurried > 0 {
		b.mu.Unlock()
		b.carry(node, c)
		return
	}
	to := b.nodes[node]
	if to == nil {
		to = &bundle{timer: time.AfterFunc(wait, func() { b.carry(node, b.take(node)...) })}
		b.nodes[node] = to
	}
	to.calls = append(to.calls, c)
	var calls []waitingCall
	switch {
	case wait <= 0:
		calls = to.takeLocked()
	case len(to.calls) == 1 || due.Before(to.due):
		to.due = due
		to.timer.Reset(wait)
	}
	b.mu.Unlock()
	b.carry(node, calls...)
}

// take takes what waits for a node.
func (b *bundles) take(node string) []waitingCall {
	b.mu.Lock()
	defer b.mu.Unlock()
	if to := b.nodes[node]; to != nil {
		return to.takeLocked()
	}
	return nil
}

func (to *bundle) takeLocked() []waitingCall {
	to.timer.Stop()
	calls := to.calls
	to.calls = nil
	return calls
}

// carry sends calls: one as it is, more as a bundle.
func (b *bundles) carry(node string, calls ...waitingCall) {
	frames := make([][]byte, len(calls))
	for i, c := range calls {
		frames[i] = c.frame
		if c.sent != nil {
			c.sent()
		}
	}
	if len(calls) == 0 || b.carrier.Carry(node, bundled(frames)...) {
		return
	}
	for _, c := range calls {
		c.by.answered(c.ref, nil, errNoLink)
	}
}

// hurry sends at once, and not with others, what waits of a transport and what it sends
// until it hurries no longer.
func (b *bundles) hurry(t *transport) {
	b.mu.Lock()
	t.hurried++
	hasty := make(map[string][]waitingCall)
	for node, to := range b.nodes {
		to.calls = slices.DeleteFunc(to.calls, func(c waitingCall) bool {
			if c.by == t {
				hasty[node] = append(hasty[node], c)
			}
			return c.by == t
		})
	}
	b.mu.Unlock()
	for node, calls := range hasty {
		for _, c := range calls {
			b.carry(node, c)
		}
	}
}

func (b *bundles) calm(t *transport) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t.hurried--
}

// forget drops what waits for a node that there is no link to any more. Who called is
// told so by others.
func (b *bundles) forget(node string) { b.take(node) }

// close stops the timers. What is sent later does not wait.
func (b *bundles) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for _, to := range b.nodes {
		to.timer.Stop()
	}
}

// bundled returns the parts of the frame that has the frames in it; a single one is sent as it is.
func bundled(frames [][]byte) [][]byte {
	if len(frames) == 1 {
		return frames
	}
	h := wire.AppendFrame(nil, wire.Header{Kind: wire.KindBundle}, "", "", nil)
	return append([][]byte{wire.Frame(h).Extended(sizeOf(frames))}, frames...)
}

// unbundled returns the frames of a bundle, which alias b, and how many of them are calls.
func unbundled(b []byte) (frames []wire.Frame, calls int, err error) {
	for len(b) > 0 {
		size := wire.FrameSize(b)
		if size == 0 || size > len(b) {
			return nil, 0, fmt.Errorf("%w: a bundle that ends within a frame", wire.ErrMalformed)
		}
		f, err := wire.ParseFrame(b[:size:size])
		if err != nil {
			return nil, 0, err
		}
		switch f.Kind() {
		case wire.KindRaft:
			calls++
		case wire.KindRafted:
		default:
			return nil, 0, fmt.Errorf("%w: a bundle with a frame of kind %d", wire.ErrMalformed, f.Kind())
		}
		frames, b = append(frames, f), b[size:]
	}
	return frames, calls, nil
}

// takeBundle handles what another node has sent together.
func (s *Shards) takeBundle(node string, f wire.Frame, slab *wire.Slab) {
	frames, calls, err := unbundled(f.Body())
	if err != nil {
		s.cfg.Log.Warn("bundle not understood", slog.String("peer", node), slog.Any("error", err))
		return
	}
	back := answers{carrier: s.cfg.Carrier, node: node}
	if calls > 1 {
		back = back.together(calls, s.bundles.pause/gatherPart)
	}
	for _, f := range frames {
		if f.Kind() == wire.KindRaft {
			s.called(f, slab, back)
		} else {
			s.answered(f)
		}
	}
}

// gatherPart of the pause between two heartbeats is how long the answers to a bundle
// wait for each other.
const gatherPart = 20

// answers is the way back for the answers to another node's calls.
type answers struct {
	carrier Carrier
	node    string
	with    *gathering // nil: each goes alone
}

// gathering is the answers to the calls of one bundle, which go back together. A replica
// that is slow does not hold up the others for long: it is answered for alone.
type gathering struct {
	timer *time.Timer

	mu     sync.Mutex // guards the fields below
	open   int        // calls without an answer
	over   bool       // no answer waits any more
	frames [][]byte
}

// together returns the way back for a number of calls whose answers wait for each other.
func (a answers) together(calls int, most time.Duration) answers {
	g := &gathering{open: calls}
	g.timer = time.AfterFunc(most, func() { a.carry(g.end()) })
	return answers{carrier: a.carrier, node: a.node, with: g}
}

// say sends an answer, given in parts that must not change afterwards.
func (a answers) say(parts ...[]byte) {
	if a.with == nil {
		a.carrier.Carry(a.node, parts...)
		return
	}
	a.carry(a.with.add(slices.Concat(parts...)))
}

func (a answers) carry(frames [][]byte) {
	if len(frames) > 0 {
		a.carrier.Carry(a.node, bundled(frames)...)
	}
}

// add takes an answer, and returns those that are to be sent now.
func (g *gathering) add(frame []byte) [][]byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
	g.frames = append(g.frames, frame)
	if g.open > 0 && !g.over {
		return nil
	}
	g.timer.Stop()
	return g.takeLocked()
}

// end makes no answer wait any longer, and returns those that did.
func (g *gathering) end() [][]byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
	return g.takeLocked()
}

func (g *gathering) takeLocked() [][]byte {
	frames := g.frames
	g.frames = nil
	return frames
}
