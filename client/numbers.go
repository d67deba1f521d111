package client

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

const (
	// numberedMax bounds the topics whose publishes are numbered; those to more
	// may be stored twice when they have to be sent again.
	numberedMax = 1 << 16
	againMin    = 10 * time.Millisecond // before what was refused for now is sent again
	againMax    = time.Second
)

// numbering numbers a client's publishes for each topic, so that the hub stores
// what is sent again once, and in order.
type numbering struct {
	id     uint64
	topics map[string]*numbered
}

// numbered is one topic's.
type numbered struct {
	last uint64
	open []uint64 // written and not settled, rising
}

func newNumbering() numbering {
	return numbering{id: rand.Uint64() | 1, topics: make(map[string]*numbered)} //nolint:gosec // to tell publishers apart, not to keep a secret
}

// give numbers a packet that is about to be written, once, and says whether it
// is the oldest that an answer is waited for.
func (n *numbering) give(p *packet) {
	if p.header.Kind != wire.KindPublish || p.promise == nil {
		return
	}
	t := n.topics[p.target]
	if p.number == 0 {
		if t == nil {
			if len(n.topics) >= numberedMax {
				return
			}
			t = &numbered{}
			n.topics[p.target] = t
		}
		t.last++
		p.number = t.last
		t.open = append(t.open, p.number)
	}
	p.header.Sequence = wire.Sequence(p.number)
	p.header.Flags &^= wire.FlagOldest
	if t.open[0] == p.number {
		p.header.Flags |= wire.FlagOldest
	}
}

// settled takes note that a packet is not waited for any more.
func (n *numbering) settled(p *packet) {
	if p.number == 0 {
		return
	}
	t := n.topics[p.target]
	if i, ok := slices.BinarySearch(t.open, p.number); ok {
		t.open = slices.Delete(t.open, i, i+1)
	}
}

// putOffLocked keeps a numbered publish that was refused for now, to send it
// again: with those around it, so that they stay in order.
func (s *sender) putOffLocked(p *packet, err error) {
	now := time.Now()
	if p.refused = err; p.since.IsZero() {
		p.since = now
	}
	if s.again != nil {
		return
	}
	wait := againAfter(now.Sub(p.since))
	s.again = time.AfterFunc(wait/2+rand.N(wait), s.tryAgain) //nolint:gosec // spreads load, guards nothing
}

// againAfter returns the time to wait before something is sent again that has been
// refused for so long. It is a part of that, so that little is added to however long
// it takes the hub to choose a leader.
func againAfter(refused time.Duration) time.Duration {
	return min(max(refused/4, againMin), againMax)
}

// tryAgain queues what was refused for now once more, in order.
func (s *sender) tryAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.again = nil
	if s.ended != nil {
		return
	}
	s.againLocked(s.writtenLocked(func(p *packet) bool { return p.refused != nil }))
	s.wakeWriter()
}
