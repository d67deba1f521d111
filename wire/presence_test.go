package wire_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/wire"
)

func TestPresenceUpdateAsJSON(t *testing.T) {
	want := wire.PresenceUpdate{
		PresenceRevision: wire.PresenceRevision{Node: "n-0", Incarnation: "1f", Count: 8},
		Events: []wire.PresenceEvent{
			{Kind: wire.PresenceMoved, Client: "a", Node: "n-1", From: "n-0", Epoch: 2},
			{Kind: wire.PresenceLeft, Client: "b", Node: "n-1", Epoch: 3, Reason: wire.LeaveNodeDied},
		},
	}
	const golden = `{"node":"n-0","incarnation":"1f","revision":8,"events":[` +
		`{"kind":"moved","client":"a","node":"n-1","from":"n-0","epoch":2},` +
		`{"kind":"left","client":"b","node":"n-1","epoch":3,"reason":"node_died"}]}`
	text, err := json.Marshal(want)
	if err != nil || string(text) != golden {
		t.Errorf("encoded: %s, %v; want %s", text, err, golden)
	}
	var got wire.PresenceUpdate
	if err := json.Unmarshal([]byte(golden), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
}

func TestLeaveReasonsKeepTheirNames(t *testing.T) {
	for r := wire.LeaveUnknown; r <= wire.LeaveNodeDied; r++ {
		text, _ := r.MarshalText()
		var got wire.LeaveReason
		if err := got.UnmarshalText(text); err != nil || got != r {
			t.Errorf("%q is read as %d, %v; want %d", text, got, err, r)
		}
	}
	later := wire.LeaveNodeDied + 1
	if got := later.String(); got != "unknown" {
		t.Errorf("a later version's reason is %q, want unknown", got)
	}
	if err := later.UnmarshalText([]byte("bored")); err != nil || later != wire.LeaveUnknown {
		t.Errorf("a later version's name is read as %d, %v; want unknown", later, err)
	}
}

func FuzzParsePageRequest(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte(`{"after":"agent-7"}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		q, err := wire.ParsePageRequest(payload)
		if _, refused := errors.AsType[*wire.Error](err); err != nil && (!refused || q != wire.PageRequest{}) {
			t.Errorf("%+v, %v; want nothing, and an error for who asked", q, err)
		}
	})
}
