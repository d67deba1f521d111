package hubnode

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/directory"
	"github.com/switchboardhub/switchboard/wire"
)

func viewForTest(t *testing.T) *view {
	t.Helper()
	cfg := config.Default()
	cfg.Hub, cfg.Node, cfg.Advertise = "test", "node-0", "127.0.0.1"
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return n.view
}

func TestPresenceHoldsNothingWhileNobodyAsks(t *testing.T) {
	v := viewForTest(t)
	v.ClientUp("a", 1)
	f := v.presence
	f.workLocked(t.Context(), time.Now())
	if len(f.noted) > 0 || f.tracker != nil {
		t.Errorf("%d changes are noted, tracker %v; want none", len(f.noted), f.tracker)
	}

	page, err := f.page(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]wire.PresentClient{{ID: "a", Node: "node-0", Epoch: 1}}, page.Clients); diff != "" {
		t.Errorf("page (-want +got):\n%s", diff)
	}
	f.workLocked(t.Context(), time.Now().Add(presenceLinger+time.Second))
	v.ClientUp("b", 1)
	if len(f.noted) > 0 || f.tracker != nil {
		t.Errorf("later %d changes are noted, tracker %v; want none", len(f.noted), f.tracker)
	}
	again, err := f.page(t.Context(), nil)
	if err != nil || len(again.Clients) != 2 || again.Count <= page.Count {
		t.Errorf("the next page is %+v, %v; want both clients and a later revision than %d", again, err, page.Count)
	}
}

func TestPresenceIsTrackedWhileSomebodySubscribes(t *testing.T) {
	v := viewForTest(t)
	v.InterestUp(wire.TopicPresence)
	v.InterestUp(wire.TopicPresence + "\x00group")
	v.InterestDown(wire.TopicPresence)
	if v.own.Version() != 0 {
		t.Error("other nodes are told of the interest, want that they don't send theirs")
	}
	f := v.presence
	f.workLocked(t.Context(), time.Now())
	v.ClientUp("a", 1)
	if len(f.noted) != 1 || f.tracker == nil {
		t.Errorf("%d changes are noted, tracker %v; want one", len(f.noted), f.tracker)
	}
}

func TestPresenceMakesGoodForChangesThatWereTooMany(t *testing.T) {
	v := viewForTest(t)
	f := v.presence
	v.ClientUp("stays", 1)
	v.ClientUp("goes", 1)
	before, err := f.page(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	v.ClientUp("comes", 1)
	v.ClientDown("goes", 1, wire.LeaveGoodbye)
	f.note(make([]directory.Event, notedMax)...)
	if len(f.noted) > 0 || !f.lost {
		t.Fatalf("%d changes are noted, want none", len(f.noted))
	}
	f.workLocked(t.Context(), time.Now())
	f.workLocked(t.Context(), time.Now().Add(2*time.Second))
	after, err := f.page(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []wire.PresentClient{{ID: "comes", Node: "node-0", Epoch: 1}, {ID: "stays", Node: "node-0", Epoch: 1}}
	if diff := cmp.Diff(want, after.Clients); diff != "" || after.Count != before.Count+2 {
		t.Errorf("revision %d after %d, clients (-want +got):\n%s", after.Count, before.Count, diff)
	}
}

func TestPresenceListsAHundredThousandClients(t *testing.T) {
	const clients = 100_000
	v := viewForTest(t)
	for i := range clients {
		v.own.ClientUp(fmt.Sprintf("client-with-a-name-of-some-length-%06d", i), 1)
	}
	seen := make(map[wire.ClientID]bool)
	for after := ""; ; {
		question, err := json.Marshal(wire.PageRequest{After: after})
		if err != nil {
			t.Fatal(err)
		}
		page, err := v.presence.page(t.Context(), question)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(page)
		if err != nil || len(text) > v.node.hub.PageBytes() {
			t.Fatalf("a page of %d bytes, %v; want at most %d", len(text), err, v.node.hub.PageBytes())
		}
		for _, c := range page.Clients {
			seen[c.ID] = true
		}
		if after = page.Next; after == "" {
			break
		}
	}
	if len(seen) != clients {
		t.Errorf("%d clients are listed, want %d", len(seen), clients)
	}
}

func TestPresencePageRefusesWhatIsNoQuestion(t *testing.T) {
	if _, err := viewForTest(t).presence.page(t.Context(), []byte("[")); err == nil {
		t.Error("a question that can't be read is answered")
	}
}
