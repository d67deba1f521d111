package presence_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/hubnode/directory"
	"github.com/switchboardhub/switchboard/hubnode/presence"
	"github.com/switchboardhub/switchboard/wire"
)

func joined(id, node string, epoch uint64) wire.PresenceEvent {
	return wire.PresenceEvent{Kind: wire.PresenceJoined, Client: id, Node: node, Epoch: epoch}
}

func moved(id, from, node string, epoch uint64) wire.PresenceEvent {
	return wire.PresenceEvent{Kind: wire.PresenceMoved, Client: id, From: from, Node: node, Epoch: epoch}
}

func left(id, node string, epoch uint64, reason wire.LeaveReason) wire.PresenceEvent {
	return wire.PresenceEvent{Kind: wire.PresenceLeft, Client: id, Node: node, Epoch: epoch, Reason: reason}
}

// telling is a tracker and what it told.
type telling struct {
	*presence.Tracker
	now    time.Time
	events []wire.PresenceEvent
}

func (t *telling) here(id, node string, epoch uint64) {
	t.events = t.Here(t.events, id, presence.Location{Node: node, Epoch: epoch})
}

func (t *telling) gone(id string, reason wire.LeaveReason) {
	t.events = t.Gone(t.events, id, reason, t.now)
}

// wait lets time pass.
func (t *telling) wait(d time.Duration) {
	t.now = t.now.Add(d)
	t.events, _ = t.Due(t.events, t.now)
}

const past = presence.HoldTime + 200*time.Millisecond

func TestTracker(t *testing.T) {
	tests := map[string]struct {
		do   func(*telling)
		want []wire.PresenceEvent
	}{
		"who is there already has not joined": {
			do: func(t *telling) { t.here("old", "n-0", 1) },
		},
		"a client joins and leaves": {
			do: func(t *telling) {
				t.here("a", "n-1", 4)
				t.gone("a", wire.LeaveGoodbye)
				t.wait(past)
			},
			want: []wire.PresenceEvent{joined("a", "n-1", 4), left("a", "n-1", 4, wire.LeaveGoodbye)},
		},
		"what is observed twice is told once": {
			do: func(t *telling) {
				t.here("a", "n-1", 4)
				t.here("a", "n-1", 4)
				t.gone("a", wire.LeaveSlow)
				t.gone("a", wire.LeaveUnknown)
				t.wait(past)
				t.gone("a", wire.LeaveSlow)
				t.wait(past)
			},
			want: []wire.PresenceEvent{joined("a", "n-1", 4), left("a", "n-1", 4, wire.LeaveSlow)},
		},
		"a leave is held back": {
			do: func(t *telling) {
				t.gone("old", wire.LeaveGoodbye)
				t.wait(presence.HoldTime - time.Millisecond)
			},
		},
		"a client that is elsewhere before its leave is told has moved": {
			do: func(t *telling) {
				t.gone("old", wire.LeaveDisconnected)
				t.wait(presence.HoldTime / 2)
				t.here("old", "n-1", 2)
				t.wait(past)
			},
			want: []wire.PresenceEvent{moved("old", "n-0", "n-1", 2)},
		},
		"a client that is elsewhere before it was missed has moved": {
			do:   func(t *telling) { t.here("old", "n-1", 2) },
			want: []wire.PresenceEvent{moved("old", "n-0", "n-1", 2)},
		},
		"a client that comes back where it was has a new session there": {
			do: func(t *telling) {
				t.gone("old", wire.LeaveDisconnected)
				t.here("old", "n-0", 2)
				t.wait(past)
			},
			want: []wire.PresenceEvent{moved("old", "n-0", "n-0", 2)},
		},
		"a client that comes back later joins": {
			do: func(t *telling) {
				t.gone("old", wire.LeaveDisconnected)
				t.wait(past)
				t.here("old", "n-1", 2)
			},
			want: []wire.PresenceEvent{left("old", "n-0", 1, wire.LeaveDisconnected), joined("old", "n-1", 2)},
		},
		"who was on a node that died has left at once": {
			do:   func(t *telling) { t.gone("old", wire.LeaveNodeDied) },
			want: []wire.PresenceEvent{left("old", "n-0", 1, wire.LeaveNodeDied)},
		},
		"who had left a node before it died left for its own reason": {
			do: func(t *telling) {
				t.gone("old", wire.LeaveGoodbye)
				t.gone("old", wire.LeaveNodeDied)
			},
			want: []wire.PresenceEvent{left("old", "n-0", 1, wire.LeaveGoodbye)},
		},
		"nobody hears of who was never there": {
			do: func(t *telling) { t.gone("x", wire.LeaveNodeDied) },
		},
		"lost observations are made good": {
			do: func(t *telling) {
				t.events = t.Reconcile(t.events, map[wire.ClientID]presence.Location{"new": {Node: "n-2", Epoch: 1}}, t.now)
				t.wait(past)
			},
			want: []wire.PresenceEvent{joined("new", "n-2", 1), left("old", "n-0", 1, wire.LeaveUnknown)},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tr := &telling{
				Tracker: presence.NewTracker(map[wire.ClientID]presence.Location{"old": {Node: "n-0", Epoch: 1}}, 7),
				now:     time.Unix(1, 0),
			}
			tt.do(tr)
			if diff := cmp.Diff(tt.want, tr.events); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if got, want := tr.Count(), uint64(7+len(tt.want)); got != want {
				t.Errorf("Count = %d, want %d", got, want)
			}
		})
	}
}

func TestLeavesThatBelongTogetherAreToldTogether(t *testing.T) {
	tr := &telling{Tracker: presence.NewTracker(map[wire.ClientID]presence.Location{"a": {Node: "n"}, "b": {Node: "n"}}, 0), now: time.Unix(1, 0)}
	tr.gone("b", wire.LeaveNodeLeft)
	tr.now = tr.now.Add(20 * time.Millisecond)
	tr.gone("a", wire.LeaveNodeLeft)
	_, next := tr.Due(nil, tr.now)
	events, again := tr.Due(nil, next)
	if len(events) != 2 || !again.IsZero() {
		t.Errorf("at %v: %v, then %v; want both leaves and no more", next, events, again)
	}
}

func TestPagesGiveEveryClientOnce(t *testing.T) {
	told := make(map[wire.ClientID]presence.Location)
	for i := range 1000 {
		told[fmt.Sprintf("client-%d", i)] = presence.Location{Node: "n", Epoch: uint64(i)}
	}
	tr := presence.NewTracker(maps.Clone(told), 0)
	got := make(map[wire.ClientID]presence.Location)
	pages, after, more := 0, "", true
	for more {
		var clients []wire.PresentClient
		clients, more = tr.Page(after, 4000)
		if text, err := json.Marshal(clients); err != nil || len(text) > 4000 {
			t.Fatalf("a page of %d bytes, %v; want at most 4000", len(text), err)
		}
		for _, c := range clients {
			got[c.ID] = presence.Location{Node: c.Node, Epoch: c.Epoch}
			after = c.ID
		}
		pages++
	}
	if diff := cmp.Diff(told, got); diff != "" || pages < 10 {
		t.Errorf("%d pages give (-want +got):\n%s", pages, diff)
	}
	if clients, more := tr.Page("", 1); len(clients) != 1 || !more {
		t.Errorf("a page too small for one client: %v, %v; want that one", clients, more)
	}
}

func TestSplitKeepsOrderAndSize(t *testing.T) {
	var events []wire.PresenceEvent
	for i := range 500 {
		events = append(events, wire.PresenceEvent{
			Kind: wire.PresenceMoved, Client: fmt.Sprintf("<%d>\"", i), Node: "n-1", From: "n-0", Epoch: 1 << 60, Reason: wire.LeaveConnectionFault,
		})
	}
	var got []wire.PresenceEvent
	for _, piece := range presence.Split(events, 3000) {
		if text, err := json.Marshal(piece); err != nil || len(text) > 3000 {
			t.Errorf("a piece of %d bytes, %v; want at most 3000", len(text), err)
		}
		got = append(got, piece...)
	}
	if diff := cmp.Diff(events, got); diff != "" {
		t.Errorf("the pieces together (-want +got):\n%s", diff)
	}
}

// Whatever happens on other nodes, the events applied to what was there before
// give what the directory's table says.
func TestEventsGiveWhatTheTableSays(t *testing.T) {
	for seed := range uint64(50) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			w := newWorld(rand.New(rand.NewPCG(seed, 1)))
			for range 400 {
				w.step()
			}
			w.settle()
			if diff := cmp.Diff(w.table(), w.watcher); diff != "" {
				t.Errorf("the watcher's view (-table +watcher):\n%s", diff)
			}
		})
	}
}

// world is a few nodes with clients that come, go and move, and a watcher on
// another node.
type world struct {
	rand    *rand.Rand
	tracker telling
	dir     *directory.Table
	logs    map[string]*directory.Log
	told    map[string]directory.Version
	epochs  map[string]uint64
	lives   uint64
	watcher map[wire.ClientID]presence.Location
}

func newWorld(r *rand.Rand) *world {
	return &world{
		rand: r, dir: directory.NewTable("self"),
		tracker: telling{Tracker: presence.NewTracker(make(map[wire.ClientID]presence.Location), 0), now: time.Unix(1, 0)},
		logs:    make(map[string]*directory.Log), told: make(map[string]directory.Version), epochs: make(map[string]uint64),
		watcher: make(map[wire.ClientID]presence.Location),
	}
}

func (w *world) step() {
	node := fmt.Sprint("n-", w.rand.IntN(3))
	id := fmt.Sprint("c-", w.rand.IntN(6))
	log := w.logs[node]
	switch n := w.rand.IntN(20); {
	case log == nil || n == 0: // the node starts, or starts again unnoticed
		w.lives++
		w.logs[node], w.told[node] = directory.NewLog(directory.Owner{Node: node, Incarnation: w.lives}, 8), 0
	case n == 1: // it dies
		delete(w.logs, node)
		w.observe(w.dir.Drop(node, wire.LeaveNodeDied))
	case n < 8:
		w.epochs[id]++
		log.ClientUp(id, w.epochs[id])
	case n < 12:
		log.ClientDown(id, w.epochs[id], wire.LeaveGoodbye)
	case n < 16:
		w.announce(node)
	default:
		w.tracker.wait(time.Duration(w.rand.IntN(800)) * time.Millisecond)
	}
	w.apply()
}

func (w *world) announce(node string) {
	log := w.logs[node]
	if log == nil {
		return
	}
	parts := []directory.Announcement{}
	if a, ok := log.Since(w.told[node], 1<<20); ok {
		parts = append(parts, a)
	} else {
		parts = append(parts, log.Snapshot(1<<20)...)
	}
	for _, a := range parts {
		w.observe(w.dir.Apply(a).Events)
	}
	w.told[node] = log.Version()
}

// observe hands the tracker what the table says of the clients that an event
// names.
func (w *world) observe(events []directory.Event) {
	for _, e := range events {
		if at, ok := w.dir.Locate(e.Name); ok {
			w.tracker.here(e.Name, at.Node, at.Epoch)
		} else {
			w.tracker.gone(e.Name, e.Reason)
		}
	}
}

// apply is what a watcher does with events.
func (w *world) apply() {
	for _, e := range w.tracker.events {
		if e.Kind == wire.PresenceLeft {
			delete(w.watcher, e.Client)
		} else {
			w.watcher[e.Client] = presence.Location{Node: e.Node, Epoch: e.Epoch}
		}
	}
	w.tracker.events = nil
}

func (w *world) settle() {
	for node := range w.logs {
		w.announce(node)
	}
	w.tracker.wait(past)
	w.apply()
}

func (w *world) table() map[wire.ClientID]presence.Location {
	all := make(map[wire.ClientID]presence.Location)
	w.dir.Clients(func(id wire.ClientID, at directory.Location) bool {
		all[id] = presence.Location(at)
		return true
	})
	return all
}
