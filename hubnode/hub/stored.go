package hub

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// waitingMax bounds the frames that wait for one topic's log to open.
const waitingMax = 10_000

// topicLog is a topic's history on its home node, or a copy that is held for
// the home while that is away.
type topicLog struct {
	held atomic.Bool // there is a log, to be served or for the home to fetch

	mu      sync.Mutex // guards the fields below and the order of deliveries
	log     *history.Log
	open    bool // this node is the home and has what the peers held
	opening bool
	frozen  bool // the node drains: the log is handed over and must not grow
	waiting []func(in *intake, err error)
	opened  chan struct{} // closed when opening ends, whatever the result
}

// origin is who published a frame and hears what became of it: a client of
// this hub, or one behind another node.
type origin struct {
	client *Client
	link   Link   // nil as well when the other node is gone: nobody hears
	id     string // the client's id behind link
	hopped bool
	ref    uint32
	wanted bool // it asked for an acknowledgement
}

func (o *origin) ack(in *intake, seq wire.Sequence, count int, flags wire.Flags) {
	switch {
	case !o.wanted:
	case o.client != nil:
		o.client.ack(in, o.ref, seq, count, flags)
	case o.link != nil:
		h := wire.Header{Kind: wire.KindAck, Flags: flags, Count: uint16(count), Sequence: seq, Ref: o.ref} //nolint:gosec // a frame's count
		in.pushControl(o.link, wire.AppendFrame(nil, h, o.id, "", nil))
	}
}

func (o *origin) refuse(in *intake, err error) {
	switch {
	case o.client != nil:
		o.client.refuse(in, o.ref, err)
	case o.link != nil:
		fault := wire.FaultOf(err, wire.CodeInvalidRequest)
		in.pushControl(o.link, wire.AppendControl(nil, wire.Header{Kind: wire.KindError, Ref: o.ref}, o.id, fault))
	}
}

// publishStored brings a frame to the topic's home, which stores and delivers
// it.
func (in *intake) publishStored(r *route, f *fan, p *parcel, o origin) {
	if f.local {
		in.store(r, p, o)
		return
	}
	link := in.hub.link(f.home)
	if link == nil || o.hopped {
		o.refuse(in, unavailable(r.topic, f.home))
		return
	}
	in.hub.awaiting.add(f.home, &o)
	var h header
	p.stamp(&h, wire.KindStore, p.frame.Flags()&wire.FlagAck|hopFlag(o.client == nil), o.ref)
	if !queued(in.push(link, h[:], p.frame[wire.HeaderSize:], p.slab)) {
		o.refuse(in, &wire.Error{Code: wire.CodeOverloaded, Detail: "the link to the topic's home node is full: publish again"})
	}
}

func hopFlag(hopped bool) wire.Flags {
	if hopped {
		return wire.FlagHop
	}
	return 0
}

func unavailable(topic, node string) error {
	return &wire.Error{Code: wire.CodeUnavailable, Detail: "topic " + topic + " has its home on node " + node + ", which is not reachable now: publish again"}
}

// store appends a frame to the log of a topic whose home is here, and delivers
// it in the order of the log.
func (in *intake) store(r *route, p *parcel, o origin) {
	t := &r.log
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.frozen:
		o.refuse(in, &wire.Error{Code: wire.CodeDraining, Detail: "the topic's home node is stopping: publish again"})
	case !t.open && len(t.waiting) >= waitingMax:
		o.refuse(in, &wire.Error{Code: wire.CodeOverloaded, Detail: "too many artifacts wait for the topic's history to open"})
	case !t.open:
		own := *p
		own.frame, own.slab = append(wire.Frame(nil), p.frame...), nil
		t.waiting = append(t.waiting, func(in *intake, err error) {
			if err != nil {
				o.refuse(in, err)
				return
			}
			in.storeLocked(r, &own, o)
		})
		in.hub.openLocked(r)
	default:
		in.storeLocked(r, p, o)
	}
}

// storeLocked is store for a log that is open; topicLog.mu is held.
func (in *intake) storeLocked(r *route, p *parcel, o origin) {
	count := p.frame.Count()
	p.seq = r.log.log.Append(time.Now(), string(p.frame.From()), count, p.frame.Body())
	r.sawUpTo(p.seq + wire.Sequence(count)) //nolint:gosec // counts are never negative
	// Resolved under the log's lock: a subscription that was listed before
	// this append is in it.
	in.fanOut(r, in.hub.resolve(r), p)
	o.ack(in, p.seq, count, 0)
}

// sawUpTo remembers the highest sequence heard of, for a home that lost its
// log.
func (r *route) sawUpTo(next wire.Sequence) {
	for {
		seen := r.seen.Load()
		if uint64(next) <= seen || r.seen.CompareAndSwap(seen, uint64(next)) {
			return
		}
	}
}

// openLocked starts to open the log of a topic whose home is here.
func (h *Hub) openLocked(r *route) {
	t := &r.log
	if t.open || t.opening {
		return
	}
	if len(*h.peers.Load()) == 0 { // nobody to ask
		h.finishOpenLocked(h.newIntake(), r, t.log, nil)
		return
	}
	t.opening, t.opened = true, make(chan struct{})
	if !h.spawn(func() { h.open(r) }) {
		h.finishOpenLocked(h.newIntake(), r, nil, ErrNotRunning)
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

	log, err := h.adopt(ctx, r, own)
	in := h.newIntake()
	t.mu.Lock()
	h.finishOpenLocked(in, r, log, err)
	t.mu.Unlock()
	in.flush()
}

// finishOpenLocked serves those who waited. Whoever comes later after an error
// tries to open again.
func (h *Hub) finishOpenLocked(in *intake, r *route, log *history.Log, err error) {
	t := &r.log
	if err == nil {
		if log == nil {
			limits, _ := h.settings.Load().rule(r.topic)
			log = history.NewLog(limits, max(1, wire.Sequence(r.seen.Load())))
		}
		t.keep(log)
		t.open = true
	}
	t.opening = false
	if t.opened != nil {
		close(t.opened)
		t.opened = nil
	}
	waiting := t.waiting
	t.waiting = nil
	for _, serve := range waiting {
		serve(in, err)
	}
	in.flush()
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
	t := &r.log
	t.mu.Lock()
	if !t.open {
		h.openLocked(r)
	}
	log, open, opened := t.log, t.open, t.opened
	t.mu.Unlock()
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
	for node := range *h.peers.Load() {
		held, err := h.askHeld(ctx, node, r.topic)
		if err != nil {
			continue // it left, or will: what it held is gone with it
		}
		r.sawUpTo(held.Seen)
		if held.Holds && held.Next > bestEnd {
			best, bestEnd = node, held.Next
		}
	}
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
		err = p.each(func(f wire.Frame) error {
			run := history.Run{First: f.Sequence(), Count: f.Count(), From: string(f.From()), Body: f.Body()}
			from = run.First + wire.Sequence(run.Count) //nolint:gosec // counts are never negative
			return log.AppendAt(time.Now(), run)
		})
		if err != nil {
			return nil, err
		}
	}
}

// HandOver gives the histories that this node holds to other nodes: a topic's
// home, or its keeper when this node is the home. It refuses further appends
// from then on. The hub must still run.
func (h *Hub) HandOver(ctx context.Context) {
	var handing sync.WaitGroup
	limit := make(chan struct{}, 8) // topics at a time
	h.routes.Range(func(_, v any) bool {
		r, _ := v.(*route)
		if !r.log.held.Load() {
			return true
		}
		r.log.mu.Lock()
		r.log.frozen = true
		r.log.mu.Unlock()
		node, self := h.remote.Home(r.topic)
		if self {
			node = h.remote.Keeper(r.topic)
		}
		if node == "" {
			return true
		}
		limit <- struct{}{}
		handing.Go(func() {
			defer func() { <-limit }()
			h.askTake(ctx, node, r.topic)
		})
		return true
	})
	handing.Wait()
}

// take fetches a topic's log from a node that is about to stop, to hold it or
// to serve it.
func (h *Hub) take(ctx context.Context, node, name string) error {
	r, err := h.route(name)
	if err != nil {
		return err
	}
	if _, self := h.remote.Home(name); self {
		_, _, err := h.ready(ctx, name) // opening fetches what is held anywhere
		return err
	}
	log, err := h.fetch(ctx, node, name)
	if err != nil {
		return err
	}
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	if have := r.log.log; have == nil || have.Bounds().Next < log.Bounds().Next {
		r.log.keep(log)
		r.sawUpTo(log.Bounds().Next)
	}
	return nil
}
