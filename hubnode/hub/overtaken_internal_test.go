package hub

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// overtaken is a keeper whose retention is faster than who reads what was given out.
type overtaken struct {
	*local
	topic  string
	before wire.Sequence // what lies before is taken when somebody is about to read
}

func (o *overtaken) Held(topic string) (history.Store, bool) {
	if topic == o.topic {
		_ = o.store.Purge(topic, o.before) // in memory: never fails
	}
	return o.local.Held(topic)
}

func startOvertaken(t *testing.T, topic string) (*Hub, *overtaken) {
	t.Helper()
	h, err := New(WithHistory(topic, 100), WithHistory("letters", 100))
	if err != nil {
		t.Fatal(err)
	}
	own, ok := h.keeper.(*local)
	if !ok {
		t.Fatalf("a hub on its own has a %T", h.keeper)
	}
	k := &overtaken{local: own, topic: topic}
	h.keeper = k
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
	for i := range 6 {
		var run wire.Run
		if err := run.Append(&wire.Artifact{Payload: []byte(strconv.Itoa(i + 1))}, 1<<10); err != nil {
			t.Fatal(err)
		}
		f := wire.AppendFrame(nil, wire.Header{Kind: wire.KindPublish, Count: 1}, topic, "pub", run.Body())
		if err := h.storeHere(t.Context(), f, Publisher{}); err != nil {
			t.Fatal(err)
		}
	}
	return h, k
}

func ranges(given []wire.Work) (all []wire.Range) {
	for _, w := range given {
		all = append(all, w.Range)
	}
	return all
}

// What retention takes between the grant and the look into the store is nobody's work: it is
// lost, counted at once, and told.
func TestWorkThatRetentionTakesBeforeItIsReadIsLost(t *testing.T) {
	for what, test := range map[string]struct {
		before wire.Sequence
		given  []wire.Range
		lost   wire.Range
	}{
		"some": {3, []wire.Range{{From: 3, To: 4}}, wire.Range{From: 1, To: 2}},
		"all":  {7, nil, wire.Range{From: 1, To: 6}},
		"none": {1, []wire.Range{{From: 1, To: 4}}, wire.Range{From: 1}},
	} {
		t.Run(what, func(t *testing.T) {
			h, k := startOvertaken(t, "jobs")
			k.before = test.before
			q := fetchQuestion{Topic: "jobs", Member: "m", Fetch: wire.Fetch{Name: "d", Since: wire.SinceAll, Max: 4}}
			got, err := h.fetchHere(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.given, ranges(got.Given)); diff != "" {
				t.Errorf("given (-want +got)\n%s", diff)
			}
			n := uint64(test.lost.To + 1 - test.lost.From)
			if all := k.Durables(); len(all) != 1 || all[0].Lost != n || all[0].InFlight != int(4-min(n, 4)) {
				t.Errorf("it has %+v, want %d lost", all, n)
			}
			q.Fetch.Held = test.given
			if got, err = h.fetchHere(t.Context(), q); err != nil {
				t.Fatal(err)
			}
			if n > 0 && !slices.Equal(got.Lost, []wire.Range{test.lost}) || n == 0 && got.Lost != nil {
				t.Errorf("told of %v, want %v", got.Lost, test.lost)
			}
		})
	}
}

// What retention takes before it has been moved to the dead-letter topic is lost, too.
func TestWhatRetentionTakesBeforeItIsBuriedIsLost(t *testing.T) {
	h, k := startOvertaken(t, "jobs")
	q := fetchQuestion{Topic: "jobs", Member: "m", Fetch: wire.Fetch{
		Name: "d", Since: wire.SinceAll, Max: 6, Policy: wire.DurablePolicy{MaxDeliveries: 1, DeadLetter: "letters"},
	}}
	if _, err := h.fetchHere(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	k.before = 3
	q.Fetch.Held = []wire.Range{{From: 4, To: 6}}
	q.Fetch.Failed = []wire.Range{{From: 1, To: 3}}
	q.Fetch.Wait = 200 * time.Millisecond // it rests first
	for deadline := time.Now().Add(time.Minute); ; {
		if _, err := h.fetchHere(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		q.Fetch.Failed = nil
		b, err := k.Bounds(t.Context(), "letters")
		if err != nil {
			t.Fatal(err)
		}
		all := k.Durables()
		if b.Artifacts == 1 && len(all) == 1 && all[0].Lost == 2 && all[0].InFlight == 3 && all[0].Pending == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the dead-letter topic holds %d, and it has %+v", b.Artifacts, all)
		}
	}
}
