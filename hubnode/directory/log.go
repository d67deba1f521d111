package directory

import (
	"maps"
	"slices"
	"sync"

	"github.com/switchboardhub/switchboard/wire"
)

// Log is a node's own part of the directory and the newest of its changes. It
// is safe for concurrent use.
type Log struct {
	owner Owner
	keep  int

	mu        sync.Mutex // guards the fields below
	version   Version
	ring      []Change // the newest changes, at most keep; version v is at (v-1) % keep
	clients   map[wire.ClientID]uint64
	interests map[string]struct{}
}

// NewLog returns the empty log of owner. It keeps the newest keep changes for
// those who missed some; whoever missed more needs a snapshot.
func NewLog(owner Owner, keep int) *Log {
	return &Log{
		owner:     owner,
		keep:      max(keep, 0),
		clients:   make(map[wire.ClientID]uint64),
		interests: make(map[string]struct{}),
	}
}

// Owner returns whose log it is.
func (l *Log) Owner() Owner { return l.owner }

// ClientUp records that the client is here, in the session of that epoch.
// Nothing changes when it is known in this session or a newer one.
func (l *Log) ClientUp(id wire.ClientID, epoch uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if held, ok := l.clients[id]; ok && held >= epoch || !validName(id) {
		return
	}
	l.clients[id] = epoch
	l.appendLocked(Change{Op: ClientUp, Name: id, Epoch: epoch})
}

// ClientDown records that the session of that epoch is gone, and why. Nothing
// changes when the client is here in a newer session, or not at all.
func (l *Log) ClientDown(id wire.ClientID, epoch uint64, reason wire.LeaveReason) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held, ok := l.clients[id]
	if !ok || held > epoch {
		return
	}
	delete(l.clients, id)
	l.appendLocked(Change{Op: ClientDown, Reason: reason, Name: id, Epoch: epoch})
}

// InterestUp records that somebody here subscribes to the pattern. Nothing
// changes when that is known.
func (l *Log) InterestUp(pattern string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.interests[pattern]; ok || !validName(pattern) {
		return
	}
	l.interests[pattern] = struct{}{}
	l.appendLocked(Change{Op: InterestUp, Name: pattern})
}

// InterestDown records that nobody here subscribes to the pattern any more.
// Nothing changes when nobody did.
func (l *Log) InterestDown(pattern string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.interests[pattern]; !ok {
		return
	}
	delete(l.interests, pattern)
	l.appendLocked(Change{Op: InterestDown, Name: pattern})
}

// validName reports whether others would take the name; the hub checks ids and
// patterns long before, so one that is not valid is a caller's mistake that
// must not poison the announcements of all the others.
func validName(name string) bool { return name != "" && len(name) <= MaxName }

func (l *Log) appendLocked(c Change) {
	l.version++
	switch {
	case l.keep == 0:
	case len(l.ring) < l.keep:
		l.ring = append(l.ring, c)
	default:
		l.ring[(uint64(l.version)-1)%uint64(l.keep)] = c
	}
}

// Version returns how many changes there have been.
func (l *Log) Version() Version {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.version
}

// Since returns the changes after version v: as many as fit into maxBytes when
// encoded but at least one, so that To may be less than [Log.Version]; none
// when v is the version now. ok is false when the log keeps too little, or v
// was never reached (it is of another incarnation): send a snapshot.
func (l *Log) Since(v Version, maxBytes int) (a Announcement, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v > l.version || uint64(l.version-v) > uint64(len(l.ring)) {
		return Announcement{}, false
	}
	a = Announcement{Owner: l.owner, From: v, To: v}
	left := maxBytes - headSize(l.owner)
	for a.To < l.version {
		c := &l.ring[uint64(a.To)%uint64(l.keep)]
		if left -= c.size(); left < 0 && a.To > v {
			break
		}
		a.Changes = append(a.Changes, *c)
		a.To++
	}
	return a, true
}

// Snapshot returns the whole part, in as many announcements as it takes when
// each may have maxBytes encoded (a single change may be more). There is at
// least one. Snapshots of one version and one maxBytes are equal, so that
// parts of two of them complete each other.
func (l *Log) Snapshot(maxBytes int) []Announcement {
	l.mu.Lock()
	version := l.version
	changes := make([]Change, 0, len(l.clients)+len(l.interests))
	for _, id := range slices.Sorted(maps.Keys(l.clients)) {
		changes = append(changes, Change{Op: ClientUp, Name: id, Epoch: l.clients[id]})
	}
	for _, pattern := range slices.Sorted(maps.Keys(l.interests)) {
		changes = append(changes, Change{Op: InterestUp, Name: pattern})
	}
	l.mu.Unlock()

	parts := make([]Announcement, 0, 1)
	for start := 0; start < len(changes) || len(parts) == 0; {
		end, left := start, maxBytes-headSize(l.owner)
		for end < len(changes) {
			if left -= changes[end].size(); left < 0 && end > start {
				break
			}
			end++
		}
		parts = append(parts, Announcement{
			Owner: l.owner, To: version, Changes: changes[start:end:end],
			Snapshot: true, Part: uint32(len(parts)), Offset: uint64(start),
		})
		start = end
	}
	for i := range parts {
		parts[i].Parts = uint32(len(parts))
	}
	return parts
}

// Client returns the epoch of the client's session, ok false when it is not
// here.
func (l *Log) Client(id wire.ClientID) (epoch uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	epoch, ok = l.clients[id]
	return epoch, ok
}

// EachClient visits the clients that are here, in no order. visit must not call
// the log.
func (l *Log) EachClient(visit func(id wire.ClientID, epoch uint64)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, epoch := range l.clients {
		visit(id, epoch)
	}
}

// Clients returns how many clients are here.
func (l *Log) Clients() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.clients)
}
