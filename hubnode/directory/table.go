package directory

import (
	"sync"

	"github.com/switchboardhub/switchboard/wire"
)

// Table holds a node's copies of the other nodes' parts. It is safe for
// concurrent use: writers wait for each other, [Table.Locate] takes no lock.
type Table struct {
	self  string
	index index // written under mu

	mu        sync.Mutex // guards the fields below
	parts     map[string]*part
	snapshots map[string]*snapshot // that wait for the rest of their parts
	interests int                  // of all parts
}

// part is the copy of one node's part. The object stays when a new incarnation
// takes over.
type part struct {
	node string // never changes: read without the lock

	// guarded by Table.mu
	incarnation uint64
	version     Version
	clients     int
	interests   map[string]struct{}
}

// Location is where a client is.
type Location struct {
	Node  string
	Epoch uint64 // of its session
}

// EventKind says what became different in the table.
type EventKind uint8

// The kinds of events.
const (
	// ClientAppeared: the node holds the client, now in the session of Epoch.
	// It comes again when a newer session takes the place of one on the same
	// node.
	ClientAppeared EventKind = iota + 1
	// ClientVanished: the node does not hold the client any more; Epoch is
	// that of the session last known. Another node may still hold it.
	ClientVanished
	InterestAdded
	InterestRemoved
)

// Event is a difference that an announcement made. Events speak of one node's
// part alone: ask [Table.Locate] which of several nodes counts.
type Event struct {
	Kind   EventKind
	Reason wire.LeaveReason // of ClientVanished
	Node   string
	Name   string // the client's id, or the pattern
	Epoch  uint64 // zero for interests
}

// Result says what became of an announcement.
type Result struct {
	// Applied: the part is at a later version, or of a later incarnation,
	// than before. A snapshot's part that waits for others is not applied.
	Applied bool
	// Hole: something before the announcement is missing. Ask the owner,
	// under the announcement's incarnation, for everything after Have.
	Hole bool
	// Have is the version held of the announcement's owner; zero when nothing
	// of that incarnation is held.
	Have Version
	// Events are the differences: in the log's order, or in any order when a
	// part was replaced.
	Events []Event
}

// NewTable returns an empty table for the node of that name, whose own part it
// never holds.
func NewTable(self string) *Table {
	t := &Table{self: self, parts: make(map[string]*part), snapshots: make(map[string]*snapshot)}
	t.index.init()
	return t
}

// Apply takes in an announcement. It ignores what it knows already, what an
// older incarnation says, what is said of the table's own node, and what is
// malformed. The changes' names are kept, the rest of a is not.
func (t *Table) Apply(a Announcement) Result {
	if a.Owner.Node == t.self || a.check() != nil {
		return Result{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.parts[a.Owner.Node]
	current := p != nil && p.incarnation == a.Owner.Incarnation
	var have Version
	if current {
		have = p.version
	}
	switch {
	case p != nil && a.Owner.Incarnation < p.incarnation, current && a.To <= have:
		return Result{Have: have}
	case a.Snapshot:
		return t.applySnapshotLocked(a, have)
	case a.From > have:
		return Result{Hole: true, Have: have}
	case !current: // its log from the very start
		return t.replaceLocked(a.Owner, a.To, a.Changes)
	}
	var events []Event
	for _, c := range a.Changes[have-a.From:] {
		events = t.changeLocked(p, c, events)
	}
	t.advanceLocked(p, a.Owner.Incarnation, a.To)
	return Result{Applied: true, Have: a.To, Events: events}
}

// changeLocked makes one change of p and appends the event that it is, if any.
func (t *Table) changeLocked(p *part, c Change, events []Event) []Event {
	kind, epoch := EventKind(0), c.Epoch
	switch c.Op {
	case ClientUp:
		held := t.index.find(p, c.Name)
		switch {
		case held == nil:
			t.index.add(p, c.Name, c.Epoch)
			p.clients++
		case held.epoch.Load() == c.Epoch:
			return events
		default:
			held.epoch.Store(c.Epoch)
		}
		kind = ClientAppeared
	case ClientDown:
		held := t.index.find(p, c.Name)
		if held == nil {
			return events
		}
		t.index.remove(held)
		t.index.shrink()
		p.clients--
		kind, epoch = ClientVanished, held.epoch.Load()
	case InterestUp:
		if _, ok := p.interests[c.Name]; ok {
			return events
		}
		p.interests[c.Name] = struct{}{}
		t.interests++
		kind, epoch = InterestAdded, 0
	case InterestDown:
		if _, ok := p.interests[c.Name]; !ok {
			return events
		}
		delete(p.interests, c.Name)
		t.interests--
		kind, epoch = InterestRemoved, 0
	}
	return append(events, Event{Kind: kind, Reason: c.Reason, Node: p.node, Name: c.Name, Epoch: epoch})
}

// replaceLocked makes the owner's part what the changes make of an empty one.
// The events are the difference to the part before.
func (t *Table) replaceLocked(owner Owner, to Version, changes []Change) Result {
	p := t.parts[owner.Node]
	if p == nil {
		p = &part{node: owner.Node, interests: make(map[string]struct{})}
		t.parts[owner.Node] = p
	}
	reason := wire.LeaveUnknown
	if p.incarnation != owner.Incarnation {
		reason = wire.LeaveNodeDied // and came back before it was missed
	}
	t.advanceLocked(p, owner.Incarnation, to)

	clients, interests := fold(changes)
	events := t.retainLocked(p, clients, interests, reason)
	for id, epoch := range clients {
		events = t.changeLocked(p, Change{Op: ClientUp, Name: id, Epoch: epoch}, events)
	}
	for pattern := range interests {
		events = t.changeLocked(p, Change{Op: InterestUp, Name: pattern}, events)
	}
	return Result{Applied: true, Have: to, Events: events}
}

// advanceLocked sets what p is at, and forgets a snapshot that came too late.
func (t *Table) advanceLocked(p *part, incarnation uint64, to Version) {
	p.incarnation, p.version = incarnation, to
	if s := t.snapshots[p.node]; s != nil && !s.later(incarnation, to) {
		delete(t.snapshots, p.node)
	}
}

// fold returns what the changes make of an empty part.
func fold(changes []Change) (clients map[wire.ClientID]uint64, interests map[string]struct{}) {
	clients, interests = make(map[wire.ClientID]uint64), make(map[string]struct{})
	for _, c := range changes {
		switch c.Op {
		case ClientUp:
			clients[c.Name] = c.Epoch
		case ClientDown:
			delete(clients, c.Name)
		case InterestUp:
			interests[c.Name] = struct{}{}
		case InterestDown:
			delete(interests, c.Name)
		}
	}
	return clients, interests
}

// retainLocked removes what is in p and in none of the maps. Clients are found
// by a walk over all parts' claims: replacing a part is rare, and so a claim
// needs no second index.
func (t *Table) retainLocked(p *part, clients map[wire.ClientID]uint64, interests map[string]struct{}, reason wire.LeaveReason) []Event {
	var gone []Change
	if p.clients > 0 {
		t.index.each(func(c *claim) bool {
			if _, stays := clients[c.id]; c.part == p && !stays {
				gone = append(gone, Change{Op: ClientDown, Reason: reason, Name: c.id})
			}
			return true
		})
	}
	for pattern := range p.interests {
		if _, stays := interests[pattern]; !stays {
			gone = append(gone, Change{Op: InterestDown, Name: pattern})
		}
	}
	var events []Event
	for _, c := range gone {
		events = t.changeLocked(p, c, events)
	}
	return events
}

// Drop forgets the node's part, as the node left or died, and returns what
// vanished with it, for that reason.
func (t *Table) Drop(node string, reason wire.LeaveReason) []Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.snapshots, node)
	p := t.parts[node]
	if p == nil {
		return nil
	}
	delete(t.parts, node)
	return t.retainLocked(p, nil, nil, reason)
}

// Locate returns where the client is, as far as the other nodes have said: of
// several nodes the one that is [Newer]. It takes no lock.
func (t *Table) Locate(id wire.ClientID) (Location, bool) {
	c := t.index.best(id)
	if c == nil {
		return Location{}, false
	}
	return Location{Node: c.part.node, Epoch: c.epoch.Load()}, true
}

// Clients visits every client of the other nodes once, with its location as of
// [Table.Locate], in no order, until visit returns false. It takes no lock: a
// client that comes, goes or moves meanwhile may be visited, missed, or
// visited twice.
func (t *Table) Clients(visit func(id wire.ClientID, at Location) bool) {
	t.index.each(func(c *claim) bool {
		if at, ok := t.Locate(c.id); ok && at.Node == c.part.node {
			return visit(c.id, at)
		}
		return true
	})
}

// Counts returns how many clients each of the other nodes holds.
func (t *Table) Counts() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	counts := make(map[string]int, len(t.parts))
	for name, p := range t.parts {
		counts[name] = p.clients
	}
	return counts
}

// Interests visits the patterns that the node has subscribers for, in no
// order. visit may call the table.
func (t *Table) Interests(node string, visit func(pattern string)) {
	t.mu.Lock()
	var patterns []string
	if p := t.parts[node]; p != nil {
		patterns = make([]string, 0, len(p.interests))
		for pattern := range p.interests {
			patterns = append(patterns, pattern)
		}
	}
	t.mu.Unlock()
	for _, pattern := range patterns {
		visit(pattern)
	}
}

// Version returns which incarnation's part is held of the node and how much of
// it; ok is false when none is. A part may be held at version zero: its owner
// has said that it has nothing yet.
func (t *Table) Version(node string) (owner Owner, v Version, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.parts[node]
	if p == nil {
		return Owner{}, 0, false
	}
	return Owner{Node: p.node, Incarnation: p.incarnation}, p.version, true
}

// Versions returns the version of every part that is held.
func (t *Table) Versions() map[Owner]Version {
	t.mu.Lock()
	defer t.mu.Unlock()
	versions := make(map[Owner]Version, len(t.parts))
	for _, p := range t.parts {
		versions[Owner{Node: p.node, Incarnation: p.incarnation}] = p.version
	}
	return versions
}

// Len returns how many entries there are: clients, once for each node that
// holds them, and interests of each node.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.index.claims + t.interests
}
