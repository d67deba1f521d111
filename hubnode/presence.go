package hubnode

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/directory"
	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/hubnode/presence"
	"github.com/switchboardhub/switchboard/wire"
)

const (
	// presenceLinger is how long presence is tracked after a question, when
	// nobody subscribes to it: there may be another page to ask for.
	presenceLinger = 10 * time.Second
	// presenceBatch is how long changes are gathered before they are told.
	presenceBatch = 10 * time.Millisecond
	// notedMax bounds the changes that wait to be looked at. Past it they are
	// dropped, and everything is looked at anew.
	notedMax = 1 << 18
)

// presenceFeed tells this node's clients who is there, in any part of the hub,
// as far as the node knows. While nobody wants to hear it, it holds nothing
// and a change costs one atomic load.
//
// Lock order: working, then the hub's, then mu.
type presenceFeed struct {
	view    *view
	watched atomic.Bool   // changes are noted; written under mu
	poked   chan struct{} // holds one: there is something to do

	mu        sync.Mutex // guards the fields below
	interests int        // patterns that are subscribed to
	asked     time.Time  // the last question
	noted     []directory.Event
	lost      bool // some changes were not noted

	working sync.Mutex        // guards the fields below, and the order of what is told
	tracker *presence.Tracker // nil while nobody wants to hear anything
	count   uint64            // of the tracker before
	wake    time.Time         // when there is something to do even if nobody pokes; zero: never
}

func newPresenceFeed(v *view) *presenceFeed {
	return &presenceFeed{view: v, poked: make(chan struct{}, 1)}
}

// isPresence reports whether an interest, which may have a group, is in
// presence. Other nodes need not hear of it: each tells its own clients.
func isPresence(interest string) bool {
	pattern, _, _ := strings.Cut(interest, "\x00")
	return pattern == wire.TopicPresence
}

// interest counts the patterns that are subscribed to. It never blocks: the
// hub's lock is held.
func (f *presenceFeed) interest(change int) {
	f.mu.Lock()
	f.interests += change
	if f.interests > 0 {
		f.watched.Store(true)
	}
	f.mu.Unlock()
	f.poke()
}

// note takes in changes. It never blocks: the hub's lock may be held.
func (f *presenceFeed) note(events ...directory.Event) {
	if !f.watched.Load() || len(events) == 0 {
		return
	}
	f.mu.Lock()
	if len(f.noted)+len(events) > notedMax {
		f.noted, f.lost = nil, true
	} else {
		f.noted = append(f.noted, events...)
	}
	f.mu.Unlock()
	f.poke()
}

func (f *presenceFeed) poke() {
	select {
	case f.poked <- struct{}{}:
	default:
	}
}

// run tells what happens until ctx ends.
func (f *presenceFeed) run(ctx context.Context) error {
	timer := time.NewTimer(presenceBatch)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.poked:
			timer.Reset(presenceBatch)
			select {
			case <-ctx.Done():
				return nil
			case <-timer.C:
			}
		case <-timer.C:
		}
		f.working.Lock()
		f.workLocked(ctx, time.Now())
		wake := f.wake
		f.working.Unlock()
		timer.Stop()
		if !wake.IsZero() {
			timer.Reset(time.Until(wake))
		}
	}
}

// workLocked looks at what was noted and tells what came of it. f.working is
// held.
func (f *presenceFeed) workLocked(ctx context.Context, now time.Time) {
	noted, lost, until, wanted := f.take(now)
	if !wanted {
		if f.tracker != nil {
			f.count, f.tracker = f.tracker.Count(), nil
		}
		f.wake = time.Time{}
		return
	}
	if f.tracker == nil { // what is noted from now on is looked at later
		f.tracker = presence.NewTracker(f.view.everyone(), f.count+1)
	}
	var events []wire.PresenceEvent
	if lost {
		events = f.tracker.Reconcile(events, f.view.everyone(), now)
	}
	for i := range noted {
		e := &noted[i]
		if e.Kind != directory.ClientAppeared && e.Kind != directory.ClientVanished {
			continue
		}
		if at, ok := f.view.whereabouts(e.Name); ok {
			events = f.tracker.Here(events, e.Name, at)
		} else {
			events = f.tracker.Gone(events, e.Name, e.Reason, now)
		}
	}
	events, f.wake = f.tracker.Due(events, now)
	if !until.IsZero() && (f.wake.IsZero() || until.Before(f.wake)) {
		f.wake = until
	}
	f.tell(ctx, events)
}

// take returns what was noted. When nobody wants to hear anything, nothing is
// noted any more; until is when that has to be asked again, zero when somebody
// subscribes.
func (f *presenceFeed) take(now time.Time) (noted []directory.Event, lost bool, until time.Time, wanted bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	noted, lost = f.noted, f.lost
	f.noted, f.lost = nil, false
	if f.interests == 0 {
		until = f.asked.Add(presenceLinger)
	}
	wanted = f.interests > 0 || now.Before(until)
	f.watched.Store(wanted)
	return noted, lost, until, wanted
}

// tell publishes events, in as many updates as it takes.
func (f *presenceFeed) tell(ctx context.Context, events []wire.PresenceEvent) {
	h := f.view.node.hub
	revision := f.revision()
	revision.Count -= uint64(len(events))
	for _, piece := range presence.Split(events, h.PageBytes()-revisionBytes) {
		revision.Count += uint64(len(piece))
		payload, err := json.Marshal(wire.PresenceUpdate{PresenceRevision: revision, Events: piece})
		if err == nil {
			_, err = h.Route(ctx, &wire.Artifact{Topic: wire.TopicPresence, ContentType: "application/json", Payload: payload})
		}
		if _, slow := errors.AsType[*hub.UndeliveredError](err); err != nil && !slow { // those find the gap in the revisions
			f.view.node.log.Debug("presence not told", slog.Any("error", err))
		}
	}
}

// revisionBytes is what an update or a page takes beyond its entries.
const revisionBytes = 512 + directory.MaxNode

func (f *presenceFeed) revision() wire.PresenceRevision {
	return wire.PresenceRevision{
		Node:        f.view.owner.Node,
		Incarnation: strconv.FormatUint(f.view.owner.Incarnation, 16),
		Count:       f.tracker.Count(),
	}
}

// page answers a question for the clients that follow after. What happened
// until now is told before, so that the page's revision holds it.
func (f *presenceFeed) page(ctx context.Context, body []byte) (wire.PresencePage, error) {
	q, err := wire.ParsePageRequest(body)
	if err != nil {
		return wire.PresencePage{}, err
	}
	now := time.Now()
	f.mu.Lock()
	f.asked = now
	f.watched.Store(true)
	f.mu.Unlock()
	defer f.poke() // it has to wake when it may stop

	f.working.Lock()
	defer f.working.Unlock()
	f.workLocked(ctx, now)
	clients, more := f.tracker.Page(q.After, f.view.node.hub.PageBytes()-revisionBytes)
	page := wire.PresencePage{PresenceRevision: f.revision(), Clients: clients}
	if more {
		page.Next = clients[len(clients)-1].ID
	}
	return page, nil
}

// whereabouts returns where a client is, on this node or another.
func (v *view) whereabouts(id wire.ClientID) (presence.Location, bool) {
	at, there := v.table.Locate(id)
	epoch, here := v.own.Client(id)
	if here && (!there || directory.Newer(epoch, v.owner.Node, at.Epoch, at.Node)) {
		return presence.Location{Node: v.owner.Node, Epoch: epoch}, true
	}
	return presence.Location(at), there
}

// everyone returns where all clients are.
func (v *view) everyone() map[wire.ClientID]presence.Location {
	all := make(map[wire.ClientID]presence.Location)
	v.table.Clients(func(id wire.ClientID, at directory.Location) bool {
		all[id] = presence.Location(at)
		return true
	})
	v.own.EachClient(func(id wire.ClientID, epoch uint64) {
		if at, ok := all[id]; !ok || directory.Newer(epoch, v.owner.Node, at.Epoch, at.Node) {
			all[id] = presence.Location{Node: v.owner.Node, Epoch: epoch}
		}
	})
	return all
}
