package shard

import (
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
