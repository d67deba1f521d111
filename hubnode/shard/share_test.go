package shard

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/switchboardhub/switchboard/hubnode/durable"
	"github.com/switchboardhub/switchboard/hubnode/placement"
	"github.com/switchboardhub/switchboard/wire"
)

// shareOf is how many durable subscriptions of a shard an owner may have.
const shareOf = 1024

// byFirstWord says that topics are of whom their names begin with.
func byFirstWord() func(topic string) string {
	return func(topic string) string {
		owner, _, _ := strings.Cut(topic, ".")
		return owner
	}
}

// begin has a leader begin a durable subscription.
func (m *member) begin(topic, name string) error {
	_, err := m.shards.Fetch(m.g.t.Context(), topic, name, workers)
	return err
}

// beginMany begins n at a time, and returns how many were not refused for what their owner has.
func (m *member) beginMany(topic string, n int) int {
	var (
		asking sync.WaitGroup
		begun  atomic.Int64
	)
	for i := range n {
		asking.Go(func() {
			switch err := m.begin(topic, fmt.Sprint(i)); {
			case err == nil:
				begun.Add(1)
			case !beyond(err):
				m.g.t.Errorf("Fetch = %v", err)
			}
		})
	}
	asking.Wait()
	return int(begun.Load())
}

func beyond(err error) bool {
	coded, ok := errors.AsType[*wire.Error](err)
	return ok && coded.Code == wire.CodeInvalidRequest && strings.Contains(coded.Detail, "namespace shop has the 1024 durable subscriptions")
}

// What is asked for at the same time is not more than the share either.
func TestAnOwnerBeginsNoMoreThanItsShare(t *testing.T) {
	g := (&group{t: t, owners: byFirstWord}).begin(1, 1)
	m := g.leader("shop.jobs")
	if n := m.beginMany("shop.jobs", shareOf+50); n != shareOf {
		t.Errorf("%d were begun at the same time, want %d", n, shareOf)
	}
	if n := len(m.shards.Durables()); n != shareOf {
		t.Errorf("there are %d, want %d", n, shareOf)
	}
	if err := m.begin("shop.more", "one"); !beyond(err) {
		t.Errorf("one more of another topic: %v", err)
	}
	if err := m.begin("bank.jobs", "one"); err != nil {
		t.Errorf("another owner's first: %v", err)
	}
	if _, err := m.shards.Fetch(t.Context(), m.shards.Durables()[0].Topic, m.shards.Durables()[0].Name, durable.Request{Drop: true}); err != nil {
		t.Fatal(err)
	}
	if shop := m.beginMany("shop.more", 3); shop != 1 {
		t.Errorf("in place of a deleted one %d were begun", shop)
	}
}

// A leader of the version before knows no shares. What it lets in is the same on all
// replicas, and the next leader goes by it.
func TestAnOldLeaderLetsEverythingIn(t *testing.T) {
	const most = shareOf + 80
	old := name(placement.Replicas(0, 3, 3)[0]) // which should lead
	g := (&group{t: t, timing: steady, owners: byFirstWord, old: old}).begin(3, 1)
	eventually(t, "the old node to lead", func() bool { return g.leader("shop.jobs").name == old })
	if n := g.node(old).beginMany("shop.jobs", most); n != most {
		t.Fatalf("the old leader lets in %d, want %d", n, most)
	}
	eventually(t, "all replicas to have all", func() bool {
		for i := range 3 {
			if len(g.durablesOn(name(i))) != most {
				return false
			}
		}
		return true
	})
	g.kill(old)
	next := g.leader("shop.jobs")
	if err := next.begin("shop.jobs", "one more"); !beyond(err) {
		t.Errorf("the next leader, for one more: %v", err)
	}
	for _, there := range []string{"0", fmt.Sprint(most - 1)} {
		if err := next.begin("shop.jobs", there); err != nil {
			t.Errorf("the next leader, for %s, which is there: %v", there, err)
		}
	}
	if err := next.begin("bank.jobs", "one"); err != nil {
		t.Errorf("the next leader, for another owner: %v", err)
	}
	eventually(t, "both replicas to have the same", func() bool {
		var lists [][]string
		for i := range 3 {
			if name(i) != old {
				lists = append(lists, g.durablesOn(name(i)))
			}
		}
		return len(lists[0]) == most+1 && slices.Equal(lists[0], lists[1])
	})
}

// durablesOn returns the durable subscriptions that a node's replica knows of.
func (g *group) durablesOn(node string) []string {
	r := g.node(node).shards.replica(0)
	if r == nil {
		return nil
	}
	names := make(map[string]bool)
	for _, d := range r.machine.durables.List() {
		names[d.Key.Topic+" "+d.Key.Name] = true
	}
	return slices.Sorted(maps.Keys(names))
}
