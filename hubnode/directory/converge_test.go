package directory

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/wire"
)

// entry is a line of a table or of the logs behind it.
type entry struct {
	node, name string
	interest   bool
}

// world is several owners, a network that loses, doubles and reorders what
// they announce, and a table that listens.
type world struct {
	t      *testing.T
	rnd    *rand.Rand
	logs   map[string]*Log
	told   map[string]Version // up to where each owner announced by itself
	sent   []Announcement
	table  *Table
	mirror map[entry]uint64 // what the table's events add up to
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{
		t: t, rnd: rand.New(rand.NewPCG(seed, 2)), logs: map[string]*Log{}, told: map[string]Version{},
		table: NewTable("self"), mirror: map[entry]uint64{},
	}
	for i := range 1 + w.rnd.IntN(4) {
		node := fmt.Sprint("node-", i)
		w.logs[node] = NewLog(Owner{Node: node, Incarnation: 1}, w.rnd.IntN(20))
	}
	return w
}

// anyLog picks an owner; in the order of names, so that a seed always gives
// the same case.
func (w *world) anyLog() *Log {
	nodes := slices.Sorted(maps.Keys(w.logs))
	return w.logs[nodes[w.rnd.IntN(len(nodes))]]
}

// maxBytes is at times so small that announcements are cut at every change.
func (w *world) maxBytes() int { return w.rnd.IntN(200) }

// act lets one owner change something.
func (w *world) act() {
	l := w.anyLog()
	client, pattern := fmt.Sprint("client-", w.rnd.IntN(8)), fmt.Sprint("topic.", w.rnd.IntN(4))
	switch w.rnd.IntN(20) {
	case 0: // a restart, which the members notice or not
		owner := l.Owner()
		owner.Incarnation++
		w.logs[owner.Node] = NewLog(owner, w.rnd.IntN(20))
		w.told[owner.Node] = 0
		if w.rnd.IntN(2) == 0 {
			w.follow(w.table.Drop(owner.Node, wire.LeaveNodeDied))
			w.sent = slices.DeleteFunc(w.sent, func(a Announcement) bool { return a.Owner == l.Owner() })
		}
	case 1, 2, 3:
		l.InterestUp(pattern)
	case 4, 5:
		l.InterestDown(pattern)
	case 6, 7, 8, 9:
		epoch, _ := l.Client(client)
		l.ClientDown(client, epoch, wire.LeaveGoodbye)
	default:
		l.ClientUp(client, uint64(w.rnd.IntN(30)))
	}
}

// announce puts something that an owner says on the network, or not.
func (w *world) announce() {
	l := w.anyLog()
	node := l.Owner().Node
	if a, ok := l.Since(w.told[node], w.maxBytes()); ok && w.rnd.IntN(4) > 0 {
		w.told[node] = a.To
		w.send(a)
		return
	}
	w.send(l.Snapshot(w.maxBytes())...)
	w.told[node] = l.Version()
}

func (w *world) send(as ...Announcement) {
	for _, a := range as {
		for range w.rnd.IntN(3) { // lost, once, twice
			w.sent = append(w.sent, a)
		}
	}
}

// deliver hands one announcement of those on their way to the table; when
// that shows a hole, the owner is asked, and its answer may be lost as well.
func (w *world) deliver() {
	if len(w.sent) == 0 {
		return
	}
	i := w.rnd.IntN(len(w.sent))
	a := w.sent[i]
	w.sent[i] = w.sent[len(w.sent)-1]
	w.sent = w.sent[:len(w.sent)-1]

	parsed, err := ParseAnnouncement(a.AppendTo(nil))
	if err != nil {
		w.t.Fatalf("announcement %+v: %v", a, err)
	}
	if res := w.apply(parsed); res.Hole {
		if l := w.logs[a.Owner.Node]; l.Owner() == a.Owner {
			w.send(repair(l, res.Have, w.maxBytes())...)
		}
	}
}

// repair is what an owner answers to the question for everything after v.
func repair(l *Log, v Version, maxBytes int) []Announcement {
	if a, ok := l.Since(v, maxBytes); ok {
		return []Announcement{a}
	}
	return l.Snapshot(maxBytes)
}

func (w *world) apply(a Announcement) Result {
	res := w.table.Apply(a)
	w.follow(res.Events)
	if owner, v, ok := w.table.Version(a.Owner.Node); ok && owner == a.Owner && v != res.Have {
		w.t.Fatalf("Apply says version %d, the table %d", res.Have, v)
	}
	return res
}

// follow adds events to the mirror; each must be a difference.
func (w *world) follow(events []Event) {
	for _, e := range events {
		key := entry{e.Node, e.Name, e.Kind == InterestAdded || e.Kind == InterestRemoved}
		epoch, held := w.mirror[key]
		switch e.Kind {
		case ClientAppeared, InterestAdded:
			if held && epoch == e.Epoch {
				w.t.Fatalf("event %+v is no difference", e)
			}
			w.mirror[key] = e.Epoch
		case ClientVanished, InterestRemoved:
			if !held || epoch != e.Epoch {
				w.t.Fatalf("event %+v of something that is not there", e)
			}
			delete(w.mirror, key)
		}
	}
}

// converge repairs as push/pull does, by comparing versions, until the table
// is at every owner's.
func (w *world) converge() {
	for _, node := range slices.Sorted(maps.Keys(w.logs)) {
		l := w.logs[node]
		for rounds := 0; ; rounds++ {
			owner, v, ok := w.table.Version(node)
			if owner != l.Owner() {
				v = 0
			} else if ok && v == l.Version() {
				break
			}
			if rounds > 1000 {
				w.t.Fatalf("%s is at version %d for ever, want %d", node, v, l.Version())
			}
			answer := repair(l, v, w.maxBytes())
			w.rnd.Shuffle(len(answer), func(i, j int) { answer[i], answer[j] = answer[j], answer[i] })
			for _, a := range answer {
				w.apply(a)
			}
		}
	}
}

// check compares the table, and what its events added up to, with the logs.
func (w *world) check() {
	want, best := map[entry]uint64{}, map[wire.ClientID]Location{}
	for node, l := range w.logs {
		for id, epoch := range l.clients {
			want[entry{node, id, false}] = epoch
			if at, ok := best[id]; !ok || Newer(epoch, node, at.Epoch, at.Node) {
				best[id] = Location{Node: node, Epoch: epoch}
			}
		}
		for pattern := range l.interests {
			want[entry{node, pattern, true}] = 0
		}
	}
	if diff := cmp.Diff(want, w.mirror, cmp.AllowUnexported(entry{})); diff != "" {
		w.t.Fatalf("events (-logs +events):\n%s", diff)
	}
	got := map[entry]uint64{}
	w.table.index.each(func(c *claim) bool { got[entry{c.part.node, c.id, false}] = c.epoch.Load(); return true })
	for node := range w.logs {
		w.table.Interests(node, func(pattern string) { got[entry{node, pattern, true}] = 0 })
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(entry{})); diff != "" {
		w.t.Fatalf("table (-logs +table):\n%s", diff)
	}
	if w.table.Len() != len(want) {
		w.t.Fatalf("Len = %d, want %d", w.table.Len(), len(want))
	}
	located := map[wire.ClientID]Location{}
	w.table.Clients(func(id wire.ClientID, at Location) bool { located[id] = at; return true })
	if diff := cmp.Diff(best, located); diff != "" {
		w.t.Fatalf("locations (-want +got):\n%s", diff)
	}
}

func TestTablesConvergeWhateverTheNetworkDoes(t *testing.T) {
	for seed := range uint64(3000) {
		w := newWorld(t, seed)
		for range w.rnd.IntN(150) {
			switch w.rnd.IntN(3) {
			case 0:
				w.act()
			case 1:
				w.announce()
			default:
				w.deliver()
			}
		}
		w.converge()
		for len(w.sent) > 0 { // stragglers must not spoil it
			w.deliver()
		}
		w.check()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestLocateWhileOthersWrite is for the race detector, and checks that a
// client whose entry never goes is found at every moment, though the index
// grows, shrinks and takes others in and out around it.
func TestLocateWhileOthersWrite(t *testing.T) {
	table := NewTable("self")
	table.Apply(changes(0, up("stays", 1)))
	done := make(chan struct{})
	var wg sync.WaitGroup
	for node := range 2 {
		wg.Go(func() {
			l := NewLog(Owner{Node: fmt.Sprint("node-", node)}, 1000)
			for round := range 20 {
				for i := range 500 {
					l.ClientUp(fmt.Sprint("client-", i), uint64(round))
				}
				a, _ := l.Since(l.Version()-500, 1<<20)
				table.Apply(a)
				for i := range 500 {
					l.ClientDown(fmt.Sprint("client-", i), uint64(round), wire.LeaveGoodbye)
				}
				for _, a := range l.Snapshot(1 << 20) {
					table.Apply(a)
				}
			}
		})
	}
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				if at, ok := table.Locate("stays"); !ok || at.Node != "a" {
					t.Errorf("Locate = %v, %t; want node a", at, ok)
				}
				table.Clients(func(wire.ClientID, Location) bool { return true })
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	wg.Wait()
	close(done)
	readers.Wait()
	if got := table.Len(); got != 1 {
		t.Errorf("Len = %d at the end, want 1", got)
	}
}
