package hubnode

import (
	"sync"
	"time"

	"github.com/switchboardhub/switchboard/wire"
)

const (
	// latelyTime is at least how long it is remembered where a client was. The node that
	// it goes to announces it at about the same time as the one that it left: this is far
	// more than the one can be later than the other.
	latelyTime = 30 * time.Second
	// latelyMax bounds the clients that are remembered, twice.
	latelyMax = 1 << 16
)

// lately remembers which node, this one included, had a client that it has no longer:
// where one comes from that has moved is known so, in whichever order the two nodes'
// announcements come. It is safe for concurrent use.
type lately struct {
	mu           sync.Mutex // guards the fields below
	newer, older map[wire.ClientID]was
	turned       time.Time // when older was newer last
}

// was is where a client was, in which session.
type was struct {
	node  string
	epoch uint64
}

func (l *lately) note(id wire.ClientID, at was, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turnLocked(now)
	if before, ok := l.atLocked(id); ok && before.epoch > at.epoch {
		return // an older one's end is told late
	}
	if l.newer == nil {
		l.newer = make(map[wire.ClientID]was)
	}
	if len(l.newer) < latelyMax {
		l.newer[id] = at
	}
}

// turn forgets what is too old.
func (l *lately) turn(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turnLocked(now)
}

func (l *lately) turnLocked(now time.Time) {
	switch age := now.Sub(l.turned); {
	case age < latelyTime:
		return
	case age < 2*latelyTime:
		l.older = l.newer
	default:
		l.older = nil
	}
	l.newer, l.turned = nil, now
}

// at returns where the client was last, if that is remembered.
func (l *lately) at(id wire.ClientID) (was, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.atLocked(id)
}

func (l *lately) atLocked(id wire.ClientID) (was, bool) {
	at, ok := l.newer[id]
	if !ok {
		at, ok = l.older[id]
	}
	return at, ok
}
