package hub

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

const (
	// fenceTime bounds how long a node that is asked for a session lets the other one
	// wait for order. It is below what a client waits for its handshake.
	fenceTime = 2 * time.Second
	// fenceAgain is how long a question rests that a node had no room for.
	fenceAgain = 10 * time.Millisecond
	// mendTime is how long after a link was lost order waits for it to come back. Some of
	// what was on its way may have arrived at its other end, and be on its way from there.
	mendTime = 2 * time.Second
)

// fence coalesces the waits until what was sent to the other nodes has arrived: one
// round at a time, and one more for all who came meanwhile.
type fence struct {
	running sync.Mutex

	mu   sync.Mutex    // guards next
	next chan struct{} // closed when the round that has not begun yet is over; nil: there is none
}

// allArrived returns what is closed once all direct artifacts that this node sent to
// others before have come to where their clients are, or are lost with a link. No other
// time bounds that: a node that hangs loses its links.
func (h *Hub) allArrived() <-chan struct{} {
	f := &h.fence
	f.mu.Lock()
	defer f.mu.Unlock()
	over := f.next
	if over == nil {
		over = make(chan struct{})
		f.next = over
		if !h.spawn(func() { h.runFence(over) }) {
			f.next = nil
			close(over)
		}
	}
	return over
}

func (h *Hub) runFence(over chan struct{}) {
	f := &h.fence
	f.running.Lock()
	defer f.running.Unlock()
	f.mu.Lock()
	f.next = nil
	f.mu.Unlock()
	defer close(over)
	var asking sync.WaitGroup
	for _, node := range h.linkedLately() {
		asking.Go(func() {
			err := h.askFence(h.life, node, QuestionSettled, "")
			if err != nil && h.link(node) != nil { // the version before does not know that question
				_ = h.askFence(h.life, node, QuestionPassed, "") // when it fails, that node is lost, with what was on its way
			}
		})
	}
	asking.Wait()
}

// askFence puts a question to a node that goes behind all that was sent to it before,
// and returns once it is answered. An error says that the link is lost, with what was on
// its way; or that ctx has ended.
func (h *Hub) askFence(ctx context.Context, node, question, by string) error {
	var until time.Time // of the wait for the link
	for {
		_, err := h.remote.Ask(ctx, node, question, []byte(by))
		refused, ok := errors.AsType[*wire.Error](err)
		switch {
		case !ok || ctx.Err() != nil:
			return err
		case refused.Code == wire.CodeOverloaded:
		case refused.Code == wire.CodeUnavailable:
			if until.IsZero() {
				until = h.mendsUntil(node)
			}
			if !h.waitForMend(ctx, node, until) {
				return err
			}
		default:
			return err
		}
		again := time.NewTimer(fenceAgain)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return context.Cause(ctx)
		}
	}
}

// linkedLately returns the nodes that there is a link to, or was just now.
func (h *Hub) linkedLately() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	nodes := slices.Collect(maps.Keys(*h.peers.Load()))
	for node, at := range h.lost {
		if time.Since(at) < mendTime {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// mendsUntil returns how long a link that was lost is waited for.
func (h *Hub) mendsUntil(node string) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	lost, ok := h.lost[node]
	if !ok { // it has come back already
		lost = time.Now()
	}
	return lost.Add(mendTime)
}

// waitForMend returns true once there is a link to a node, and false when its time is up
// or that node has left the cluster.
func (h *Hub) waitForMend(ctx context.Context, node string, until time.Time) bool {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	return h.waitForLinkUntil(ctx, node) && ctx.Err() == nil
}

// askPassed returns when every linked node has said that it handled all that this
// one sent to it before, and has taken all that they sent before they said so.
func (h *Hub) askPassed(ctx context.Context) {
	h.askAll(ctx, func(ctx context.Context, node string) (func(), error) {
		return func() {}, h.askFence(ctx, node, QuestionPassed, "")
	})
}

// answerPassed answers once another node has handled all that came from the
// asking one by way of this one; of this one when none is named.
func (h *Hub) answerPassed(ctx context.Context, by string) error {
	if by == "" || by == h.remote.Self() {
		return nil
	}
	_ = h.askFence(ctx, by, QuestionPassed, "") // when it fails, that node is lost, with what was on its way
	return ctx.Err()
}

// answerSettled answers once nothing is on its way any more that came from the asking
// node and was passed on from here, nor what was sent from here to where clients were
// before they came to the asking node. It waits for links only, never for another
// node's session.
func (h *Hub) answerSettled(ctx context.Context) {
	h.moves.wait(ctx)
	var asking sync.WaitGroup
	for node, last := range h.onward.open() {
		asking.Go(func() {
			_ = h.askFence(ctx, node, QuestionPassed, "") // when it fails, that node is lost, with what was on its way
			if ctx.Err() == nil {
				h.onward.arrived(node, last)
			}
		})
	}
	asking.Wait()
}

// onward knows which nodes were sent artifacts that had come from other nodes, unless
// these are known to have arrived.
type onward struct {
	mu    sync.Mutex // guards the fields below
	sent  uint64
	nodes map[string]uint64 // which of those sent was the last one
}

func (o *onward) note(node string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.nodes == nil {
		o.nodes = make(map[string]uint64)
	}
	o.sent++
	o.nodes[node] = o.sent
}

func (o *onward) open() map[string]uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.nodes)
}

func (o *onward) arrived(node string, last uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.nodes[node] == last {
		delete(o.nodes, node)
	}
}

// moves are those of clients between other nodes that this one waits for in order to
// send by the new way.
type moves struct {
	mu    sync.Mutex // guards under
	under map[chan struct{}]struct{}
}

// begin notes one that has begun; over has to be called once.
func (m *moves) begin() (over func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.under == nil {
		m.under = make(map[chan struct{}]struct{})
	}
	done := make(chan struct{})
	m.under[done] = struct{}{}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.under, done)
		close(done)
	}
}

// wait returns when those that are under way now are over, or ctx has ended.
func (m *moves) wait(ctx context.Context) {
	m.mu.Lock()
	under := maps.Clone(m.under)
	m.mu.Unlock()
	for done := range under {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
}

// holdBack makes what is for some clients wait here until releaseHeld is called for
// each. What was on its way to where they were before has been queued for there when
// it returns.
func (h *Hub) holdBack(ids ...wire.ClientID) {
	for _, id := range ids {
		h.finds.hold(id)
	}
	h.waitForSenders()
}

// isOrWasHere reports whether a client has its session here, or had it until just now.
func (h *Hub) isOrWasHere(id wire.ClientID) bool {
	_, here := h.Client(id)
	return here || h.awaySession(id) != nil
}

// waitForSenders returns when whoever has looked up where a client is has queued the
// frame for there.
func (h *Hub) waitForSenders() {
	h.sending.Lock()
	defer h.sending.Unlock()
}

// Moving says that clients are about to be found on another node than before.
// What is sent to them from here waits until everything that went the old way has
// arrived, so that it stays in order. It is to be called before Locate tells of
// the move. Of clients that were here nothing waits, whatever from says: what comes for
// them is on its way to the new node as soon as it is here.
func (h *Hub) Moving(ids []wire.ClientID, from, to string) {
	if from == h.remote.Self() || to == h.remote.Self() || !slices.Contains(h.linkedLately(), from) {
		return
	}
	if ids = slices.DeleteFunc(slices.Clone(ids), h.isOrWasHere); len(ids) == 0 {
		return
	}
	h.holdBack(ids...)
	over := h.moves.begin()
	release := func() {
		for _, id := range ids {
			h.releaseHeld(id)
		}
		over()
	}
	if !h.spawn(func() {
		defer release()
		_ = h.askFence(h.life, from, QuestionPassed, to) // when it fails, that node is lost, with what was on its way
	}) {
		release()
	}
}
