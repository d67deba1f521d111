package directory

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/switchboardhub/switchboard/wire"
)

// changes returns the announcement of a's changes from that version on.
func changes(from Version, cs ...Change) Announcement {
	return Announcement{Owner: nodeA, From: from, To: from + Version(len(cs)), Changes: cs}
}

// by returns the announcement as that of another owner.
func by(node string, incarnation uint64, a Announcement) Announcement {
	a.Owner = Owner{Node: node, Incarnation: incarnation}
	return a
}

// whole returns a snapshot in one part.
func whole(to Version, cs ...Change) Announcement {
	return Announcement{Owner: nodeA, To: to, Changes: cs, Snapshot: true, Parts: 1}
}

func up(id string, epoch uint64) Change   { return Change{ClientUp, 0, id, epoch} }
func down(id string, epoch uint64) Change { return Change{ClientDown, 0, id, epoch} }
func interest(pattern string) Change      { return Change{InterestUp, 0, pattern, 0} }

// ofEvents ignores the order of events, as replacing a part has none.
var ofEvents = cmpopts.SortSlices(func(a, b Event) bool { return fmt.Sprint(a) < fmt.Sprint(b) })

func TestApply(t *testing.T) {
	base := []Announcement{changes(0, up("c", 1), up("d", 2), interest("news"))}
	tests := map[string]struct {
		before []Announcement
		apply  Announcement
		want   Result
	}{
		"the first changes of a node": {
			apply: changes(0, up("c", 1), interest("news")),
			want: Result{Applied: true, Have: 2, Events: []Event{
				{ClientAppeared, 0, "a", "c", 1}, {InterestAdded, 0, "a", "news", 0},
			}},
		},
		"a node that has nothing yet": {
			apply: changes(0),
			want:  Result{Applied: true},
		},
		"the changes that come next": {
			before: base,
			apply:  changes(3, down("c", 1), Change{InterestDown, 0, "news", 0}, up("d", 3)),
			want: Result{Applied: true, Have: 6, Events: []Event{
				{ClientVanished, 0, "a", "c", 1}, {InterestRemoved, 0, "a", "news", 0}, {ClientAppeared, 0, "a", "d", 3},
			}},
		},
		"the same again": {
			before: base, apply: base[0],
			want: Result{Have: 3},
		},
		"changes that overlap": {
			before: base, apply: changes(1, up("d", 2), interest("news"), up("e", 1)),
			want: Result{Applied: true, Have: 4, Events: []Event{{ClientAppeared, 0, "a", "e", 1}}},
		},
		"changes after a hole": {
			before: base, apply: changes(4, up("e", 1)),
			want: Result{Hole: true, Have: 3},
		},
		"changes of a node that nothing is known of": {
			apply: changes(4, up("e", 1)),
			want:  Result{Hole: true},
		},
		"a later version without its changes": {
			before: base, apply: changes(4),
			want: Result{Hole: true, Have: 3},
		},
		"a snapshot gives the difference": {
			before: base, apply: whole(9, up("c", 1), up("e", 5), interest("news"), interest("orders")),
			want: Result{Applied: true, Have: 9, Events: []Event{
				{ClientVanished, 0, "a", "d", 2}, {ClientAppeared, 0, "a", "e", 5}, {InterestAdded, 0, "a", "orders", 0},
			}},
		},
		"a snapshot of what is held": {
			before: base, apply: whole(3, up("c", 1), up("d", 2), interest("news")),
			want: Result{Have: 3},
		},
		"a snapshot of long ago": {
			before: base, apply: whole(1, up("c", 1)),
			want: Result{Have: 3},
		},
		"a part of a snapshot alone": {
			before: base,
			apply:  Announcement{Owner: nodeA, To: 9, Snapshot: true, Parts: 2, Changes: []Change{up("e", 1)}},
			want:   Result{Have: 3},
		},
		"the last part of a snapshot": {
			before: append(slices.Clip(base), Announcement{Owner: nodeA, To: 9, Snapshot: true, Part: 1, Parts: 2, Offset: 1, Changes: []Change{interest("news")}}),
			apply:  Announcement{Owner: nodeA, To: 9, Snapshot: true, Parts: 2, Changes: []Change{up("c", 4)}},
			want: Result{Applied: true, Have: 9, Events: []Event{
				{ClientVanished, 0, "a", "d", 2}, {ClientAppeared, 0, "a", "c", 4},
			}},
		},
		"parts of snapshots that were cut differently": {
			before: append(slices.Clip(base), Announcement{Owner: nodeA, To: 9, Snapshot: true, Part: 1, Parts: 2, Offset: 2, Changes: []Change{interest("news")}}),
			apply:  Announcement{Owner: nodeA, To: 9, Snapshot: true, Parts: 2, Changes: []Change{up("c", 4)}},
			want:   Result{Hole: true, Have: 3},
		},
		"a restarted node gives the difference": {
			before: base, apply: by("a", 2, changes(0, up("d", 7), interest("news"))),
			want: Result{Applied: true, Have: 2, Events: []Event{
				{ClientVanished, wire.LeaveNodeDied, "a", "c", 1}, {ClientAppeared, 0, "a", "d", 7},
			}},
		},
		"later changes of a restarted node": {
			before: base, apply: by("a", 2, changes(2, up("e", 7))),
			want: Result{Hole: true},
		},
		"a straggler of a node before its restart": {
			before: append(slices.Clip(base), by("a", 2, changes(0))), apply: changes(3, up("e", 1)),
			want: Result{},
		},
		"what is said of the table's own node": {
			apply: by("self", 1, changes(0, up("c", 1))),
			want:  Result{},
		},
		"another node's client of the same id is another entry": {
			before: base, apply: by("b", 1, changes(0, up("c", 1))),
			want: Result{Applied: true, Have: 1, Events: []Event{{ClientAppeared, 0, "b", "c", 1}}},
		},
		"another node says nothing of this one's": {
			before: base, apply: by("b", 1, changes(0, down("c", 9))),
			want: Result{Applied: true, Have: 1},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			table := NewTable("self")
			for _, a := range tt.before {
				table.Apply(a)
			}
			if diff := cmp.Diff(tt.want, table.Apply(tt.apply), ofEvents); diff != "" {
				t.Errorf("Apply (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnUnfinishedSnapshotIsForgottenWhenChangesOvertakeIt(t *testing.T) {
	table := NewTable("self")
	part := whole(2, up("c", 1))
	part.Parts = 2
	table.Apply(part)
	table.Apply(changes(0, up("c", 1), up("d", 1), up("e", 1)))
	if len(table.snapshots) != 0 {
		t.Error("the part is still waiting")
	}
}

func TestLocate(t *testing.T) {
	table := NewTable("self")
	locate := func(want Location, ok bool) {
		t.Helper()
		if got, found := table.Locate("c"); got != want || found != ok {
			t.Errorf("Locate = %v, %t; want %v, %t", got, found, want, ok)
		}
	}
	locate(Location{}, false)
	table.Apply(by("b", 1, changes(0, up("c", 5))))
	locate(Location{"b", 5}, true)
	table.Apply(by("a", 1, changes(0, up("c", 5)))) // the same epoch: the greater name stays
	locate(Location{"b", 5}, true)
	table.Apply(by("a", 1, changes(1, up("c", 6)))) // a newer session
	locate(Location{"a", 6}, true)
	table.Apply(by("a", 1, changes(2, down("c", 6))))
	locate(Location{"b", 5}, true)
	table.Drop("b", wire.LeaveNodeDied)
	locate(Location{}, false)
}

func TestNewer(t *testing.T) {
	tests := map[string]struct {
		aEpoch uint64
		aNode  string
		bEpoch uint64
		bNode  string
		want   bool
	}{
		"a higher epoch wins over a greater name": {2, "a", 1, "b", true},
		"a lower epoch loses":                     {1, "b", 2, "a", false},
		"of one epoch the greater name wins":      {1, "b", 1, "a", true},
		"of one epoch the lesser name loses":      {1, "a", 1, "b", false},
		"nothing is newer than itself":            {1, "a", 1, "a", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Newer(tt.aEpoch, tt.aNode, tt.bEpoch, tt.bNode); got != tt.want {
				t.Errorf("Newer = %t, want %t", got, tt.want)
			}
		})
	}
}

func TestDrop(t *testing.T) {
	table := NewTable("self")
	table.Apply(changes(0, up("c", 1), interest("news")))
	table.Apply(by("b", 1, changes(0, up("c", 2), up("d", 1))))
	pending := whole(9)
	pending.Parts = 2
	table.Apply(pending)

	want := []Event{{ClientVanished, wire.LeaveNodeDied, "a", "c", 1}, {InterestRemoved, 0, "a", "news", 0}}
	if diff := cmp.Diff(want, table.Drop("a", wire.LeaveNodeDied), ofEvents); diff != "" {
		t.Errorf("Drop (-want +got):\n%s", diff)
	}
	if _, _, ok := table.Version("a"); ok || len(table.snapshots) != 0 {
		t.Error("something of a node that was dropped is left")
	}
	if diff := cmp.Diff(map[Owner]Version{{"b", 1}: 2}, table.Versions()); diff != "" {
		t.Errorf("Versions (-want +got):\n%s", diff)
	}
	if got := table.Len(); got != 2 {
		t.Errorf("Len = %d, want 2", got)
	}
	if got := table.Drop("a", wire.LeaveNodeDied); got != nil {
		t.Errorf("second Drop = %v, want nothing", got)
	}
	if res := table.Apply(changes(0, up("c", 1))); !res.Applied {
		t.Error("a node that came back is refused")
	}
}

func TestTableListsWhatItHolds(t *testing.T) {
	table := NewTable("self")
	table.Apply(changes(0, up("c", 1), up("e", 1), interest("news"), interest("orders.>")))
	table.Apply(by("b", 4, changes(0, up("c", 2), up("d", 1))))

	clients := map[wire.ClientID]Location{}
	table.Clients(func(id wire.ClientID, at Location) bool {
		if _, twice := clients[id]; twice {
			t.Errorf("client %q visited twice", id)
		}
		clients[id] = at
		return true
	})
	if diff := cmp.Diff(map[wire.ClientID]Location{"c": {"b", 2}, "d": {"b", 1}, "e": {"a", 1}}, clients); diff != "" {
		t.Errorf("Clients (-want +got):\n%s", diff)
	}
	visits := 0
	table.Clients(func(wire.ClientID, Location) bool { visits++; return false })
	if visits != 1 {
		t.Errorf("Clients went on %d times after false", visits-1)
	}

	patterns := map[string]bool{}
	table.Interests("a", func(p string) { patterns[p] = true; table.Len() })
	table.Interests("b", func(p string) { patterns[p] = true })
	table.Interests("nobody", func(p string) { patterns[p] = true })
	if diff := cmp.Diff([]string{"news", "orders.>"}, slices.Sorted(maps.Keys(patterns))); diff != "" {
		t.Errorf("Interests (-want +got):\n%s", diff)
	}
	if owner, v, ok := table.Version("b"); owner != (Owner{"b", 4}) || v != 2 || !ok {
		t.Errorf("Version(b) = %v, %d, %t; want b's 4th life at 2", owner, v, ok)
	}
	if got := table.Len(); got != 6 {
		t.Errorf("Len = %d, want 6", got)
	}
}
