// Package presence turns what a node knows of clients into what it tells those
// who watch: who joined, left and moved.
//
// A [Tracker] is told, of one client after another, where that client is now.
// It compares that with what was told before, so that it does not matter
// whether something is observed twice, late, or only in its outcome: once every
// client that changed was observed, what was told is what is.
//
// The package decides and does nothing else: it starts no goroutine, reads no
// clock, takes no lock and sends nothing.
package presence

import (
	"maps"
	"slices"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// HoldTime is how long a leave is held back: a client that is there again
// within it has moved. The leaves of a node that died are not held back, since
// finding that out took longer than a client takes to come back.
const HoldTime = time.Second

// holdStep is what the ends of hold times are rounded up to, so that leaves that
// belong together are told together.
const holdStep = 100 * time.Millisecond

// Location is where a client is.
type Location struct {
	Node  string
	Epoch uint64 // of its session
}

// held is a leave that is not told yet.
type held struct {
	until  time.Time
	reason wire.LeaveReason
}

// Tracker is what was told of the clients so far. It is for one goroutine at a
// time.
type Tracker struct {
	told  map[wire.ClientID]Location
	held  map[wire.ClientID]held
	count uint64 // of events so far
}

// NewTracker returns a tracker that has told of the clients given, and goes on
// to count events after count. It keeps told.
func NewTracker(told map[wire.ClientID]Location, count uint64) *Tracker {
	return &Tracker{told: told, held: make(map[wire.ClientID]held), count: count}
}

// Count returns how many events there have been.
func (t *Tracker) Count() uint64 { return t.count }

// Here takes in that the client is at a location and appends the event that
// this is, if any.
func (t *Tracker) Here(events []wire.PresenceEvent, id wire.ClientID, at Location) []wire.PresenceEvent {
	delete(t.held, id)
	before, known := t.told[id]
	if known && before == at {
		return events
	}
	t.told[id] = at
	t.count++
	e := wire.PresenceEvent{Kind: wire.PresenceJoined, Client: id, Node: at.Node, Epoch: at.Epoch}
	if known {
		e.Kind, e.From = wire.PresenceMoved, before.Node
	}
	return append(events, e)
}

// Gone takes in that the client is nowhere, and why. The first reason counts
// while the leave is held back.
func (t *Tracker) Gone(events []wire.PresenceEvent, id wire.ClientID, reason wire.LeaveReason, now time.Time) []wire.PresenceEvent {
	if _, known := t.told[id]; !known {
		return events
	}
	h, holds := t.held[id]
	if !holds {
		h = held{until: now.Add(HoldTime + holdStep).Truncate(holdStep), reason: reason}
		t.held[id] = h
	}
	if reason == wire.LeaveNodeDied {
		return t.leave(events, id, h.reason)
	}
	return events
}

// Due tells the leaves whose hold time is over, in the order of the ids, and
// returns when to call it again; zero when nothing is held back.
func (t *Tracker) Due(events []wire.PresenceEvent, now time.Time) (all []wire.PresenceEvent, next time.Time) {
	var due []wire.ClientID
	for id, h := range t.held {
		switch {
		case !h.until.After(now):
			due = append(due, id)
		case next.IsZero() || h.until.Before(next):
			next = h.until
		}
	}
	slices.Sort(due)
	for _, id := range due {
		events = t.leave(events, id, t.held[id].reason)
	}
	return events, next
}

func (t *Tracker) leave(events []wire.PresenceEvent, id wire.ClientID, reason wire.LeaveReason) []wire.PresenceEvent {
	at := t.told[id]
	delete(t.told, id)
	delete(t.held, id)
	t.count++
	return append(events, wire.PresenceEvent{Kind: wire.PresenceLeft, Client: id, Node: at.Node, Epoch: at.Epoch, Reason: reason})
}

// Reconcile makes good for observations that were lost: here holds every client
// that is there now. Why the others are gone is not known.
func (t *Tracker) Reconcile(events []wire.PresenceEvent, here map[wire.ClientID]Location, now time.Time) []wire.PresenceEvent {
	for id, at := range here {
		events = t.Here(events, id, at)
	}
	for _, id := range slices.Sorted(maps.Keys(t.told)) {
		if _, ok := here[id]; !ok {
			events = t.Gone(events, id, wire.LeaveUnknown, now)
		}
	}
	return events
}

// Page returns the clients told of that follow after, in the order of their
// ids: as many as their sizes allow, but at least one; more says that others
// follow.
func (t *Tracker) Page(after wire.ClientID, maxBytes int) (clients []wire.PresentClient, more bool) {
	ids := make([]wire.ClientID, 0, len(t.told))
	for id := range t.told {
		if id > after {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	clients = []wire.PresentClient{}
	for _, id := range ids {
		at := t.told[id]
		if maxBytes -= entrySize(id, at.Node); maxBytes < 0 && len(clients) > 0 {
			return clients, true
		}
		clients = append(clients, wire.PresentClient{ID: id, Node: at.Node, Epoch: at.Epoch})
	}
	return clients, false
}

// Split returns events in pieces, each of at most maxBytes as JSON but of at
// least one event.
func Split(events []wire.PresenceEvent, maxBytes int) [][]wire.PresenceEvent {
	var pieces [][]wire.PresenceEvent
	start, left := 0, maxBytes
	for i := range events {
		e := &events[i]
		size := entrySize(e.Client, e.Node) + eventOverhead + jsonMax(e.From)
		if left -= size; left < 0 && i > start {
			pieces = append(pieces, events[start:i:i])
			start, left = i, maxBytes-size
		}
	}
	if start < len(events) {
		pieces = append(pieces, events[start:])
	}
	return pieces
}

// What the JSON of an entry takes at most, beyond its texts.
const (
	entryOverhead = 64
	eventOverhead = 80
)

func entrySize(id wire.ClientID, node string) int { return entryOverhead + jsonMax(id) + jsonMax(node) }

// jsonMax returns the most that a text takes in JSON.
func jsonMax(text string) int {
	n := len(text)
	for i := range len(text) {
		if c := text[i]; c < ' ' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' || c > '~' {
			n += 5
		}
	}
	return n
}
