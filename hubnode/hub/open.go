package hub

import (
	"context"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// openLocked starts to open the log of a topic whose home is here.
func (in *intake) openLocked(r *route) {
	h, t := in.hub, &r.log
	if t.open || t.opened != nil {
		return
	}
	t.opened = make(chan struct{})
	switch {
	case len(*h.peers.Load()) == 0 && h.settled(): // nobody to ask
		in.finishOpenLocked(r, t.log, nil)
	case !h.spawn(func() { h.open(r) }):
		in.finishOpenLocked(r, nil, ErrNotRunning)
	}
}

// open fetches what the other nodes hold of a topic and makes its log ready.
func (h *Hub) open(r *route) {
	ctx, cancel := context.WithTimeout(h.life, askTime)
	defer cancel()
	t := &r.log
	t.mu.Lock()
	own := t.log
	t.mu.Unlock()
	h.waitSettled(ctx)

	log, err := h.adopt(ctx, r, own)
	if !h.settled() {
		err = unavailable(r.topic, h.remote.Self())
	}
	in := h.newIntake()
	t.mu.Lock()
	in.finishOpenLocked(r, log, err)
	t.mu.Unlock()
	in.flush()
}

// settled reports whether every node that may hold a copy can be asked.
func (h *Hub) settled() bool {
	s, ok := h.remote.(settler)
	return !ok || s.Settled()
}

// waitSettled returns once the hub is settled, or ctx has ended.
func (h *Hub) waitSettled(ctx context.Context) {
	tick := time.NewTicker(retryMin)
	defer tick.Stop()
	for !h.settled() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// finishOpenLocked serves those who waited. Whoever comes later after an error
// tries to open again.
func (in *intake) finishOpenLocked(r *route, log *history.Log, err error) {
	h, t := in.hub, &r.log
	if home, self := h.remote.Home(r.topic); err == nil && !self { // it moved meanwhile
		err = unavailable(r.topic, home)
	}
	if err == nil {
		t.keep(h.continued(r, log))
		t.open = true
	}
	close(t.opened)
	t.opened = nil
	waiting := t.waiting
	t.waiting, t.waitingBytes = nil, 0
	for _, w := range waiting {
		refusal := err
		if refusal == nil {
			refusal = in.storeLocked(r, w.p, w.o)
		}
		if refusal != nil {
			w.o.refuse(in, refusal)
		}
	}
}

// continued returns the log to go on with: a new one when there is none, or
// when it ends before a sequence that somebody has seen. Sequences that are
// given twice would be taken for repeats, and lost in silence.
func (h *Hub) continued(r *route, log *history.Log) *history.Log {
	next := max(1, wire.Sequence(r.seen.Load()))
	if log != nil && log.Bounds().Next >= next {
		return log
	}
	if log == nil {
		next = max(next, wire.Sequence(r.claimed.Load()))
	}
	limits, _ := h.settings.Load().rule(r.topic)
	return history.NewLog(limits, next)
}

// keep makes log the topic's. topicLog.mu is held.
func (t *topicLog) keep(log *history.Log) {
	t.log = log
	t.held.Store(true)
}

// ready returns the log of a topic whose home is here, opened.
func (h *Hub) ready(ctx context.Context, name string) (*route, *history.Log, error) {
	r, err := h.route(name)
	if err != nil {
		return nil, nil, err
	}
	if home, self := h.remote.Home(name); !self {
		return nil, nil, unavailable(name, home)
	}
	in, t := h.newIntake(), &r.log
	t.mu.Lock()
	in.openLocked(r)
	log, open, opened := t.log, t.open, t.opened
	t.mu.Unlock()
	in.flush()
	if open {
		return r, log, nil
	}
	if opened != nil {
		select {
		case <-opened:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.open {
		return nil, nil, &wire.Error{Code: wire.CodeUnavailable, Detail: "the history of topic " + name + " can't be opened now"}
	}
	return r, t.log, nil
}

// adopt returns the furthest log of a topic that this node or another one
// holds, fetched whole; nil when nobody has any.
func (h *Hub) adopt(ctx context.Context, r *route, own *history.Log) (*history.Log, error) {
	best, bestEnd := "", wire.Sequence(0)
	if own != nil {
		bestEnd = own.Bounds().Next
	}
	h.askAll(ctx, func(ctx context.Context, node string) (func(), error) {
		held, err := h.askHeld(ctx, node, r.topic) // an error: it left, or will, and what it held is gone with it
		return func() {
			r.sawUpTo(held.Seen)
			raise(&r.claimed, held.Claimed)
			if held.Holds && held.Next > bestEnd {
				best, bestEnd = node, held.Next
			}
		}, err
	})
	if best == "" {
		return own, nil
	}
	return h.fetch(ctx, best, r.topic)
}

// fetch copies a topic's log from another node.
func (h *Hub) fetch(ctx context.Context, node, name string) (*history.Log, error) {
	limits, _ := h.settings.Load().rule(name)
	var log *history.Log
	for from := wire.Sequence(1); ; {
		p, err := h.askPage(ctx, node, questionCopy, name, from, pageBytes)
		if err != nil {
			return nil, err
		}
		if log == nil {
			log = history.NewLog(limits, max(p.first, 1))
			from = max(p.first, 1)
		}
		if from >= p.end {
			return log, nil
		}
		before := from
		err = p.each(func(f wire.Frame) error {
			run := history.Run{First: f.Sequence(), Count: f.Count(), From: string(f.From()), Body: f.Body()}
			from = run.First + wire.Sequence(run.Count)
			return log.AppendAt(time.Now(), run)
		})
		if err == nil && from == before {
			err = unavailable(name, node) // it lost what it had
		}
		if err != nil {
			return nil, err
		}
	}
}
