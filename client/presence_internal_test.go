package client

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/wire"
)

func at(count uint64) PresenceRevision {
	return PresenceRevision{Node: "n-0", Incarnation: "1", Count: count}
}

// update returns joins of the clients, the last of which makes the revision.
func update(count uint64, ids ...string) *wire.PresenceUpdate {
	u := &wire.PresenceUpdate{PresenceRevision: at(count)}
	for _, id := range ids {
		u.Events = append(u.Events, PresenceEvent{Kind: wire.PresenceJoined, Client: id, Node: "n-0", Epoch: 1})
	}
	return u
}

func names(events []PresenceEvent) string {
	var ids []string
	for _, e := range events {
		ids = append(ids, e.Client)
	}
	return strings.Join(ids, " ")
}

func TestSinceGivesEachEventOnce(t *testing.T) {
	restarted := update(6, "a")
	restarted.Incarnation = "2"
	tests := map[string]struct {
		update *wire.PresenceUpdate
		want   string
		whole  bool
	}{
		"what follows":                         {update(7, "a", "b"), "a b", true},
		"what is known":                        {update(5, "a", "b"), "", true},
		"what is known in part":                {update(6, "a", "b"), "b", true},
		"what comes too soon":                  {update(8, "a", "b"), "", false},
		"a node that was restarted":            {restarted, "", false},
		"the revision alone, as far as told":   {update(5), "", true},
		"the revision alone, further than old": {update(6), "", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			events, whole := since(at(5), tt.update)
			if got := names(events); got != tt.want || whole != tt.whole {
				t.Errorf("since = %q, %v; want %q, %v", got, whole, tt.want, tt.whole)
			}
		})
	}
}

// Pages are as of revisions of their own.
func TestEventsThatAPageHoldsAreNotAppliedAgain(t *testing.T) {
	pages := []wire.PresencePage{
		{PresenceRevision: at(3), Next: "f"},
		{PresenceRevision: at(5), Next: "p"},
		{PresenceRevision: at(7)},
	}
	u := update(8, "b", "c", "g", "z", "z2") // revisions 4 to 8
	if got, want := names(unseen(pages, u.Count, u.Events)), "b c g z2"; got != want {
		t.Errorf("unseen = %q, want %q", got, want)
	}
}

func TestDifferenceMakesOneListOfAnother(t *testing.T) {
	list := func(clients ...PresentClient) map[wire.ClientID]PresentClient {
		byID := make(map[wire.ClientID]PresentClient)
		for _, c := range clients {
			byID[c.ID] = c
		}
		return byID
	}
	one := func(id, node string, epoch uint64) PresentClient {
		return PresentClient{ID: id, Node: node, Epoch: epoch}
	}
	before := list(one("gone", "n-0", 1), one("same", "n-0", 1), one("moved", "n-0", 1), one("again", "n-0", 1))
	after := list(one("same", "n-0", 1), one("moved", "n-1", 2), one("again", "n-0", 2), one("new", "n-2", 1))
	want := []PresenceEvent{
		{Kind: wire.PresenceMoved, Client: "again", Node: "n-0", From: "n-0", Epoch: 2},
		{Kind: wire.PresenceLeft, Client: "gone", Node: "n-0", Epoch: 1},
		{Kind: wire.PresenceMoved, Client: "moved", Node: "n-1", From: "n-0", Epoch: 2},
		{Kind: wire.PresenceJoined, Client: "new", Node: "n-2", Epoch: 1},
	}
	got := difference(before, after)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("difference (-want +got):\n%s", diff)
	}
	apply(before, got)
	if diff := cmp.Diff(after, before); diff != "" {
		t.Errorf("applied (-want +got):\n%s", diff)
	}
}

func TestSlowWatcherLooksAnew(t *testing.T) {
	w := &presenceWatch{poked: make(chan struct{}, 1)}
	text := []byte(`{"node":"n-0","incarnation":"1","revision":9,"events":[` + strings.Repeat(`{},`, 8) + `{}]}`)
	for range watchMax/9 + 1 {
		if err := w.take(t.Context(), &wire.Artifact{Payload: text}); err != nil {
			t.Fatal(err)
		}
	}
	if updates, stale := w.next(false); !stale || len(updates) > 0 {
		t.Errorf("%d updates wait, stale %v; want none, and a new look", len(updates), stale)
	}
}

func TestUpdateThatCantBeReadMakesTheWatcherLookAnew(t *testing.T) {
	w := &presenceWatch{poked: make(chan struct{}, 1)}
	if err := w.take(t.Context(), &wire.Artifact{Payload: []byte("{")}); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("take = %v, want ErrMalformed", err)
	}
	if _, stale := w.next(true); !stale {
		t.Error("the watcher goes on, want a new look")
	}
}

func FuzzPresence(f *testing.F) {
	f.Add([]byte(`{"node":"n-0","incarnation":"1","revision":8,"events":[{"kind":"left","client":"a","node":"n-0","epoch":3,"reason":"slow"}]}`))
	f.Add([]byte(`{"node":"n-0","incarnation":"1","revision":8,"clients":[{"id":"a","node":"n-0","epoch":3}],"next":"a"}`))
	f.Add([]byte(`{"revision":0,"events":[{}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		page, err := parsePresencePage(text)
		if err != nil && !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("page: %v, want ErrMalformed", err)
		}
		u, err := parsePresenceUpdate(text)
		if err != nil {
			if !errors.Is(err, wire.ErrMalformed) {
				t.Errorf("update: %v, want ErrMalformed", err)
			}
			return
		}
		events, _ := since(PresenceRevision{Node: u.Node, Incarnation: u.Incarnation, Count: u.Count / 2}, &u)
		unseen([]wire.PresencePage{page}, u.Count, events) // must not panic
	})
}
