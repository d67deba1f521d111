package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

// What presence is told in; see package wire.
type (
	// PresentClient is a client that is there, and on which node.
	PresentClient = wire.PresentClient
	// PresenceEvent is a client that joined, left or moved.
	PresenceEvent = wire.PresenceEvent
	// PresenceRevision says how far a node's view of the hub has come.
	PresenceRevision = wire.PresenceRevision
	// LeaveReason says why a client is no longer there.
	LeaveReason = wire.LeaveReason
)

const (
	// watchMax bounds the events that wait for a watcher.
	watchMax = 1 << 16
	// seamTime is how long a watcher waits for events that belong to a
	// snapshot, and are most often there before it, until it takes another.
	seamTime = 2 * time.Second
)

// Presence is who is connected, and where, as one node sees it.
type Presence struct {
	Revision PresenceRevision
	Clients  []PresentClient // in the order of their ids
}

// PresenceUpdate is what a watcher is told.
type PresenceUpdate struct {
	Revision PresenceRevision // after the events
	// Clients is everyone who is there, in the order of their ids: in the
	// first update, which has no events, and nil in all others.
	Clients []PresentClient
	Events  []PresenceEvent
	// CaughtUp says that the events are the difference that a new look at the
	// hub made: this client had connected again, or was too slow for its
	// node or for itself. Each client is in it at most once, and of those
	// that left the reason is not known.
	CaughtUp bool
}

// Presence returns who is connected, and where. The revision is that of when
// it began to read: of who comes, goes or moves while a long list is read it
// may show either. [Client.WatchPresence] leaves no such doubt.
func (c *Client) Presence(ctx context.Context) (Presence, error) {
	pages, err := c.presencePages(ctx)
	if err != nil {
		return Presence{}, err
	}
	p := Presence{Revision: pages[0].PresenceRevision}
	for i := range pages {
		p.Clients = append(p.Clients, pages[i].Clients...)
	}
	return p, nil
}

// presencePages asks for all pages of one node's list.
func (c *Client) presencePages(ctx context.Context) ([]wire.PresencePage, error) {
	var pages []wire.PresencePage
	for after := ""; ; {
		question, err := json.Marshal(wire.PageRequest{After: after})
		if err != nil {
			return nil, err
		}
		answer, err := c.Request(ctx, "$hub.presence", &wire.Artifact{Payload: question})
		if err != nil {
			return nil, err
		}
		page, err := parsePresencePage(answer.Payload)
		if err != nil {
			return nil, err
		}
		if len(pages) > 0 && !sameView(page.PresenceRevision, pages[0].PresenceRevision) {
			pages, after = nil, "" // connected again meanwhile
			continue
		}
		pages = append(pages, page)
		if page.Next == "" {
			return pages, nil
		}
		if page.Next <= after {
			return nil, fmt.Errorf("%w: page of presence that does not go on", wire.ErrMalformed)
		}
		after = page.Next
	}
}

func parsePresencePage(text []byte) (wire.PresencePage, error) {
	var page wire.PresencePage
	if err := json.Unmarshal(text, &page); err != nil {
		return page, fmt.Errorf("%w: page of presence: %w", wire.ErrMalformed, err)
	}
	return page, nil
}

// parsePresenceUpdate reads what came on "$presence".
func parsePresenceUpdate(text []byte) (wire.PresenceUpdate, error) {
	var u wire.PresenceUpdate
	if err := json.Unmarshal(text, &u); err != nil {
		return u, fmt.Errorf("%w: presence: %w", wire.ErrMalformed, err)
	}
	if u.Count < uint64(len(u.Events)) {
		return u, fmt.Errorf("%w: presence: revision %d after %d events", wire.ErrMalformed, u.Count, len(u.Events))
	}
	return u, nil
}

// sameView reports whether two revisions can be compared.
func sameView(a, b PresenceRevision) bool {
	return a.Node == b.Node && a.Incarnation == b.Incarnation
}

// WatchPresence calls handle with who is there, and then with everyone who
// joins, leaves or moves, in order, until ctx ends, the client ends, or handle
// returns an error, which it returns; else it returns ctx's error or the
// client's. handle is called by the goroutine that called WatchPresence.
//
// What happens after the first update is told once, and nothing is left out.
// When this client connects again, to any node, it looks at the hub anew and
// tells the difference; so it does when more than 65,536 events wait for
// handle, or the node had to drop some. [PresenceUpdate.CaughtUp] says so.
func (c *Client) WatchPresence(ctx context.Context, handle func(PresenceUpdate) error) error {
	w := &presenceWatch{client: c, handle: handle, poked: make(chan struct{}, 1), stale: true}
	c.watch(w)
	defer c.unwatch(w)
	sub, err := c.Subscribe(ctx, wire.TopicPresence, w.take)
	if err != nil {
		return err
	}
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTimeout)
		defer cancel()
		_ = sub.Unsubscribe(stop) // what it still brings is dropped
	}()
	for {
		if err := w.round(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-sub.Done():
			return cmp.Or(sub.Err(), ErrClosed)
		case <-w.poked:
		}
	}
}

func (c *Client) watch(w *presenceWatch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watches[w] = struct{}{}
}

func (c *Client) unwatch(w *presenceWatch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.watches, w)
}

// distrustWatches makes the watchers look at the hub anew.
func (c *Client) distrustWatches() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.distrustWatchesLocked()
}

func (c *Client) distrustWatchesLocked() {
	for w := range c.watches {
		w.distrust()
	}
}

// presenceWatch is one call of WatchPresence.
type presenceWatch struct {
	client *Client
	handle func(PresenceUpdate) error
	poked  chan struct{} // holds one: there is something to do

	mu      sync.Mutex // guards the fields below
	waiting []wire.PresenceUpdate
	events  int  // in waiting
	stale   bool // some may be missing: look anew

	// Of the goroutine that watches alone.
	told     map[wire.ClientID]PresentClient // nil before the first update
	revision PresenceRevision
}

// take queues what the node tells.
func (w *presenceWatch) take(_ context.Context, a *wire.Artifact) error {
	u, err := parsePresenceUpdate(a.Payload)
	if err != nil {
		w.distrust()
		return err
	}
	w.mu.Lock()
	if w.events += len(u.Events); w.events > watchMax {
		w.stale = true
	}
	if w.stale {
		w.waiting, w.events = nil, 0
	} else {
		w.waiting = append(w.waiting, u)
	}
	w.mu.Unlock()
	w.poke()
	return nil
}

func (w *presenceWatch) distrust() {
	w.mu.Lock()
	w.stale, w.waiting, w.events = true, nil, 0
	w.mu.Unlock()
	w.poke()
}

func (w *presenceWatch) poke() {
	select {
	case w.poked <- struct{}{}:
	default:
	}
}

// next returns what waits; with anew, a watcher that was stale begins anew.
func (w *presenceWatch) next(anew bool) (updates []wire.PresenceUpdate, stale bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	updates, stale = w.waiting, w.stale
	w.waiting, w.events = nil, 0
	if anew {
		w.stale = false
	}
	return updates, stale
}

// round tells what waits, or what a new look gives.
func (w *presenceWatch) round(ctx context.Context) error {
	updates, stale := w.next(false)
	for i := range updates {
		events, whole := since(w.revision, &updates[i])
		if !whole {
			stale = true
			break
		}
		if len(events) == 0 {
			continue
		}
		apply(w.told, events)
		w.revision = updates[i].PresenceRevision
		if err := w.handle(PresenceUpdate{Revision: w.revision, Events: events}); err != nil {
			return err
		}
	}
	for round := 0; stale; round++ {
		now, err := w.look(ctx)
		if err == nil {
			return w.catchUp(now)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if w.client.Err() != nil {
			return w.client.Err()
		}
		if !errors.Is(err, errSeam) && !retryable(err) {
			return fmt.Errorf("watch presence: %w", err)
		}
		if !sleep(ctx, w.client.wait(round)) {
			return ctx.Err()
		}
	}
	return nil
}

// retryable reports whether a question that failed may be asked again.
func retryable(err error) bool {
	_, lost := errors.AsType[*ConnectionLostError](err)
	return lost || temporary(err) || errors.Is(err, context.DeadlineExceeded)
}

// look is what a new look gave.
type look struct {
	revision PresenceRevision
	clients  map[wire.ClientID]PresentClient
}

// errSeam says that a look and the events that follow it don't fit together.
var errSeam = errors.New("presence has changed too much")

// look reads who is there. Each page is as of a revision of its own; the events
// that came between them, which wait by then or soon, make them one.
func (w *presenceWatch) look(ctx context.Context) (*look, error) {
	w.next(true)
	pages, err := w.client.presencePages(ctx)
	if err != nil {
		return nil, err
	}
	last := &pages[len(pages)-1]
	now := &look{revision: pages[0].PresenceRevision, clients: make(map[wire.ClientID]PresentClient)}
	for i := range pages {
		for _, c := range pages[i].Clients {
			now.clients[c.ID] = c
		}
	}
	patience := time.NewTimer(seamTime)
	defer patience.Stop()
	for {
		updates, stale := w.next(false)
		for i := range updates {
			events, whole := since(now.revision, &updates[i])
			if stale = stale || !whole; stale {
				break
			}
			apply(now.clients, unseen(pages, updates[i].Count, events))
			now.revision.Count = max(now.revision.Count, updates[i].Count)
		}
		switch {
		case stale:
			return nil, errSeam
		case now.revision.Count >= last.Count:
			return now, nil
		}
		select {
		case <-w.poked:
		case <-patience.C:
			return nil, errSeam
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// since returns the events of an update that are later than a revision; whole
// is false when some before them are missing, or the update is of another view.
func since(at PresenceRevision, u *wire.PresenceUpdate) (events []PresenceEvent, whole bool) {
	if !sameView(at, u.PresenceRevision) {
		return nil, false
	}
	if u.Count <= at.Count {
		return nil, true
	}
	later := u.Count - at.Count
	if later > uint64(len(u.Events)) {
		return nil, false
	}
	return u.Events[uint64(len(u.Events))-later:], true
}

// unseen returns those of the events, the last of which made the revision
// count, that the pages don't hold already.
func unseen(pages []wire.PresencePage, count uint64, events []PresenceEvent) []PresenceEvent {
	var later []PresenceEvent
	for i := range events {
		page := sort.Search(len(pages)-1, func(n int) bool { return pages[n].Next >= events[i].Client })
		if made := count - uint64(len(events)-1-i); made > pages[page].Count {
			later = append(later, events[i])
		}
	}
	return later
}

// apply makes of a list what it is after the events.
func apply(clients map[wire.ClientID]PresentClient, events []PresenceEvent) {
	for i := range events {
		e := &events[i]
		if e.Kind == wire.PresenceLeft {
			delete(clients, e.Client)
		} else {
			clients[e.Client] = PresentClient{ID: e.Client, Node: e.Node, Epoch: e.Epoch}
		}
	}
}

// catchUp tells what a new look gave: everything the first time, and then the
// difference to what was told.
func (w *presenceWatch) catchUp(now *look) error {
	before := w.told
	w.told, w.revision = now.clients, now.revision
	if before == nil {
		clients := slices.SortedFunc(maps.Values(now.clients), func(a, b PresentClient) int { return cmp.Compare(a.ID, b.ID) })
		return w.handle(PresenceUpdate{Revision: now.revision, Clients: append([]PresentClient{}, clients...)})
	}
	if events := difference(before, now.clients); len(events) > 0 {
		return w.handle(PresenceUpdate{Revision: now.revision, Events: events, CaughtUp: true})
	}
	return nil
}

// difference returns the events that make one list of another, in the order of
// the ids.
func difference(before, after map[wire.ClientID]PresentClient) []PresenceEvent {
	var events []PresenceEvent
	for id, was := range before {
		if _, stays := after[id]; !stays {
			events = append(events, PresenceEvent{Kind: wire.PresenceLeft, Client: id, Node: was.Node, Epoch: was.Epoch})
		}
	}
	for id, is := range after {
		was, known := before[id]
		switch {
		case !known:
			events = append(events, PresenceEvent{Kind: wire.PresenceJoined, Client: id, Node: is.Node, Epoch: is.Epoch})
		case was != is:
			events = append(events, PresenceEvent{Kind: wire.PresenceMoved, Client: id, Node: is.Node, From: was.Node, Epoch: is.Epoch})
		}
	}
	slices.SortFunc(events, func(a, b PresenceEvent) int { return cmp.Compare(a.Client, b.Client) })
	return events
}
