package shard

import (
	"container/list"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// What is remembered of publishers is bounded, by the log's clock so that it is
// the same in every replica.
const (
	publishersMax = 8192             // of one shard, each with a topic
	publisherAge  = 15 * time.Minute // since its last frame
	firstsMax     = 256              // of one publisher's latest frames, whose sequences are known
)

// publisherKey is one publisher on one topic.
type publisherKey struct {
	ID    uint64
	Topic string
}

// publisher is what a shard remembers of one.
type publisher struct {
	Key    publisherKey
	Last   uint64          // the number of its latest frame
	Firsts []wire.Sequence // where the latest frames were stored, the newest last
	At     time.Time       // of the latest frame
}

// publishers recognise what was stored before. All but has is for one goroutine.
type publishers struct {
	mu    sync.Mutex // held while the fields below change, and by others that read them
	known map[publisherKey]*list.Element
	order *list.List // of *publisher; who published last is at the end
}

func newPublishers() *publishers {
	return &publishers{known: make(map[publisherKey]*list.Element), order: list.New()}
}

// verdict says what to do with a numbered frame.
type verdict uint8

const (
	storeIt  verdict = iota
	repeated         // it is stored already
	tooSoon          // one before it has not come yet
)

// judge says whether a frame is the one to be stored next. For a repeated one
// first is where it was stored, 0 when that is not known any more.
func (p *publishers) judge(topic string, by Publisher) (v verdict, first wire.Sequence) {
	e := p.known[publisherKey{by.ID, topic}]
	if e == nil {
		if by.Number == 1 || by.Oldest {
			return storeIt, 0
		}
		return tooSoon, 0
	}
	have, _ := e.Value.(*publisher)
	switch {
	case by.Number <= have.Last:
		if ago := have.Last - by.Number; ago < uint64(len(have.Firsts)) {
			first = have.Firsts[len(have.Firsts)-1-int(ago)]
		}
		return repeated, first
	case by.Number == have.Last+1, by.Oldest:
		return storeIt, 0
	}
	return tooSoon, 0
}

// has reports whether a frame is known to be stored.
func (p *publishers) has(topic string, by Publisher) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	v, _ := p.judge(topic, by)
	return v == repeated
}

// stored notes that a frame was stored.
func (p *publishers) stored(topic string, by Publisher, first wire.Sequence, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := publisherKey{by.ID, topic}
	e := p.known[key]
	if e == nil {
		e = p.order.PushBack(&publisher{Key: key})
		p.known[key] = e
	} else {
		p.order.MoveToBack(e)
	}
	have, _ := e.Value.(*publisher)
	if by.Number != have.Last+1 {
		have.Firsts = have.Firsts[:0] // those between were given up
	}
	if len(have.Firsts) == firstsMax {
		have.Firsts = append(have.Firsts[:0], have.Firsts[firstsMax/2:]...)
	}
	have.Firsts = append(have.Firsts, first)
	have.Last, have.At = by.Number, now
	p.forgetLocked(now)
}

// forgetLocked drops those that are too many, or silent for too long.
func (p *publishers) forgetLocked(now time.Time) {
	for e := p.order.Front(); e != nil; e = p.order.Front() {
		have, _ := e.Value.(*publisher)
		if p.order.Len() <= publishersMax && now.Sub(have.At) <= publisherAge {
			return
		}
		p.order.Remove(e)
		delete(p.known, have.Key)
	}
}

// list returns what is remembered, for a snapshot.
func (p *publishers) list() []publisher {
	all := make([]publisher, 0, p.order.Len())
	for e := p.order.Front(); e != nil; e = e.Next() {
		have, _ := e.Value.(*publisher)
		all = append(all, *have)
	}
	return all
}

// restore puts back what list returned.
func (p *publishers) restore(all []publisher) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known, p.order = make(map[publisherKey]*list.Element), list.New()
	for i := range all {
		p.known[all[i].Key] = p.order.PushBack(&all[i])
	}
}
