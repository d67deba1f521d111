package shard

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// What is restored is stored at its place or not at all, whoever publishes meanwhile.
func TestWhatHasAPlaceIsStoredThereOrNotAtAll(t *testing.T) {
	m := newMachine(history.NewMemory())
	m.limits = func(string) history.Limits { return history.Limits{MaxArtifacts: 10} }
	for _, step := range []struct {
		payload string
		at      wire.Sequence
		want    Result
	}{
		{"one", 1, Result{First: 1}},
		{"one again", 1, Result{Err: history.ErrMoved}},
		{"of somebody else", 0, Result{First: 2}},
		{"two", 2, Result{Err: history.ErrMoved}},
		{"beyond the end", 4, Result{Err: history.ErrMoved}},
		{"three", 3, Result{First: 3}},
	} {
		entry := appendAppend(nil, time.Unix(1, 0), Publisher{At: step.at}, frame("t", step.payload), 0)
		var got Result
		if err := eachRecord(entry, func(r record) { got = m.applyRecord(r) }); err != nil {
			t.Fatal(err)
		}
		if got.First != step.want.First || !errors.Is(got.Err, step.want.Err) {
			t.Errorf("%s at %d: got %+v, want %+v", step.payload, step.at, got, step.want)
		}
	}
	if next := m.next("t"); next != 4 {
		t.Errorf("the topic ends at %d, want 4", next)
	}
}

// A node looks at its replicas while one is being closed, which takes its time.
func TestNodeLooksWhileAReplicaIsClosed(t *testing.T) {
	g := (&group{t: t, disks: newDisks()}).begin(3, 2)
	m := g.leader("t-0")
	r := m.shards.replica(0)
	r.asking.Add(1) // somebody asks Raft whether it leads, and is not answered
	body, err := json.Marshal(question{0, r.id})
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() {
		_, _, err := m.shards.Answer(t.Context(), questionClose, body)
		closed <- err
	}()
	eventually(t, "it is being closed", func() bool { return m.shards.replica(0) == nil })
	looks := m.looks.Load()
	eventually(t, "the node looks at its replicas", func() bool { return m.looks.Load() > looks+1 })
	r.asking.Done()
	if err := <-closed; err != nil {
		t.Errorf("closed: %v", err)
	}
	eventually(t, "it has a replica again", func() bool { return m.shards.replica(0) != nil })
}
