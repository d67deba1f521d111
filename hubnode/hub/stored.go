package hub

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// The frames that wait for one topic's log to open are bounded by both.
const (
	waitingMax      = 10_000
	waitingMaxBytes = 16 << 20
)

// topicLog is a topic's history on its home node, or a copy that is held for
// the home while that is away.
type topicLog struct {
	held atomic.Bool // there is a log, to be served or for the home to fetch

	mu           sync.Mutex // guards the fields below and the order of deliveries
	log          *history.Log
	open         bool // this node is the home and has what the peers held
	opened       chan struct{}
	waiting      []stray // while the log opens
	waitingBytes int
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

func overloaded(detail string) error {
	return &wire.Error{Code: wire.CodeOverloaded, Detail: detail}
}

func unavailable(topic, node string) error {
	return &wire.Error{Code: wire.CodeUnavailable, Detail: "topic " + topic + " has its home on node " + node + ", which is not reachable now: publish again"}
}

func hopFlag(hopped bool) wire.Flags {
	if hopped {
		return wire.FlagHop
	}
	return 0
}

// publishStored brings a frame to the topic's home, which stores and delivers
// it. An error says that it won't be; else o hears what comes of it.
func (in *intake) publishStored(r *route, f *fan, p *parcel, o origin) error {
	if f.local {
		return in.store(r, p, o)
	}
	link := in.hub.link(f.home)
	if link == nil || o.hopped {
		return unavailable(r.topic, f.home)
	}
	in.hub.awaiting.add(f.home, &o, r)
	head := in.stamp(p, wire.KindStore, p.frame.Flags()&wire.FlagAck|hopFlag(o.client == nil), o.ref)
	if !queued(in.push(link, head, p.frame[wire.HeaderSize:], p.slab)) {
		in.hub.awaiting.forget(&o)
		in.hub.metrics.dropped(dropLinkFull, p.frame.Count())
		return overloaded("the link to the topic's home node is full: publish again")
	}
	return nil
}

// store appends a frame to the log of a topic whose home is here, and delivers
// it in the order of the log. While the log opens the frame waits.
func (in *intake) store(r *route, p *parcel, o origin) error {
	t := &r.log
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open {
		return in.storeLocked(r, p, o)
	}
	if len(t.waiting) >= waitingMax || t.waitingBytes > waitingMaxBytes {
		return overloaded("too many artifacts wait for the topic's history to open")
	}
	t.waiting = append(t.waiting, astray(p, o))
	t.waitingBytes += len(p.frame)
	in.openLocked(r)
	return nil
}

// storeLocked is store for a log that is open; topicLog.mu is held.
func (in *intake) storeLocked(r *route, p *parcel, o origin) error {
	if in.hub.handing.Load() {
		return &wire.Error{Code: wire.CodeDraining, Detail: "the topic's home node is stopping: publish again"}
	}
	count := p.frame.Count()
	p.seq = r.log.log.Append(time.Now(), in.publisher(p.frame), count, p.frame.Body())
	r.sawUpTo(p.seq + wire.Sequence(count))
	// Resolved under the log's lock: a subscription that was listed before
	// this append is in it.
	in.fanOut(r, in.hub.resolve(r), p)
	o.ack(in, p.seq, count, 0)
	return nil
}

// sawUpTo remembers the highest sequence heard of, for a home that lost its
// log.
func (r *route) sawUpTo(next wire.Sequence) { raise(&r.seen, next) }

// raise makes v at least next.
func raise(v *atomic.Uint64, next wire.Sequence) {
	for {
		have := v.Load()
		if uint64(next) <= have || v.CompareAndSwap(have, uint64(next)) {
			return
		}
	}
}
