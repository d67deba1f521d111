package shard

import (
	"bytes"
	"io"
	"reflect"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/durable"
	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

var workers = durable.Request{Member: "a", Policy: wire.DurablePolicy{Shared: true, AckWait: time.Hour}, Start: 1}

// fetch asks whoever leads, however often that takes.
func (g *group) fetch(r durable.Request) (grant durable.Grant) {
	g.t.Helper()
	eventually(g.t, "fetch", func() bool {
		var err error
		grant, err = g.leader("jobs").shards.Fetch(g.t.Context(), "jobs", "workers", r)
		return err == nil
	})
	return grant
}

func given(all ...wire.Sequence) (works []wire.Work) {
	for i := 0; i < len(all); i += 2 {
		works = append(works, wire.Work{Range: wire.Range{From: all[i], To: all[i+1]}, Deliveries: 1})
	}
	return works
}

// What was given to whom, and what is settled, is known to the next leader.
func TestDurablesSurviveTheirLeader(t *testing.T) {
	g := newGroup(t, 3, 4, "")
	for i := range 10 {
		g.publish("jobs", string(rune('0'+i)), Publisher{})
	}
	first := workers
	first.Max = 4
	if got := g.fetch(first); !reflect.DeepEqual(got.Given, given(1, 4)) {
		t.Fatalf("got %+v", got)
	}
	settle := workers
	settle.Acked = []wire.Range{{From: 2, To: 3}}
	g.fetch(settle)
	g.kill(g.leader("jobs").name)
	other := workers
	other.Member, other.Max = "b", 20
	if got := g.fetch(other); !reflect.DeepEqual(got.Given, given(5, 10)) {
		t.Fatalf("after the leader's death: got %+v", got)
	}
	lost := workers
	lost.All, lost.Held, lost.Max = true, []wire.Range{{From: 4, To: 4}}, 20
	if got := g.fetch(lost); !reflect.DeepEqual(got.Given, given(1, 1)) {
		t.Fatalf("what was lost on the way: got %+v", got)
	}
	infos := g.leader("jobs").shards.Durables()
	if len(infos) != 1 || infos[0].Position != 1 || infos[0].InFlight != 8 || infos[0].Pending != 0 {
		t.Errorf("got %+v", infos)
	}
}

func TestWhoWaitsForWorkHearsOfIt(t *testing.T) {
	g := newGroup(t, 1, 1, "")
	g.publish("jobs", "x", Publisher{})
	r := workers
	r.Max = 1
	g.fetch(r)
	await := func() (bool, <-chan struct{}) {
		o, news, err := g.leader("jobs").shards.AwaitFetch("jobs", "workers", "b")
		if err != nil {
			t.Fatal(err)
		}
		return o.Again || o.New, news
	}
	for what, happen := range map[string]func(){
		"another artifact": func() { g.publish("jobs", "y", Publisher{}) },
		"one given back": func() {
			g.fetch(durable.Request{Member: "a", Policy: r.Policy, Released: []wire.Range{{From: 1, To: 9}}})
		},
	} {
		ready, news := await()
		if ready {
			t.Fatalf("before %s there is something already", what)
		}
		happen()
		<-news
		if ready, _ := await(); !ready {
			t.Errorf("after %s there is nothing", what)
		}
		take := r
		take.Max = 10
		g.fetch(take)
	}
}

func TestASnapshotHasTheDurables(t *testing.T) {
	m := newMachine(history.NewMemory())
	key := durable.Key{Topic: "jobs", Name: "workers"}
	r := workers
	r.Max = 3
	if _, err := m.durables.Do(key, time.Unix(1, 0).UTC(), 9, r); err != nil {
		t.Fatal(err)
	}
	snap, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	c, _ := snap.(*captured)
	s, err := decodeSnapshot(io.NopCloser(bytes.NewReader(c.state)))
	if err != nil {
		t.Fatal(err)
	}
	again := newMachine(history.NewMemory())
	again.load(s)
	if !reflect.DeepEqual(again.durables.List(), m.durables.List()) {
		t.Errorf("got %+v, want %+v", again.durables.List(), m.durables.List())
	}
}
