package durable

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

const (
	// setMax bounds the subscriptions of one set.
	setMax = 4096
	// ownerMax bounds those of one owner among them. [Set.Do] does not look at it, for replicas
	// of the version before don't: [Set.Claim] is asked before anything is proposed.
	ownerMax = setMax / 4
)

var (
	errNoDurable    = &wire.Error{Code: wire.CodeNoDurable, Detail: "the topic has no durable subscription of that name"}
	errManyDurables = &wire.Error{Code: wire.CodeInvalidRequest, Detail: fmt.Sprintf("there are %d durable subscriptions already, of the topics of one shard: delete those that nobody uses, with hubctl durables delete TOPIC NAME", setMax)}
)

// Set is the durable subscriptions of some topics. Make it with [NewSet]; its methods
// are safe for concurrent use. But for who waits, and what is claimed, its state depends
// on nothing but what it was asked to do.
type Set struct {
	waiting atomic.Int32 // topics in news

	mu      sync.Mutex // guards the fields below
	of      map[Key]*Subscription
	news    map[string]chan struct{}  // by topic: closed when there may be something for those who wait
	claimed map[Key]int               // about to be begun, by so many requests
	owned   map[string]int            // how many of each owner are there; nil: nobody has asked yet
	ownerOf func(topic string) string // of owned
}

// Key names a subscription.
type Key struct {
	Topic string `json:"topic"`
	Name  string `json:"name"`
}

// NewSet returns an empty set.
func NewSet() *Set {
	return &Set{of: make(map[Key]*Subscription), news: make(map[string]chan struct{}), claimed: make(map[Key]int)}
}

// Claim makes room in its owner's share for a subscription that a request is about to begin,
// until release is called: once Do was asked to, or will not be. ownerOf says whose a topic
// is, always the same; empty: nobody's, whose subscriptions have no bound of their own. One that is there is
// claimed as well: what deletes it may be on its way. The error is a wire.Error.
func (s *Set) Claim(key Key, ownerOf func(topic string) string) (release func(), err error) {
	owner := ownerOf(key.Topic)
	if owner == "" {
		return func() {}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.hasLocked(key) && s.ownedLocked(owner, ownerOf) >= ownerMax {
		return nil, &wire.Error{Code: wire.CodeInvalidRequest, Detail: fmt.Sprintf(
			"namespace %s has the %d durable subscriptions already that it may have of the topics of one shard: delete those that nobody uses, with hubctl durables delete TOPIC NAME",
			owner, ownerMax)}
	}
	s.claimed[key]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.claimed[key]--; s.claimed[key] == 0 {
			delete(s.claimed, key)
		}
	}, nil
}

// hasLocked reports whether a subscription is there, or about to be.
func (s *Set) hasLocked(key Key) bool { return s.of[key] != nil || s.claimed[key] > 0 }

// ownedLocked returns how many subscriptions of an owner are there, or about to be. They are
// counted once, and followed from then on: who is refused asks again.
func (s *Set) ownedLocked(owner string, ownerOf func(topic string) string) int {
	if s.owned == nil {
		s.owned, s.ownerOf = make(map[string]int), ownerOf
		for key := range s.of {
			s.countLocked(key, 1)
		}
	}
	n := s.owned[owner]
	for key := range s.claimed {
		if s.of[key] == nil && ownerOf(key.Topic) == owner {
			n++
		}
	}
	return n
}

// countLocked follows that a subscription has come or gone, once somebody has asked.
func (s *Set) countLocked(key Key, by int) {
	if s.owned == nil {
		return
	}
	owner := s.ownerOf(key.Topic)
	if s.owned[owner] += by; s.owned[owner] == 0 {
		delete(s.owned, owner)
	}
}

// Do does what a request says at a time. end is the sequence that the topic's next
// artifact gets. Errors: a wire.Error when there is no such subscription and the
// request doesn't say where it begins, or too many.
func (s *Set) Do(key Key, now time.Time, end wire.Sequence, r Request) (Grant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.of[key]
	switch {
	case r.Drop && sub != nil:
		delete(s.of, key)
		s.countLocked(key, -1)
		s.tellLocked(key.Topic)
		return Grant{}, nil
	case sub == nil && (r.Start == 0 || r.Drop):
		return Grant{}, errNoDurable
	case sub == nil && len(s.of) >= setMax:
		return Grant{}, errManyDurables
	case sub == nil:
		sub = New(r.Start)
		sub.Policy.Filter = r.Policy.Filter
		s.of[key] = sub
		s.countLocked(key, 1)
	case sub.Policy.Filter != r.Policy.Filter:
		return Grant{}, &wire.Error{Code: wire.CodeInvalidRequest, Detail: fmt.Sprintf(
			"durable subscription %q of topic %q has the filter %q, not %q: what the one refused is settled, so use that, or another name, or delete it first",
			key.Name, key.Topic, sub.Policy.Filter, r.Policy.Filter)}
	}
	grant := sub.Do(now, end, r)
	if r.Frees() {
		s.tellLocked(key.Topic)
	}
	return grant, nil
}

// Grew wakes those who wait for a topic's artifacts. It costs next to nothing while
// nobody does.
func (s *Set) Grew(topic string) {
	if s.waiting.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tellLocked(topic)
}

func (s *Set) tellLocked(topic string) {
	if news := s.news[topic]; news != nil {
		close(news)
		delete(s.news, topic)
		s.waiting.Add(-1)
	}
}

// Await returns what there is for a member now; news is closed when there may be more.
func (s *Set) Await(key Key, member string, now time.Time, end func() wire.Sequence) (o Outlook, news <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.of[key]
	if sub == nil {
		return Outlook{Again: true}, nil // it is gone: the member is to hear of it
	}
	wake := s.news[key.Topic]
	if wake == nil {
		wake = make(chan struct{})
		s.news[key.Topic] = wake
		s.waiting.Add(1) // before end is looked at: what comes later sees it
	}
	return sub.Look(now, end(), member), wake
}

// Saved is a subscription in a snapshot.
type Saved struct {
	Key   Key
	State Subscription
}

// List returns the subscriptions, for a snapshot.
func (s *Set) List() []Saved {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Saved, 0, len(s.of))
	for key, sub := range s.of {
		all = append(all, Saved{key, *sub})
	}
	return all
}

// Restore puts what List returned in place of what there is.
func (s *Set) Restore(all []Saved) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.of)
	s.owned = nil // to be counted anew
	for i := range all {
		s.of[all[i].Key] = &all[i].State
	}
	for topic := range s.news {
		s.tellLocked(topic)
	}
}

// Infos returns what people are told of the subscriptions.
func (s *Set) Infos(now time.Time, extent func(topic string) (first, end wire.Sequence)) []wire.DurableInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]wire.DurableInfo, 0, len(s.of))
	for key, sub := range s.of {
		first, end := extent(key.Topic)
		all = append(all, sub.Info(now, key.Topic, key.Name, first, end))
	}
	return all
}
