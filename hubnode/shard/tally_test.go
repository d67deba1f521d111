package shard

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// group of a topic: what is before its first dot.
func beforeDot(topic string) string {
	before, _, ok := strings.Cut(topic, ".")
	if !ok {
		return ""
	}
	return before
}

// tallied returns what all leaders hold together, and of how many shards they tell.
func (g *group) tallied() (bytes map[string]int64, shards int) {
	bytes = make(map[string]int64)
	for _, m := range g.members() {
		for _, t := range m.shards.Tallies(beforeDot) {
			shards++
			for of, n := range t.Bytes {
				bytes[of] += n
			}
		}
	}
	return bytes, shards
}

// Who adds up by how much topics grew knows what they hold, retention or not, and so does
// the next leader.
func TestGrowthAddsUpToWhatIsHeld(t *testing.T) {
	storages(t, func(t *testing.T, dir string) {
		t.Helper()
		timing := quick
		timing.Heartbeat = 3 * time.Second // who loses the leadership may not hear what was stored, and so by how much
		g := (&group{t: t, timing: timing, dir: dir, keeps: 40, weighs: func() bool { return true }}).begin(3, 4)
		grown := make(map[string]int64)
		publish := func(topic string, size int) {
			t.Helper()
			eventually(t, "publish to "+topic, func() bool {
				result := make(chan Result, 1)
				if g.leader(topic).shards.Append(frame(topic, strings.Repeat("x", size)), 0, Publisher{}, func(_ Outlet, r Result) { result <- r }) != nil {
					return false
				}
				r := <-result
				grown[beforeDot(topic)] += r.Grown
				return r.Err == nil
			})
		}
		for i := range 300 {
			publish(fmt.Sprintf("shop.%d", i%3), 100+i)
			publish("bank.a", 10)
			publish("lonely", 10)
		}
		delete(grown, "")
		if grown["shop"] == 0 || grown["shop"] > 3*57*410 { // what a disk keeps beyond the limit included
			t.Fatalf("retention proves nothing with %d bytes", grown["shop"])
		}
		all := func() {
			t.Helper()
			eventually(t, "all shards to be told of", func() bool { _, n := g.tallied(); return n == 4 })
			held, _ := g.tallied()
			if diff := cmp.Diff(grown, held); diff != "" {
				t.Errorf("(-grown +held):\n%s", diff)
			}
		}
		all()
		n, err := g.leader("shop.1").shards.Purge(t.Context(), "shop.1", 1<<40)
		if err != nil || n >= 0 {
			t.Errorf("Purge = %d, %v", n, err)
		}
		grown["shop"] += n
		all()
		g.kill(g.leader("shop.0").name)
		all()
	})
}

// Nobody looks at the store while nobody wants to know.
func TestGrowthIsNotLookedAtUnasked(t *testing.T) {
	var asked atomic.Bool
	g := (&group{t: t, weighs: asked.Load}).begin(1, 1)
	grown := func() int64 {
		result := make(chan Result, 1)
		if err := g.leader("a").shards.Append(frame("a", "x"), 0, Publisher{}, func(_ Outlet, r Result) { result <- r }); err != nil {
			t.Fatal(err)
		}
		return (<-result).Grown
	}
	if n := grown(); n != 0 {
		t.Errorf("the topic has grown by %d bytes, and nobody asked", n)
	}
	asked.Store(true)
	if n := grown(); n == 0 {
		t.Error("asked, and not told")
	}
}

func TestWhatIsStoredIsKnownToBe(t *testing.T) {
	g := newGroup(t, 3, 1, "")
	stored := func(by Publisher) bool { return g.leader("a").shards.Stored("a", by) }
	g.publish("a", "one", Publisher{ID: 7, Number: 1})
	check := func() {
		t.Helper()
		for by, want := range map[Publisher]bool{{ID: 7, Number: 1}: true, {ID: 7, Number: 2}: false, {ID: 8, Number: 1}: false, {}: false} {
			if got := stored(by); got != want {
				t.Errorf("Stored(%+v) = %v", by, got)
			}
		}
	}
	check()
	old := g.leader("a")
	g.kill(old.name)
	check()
	if old.shards.Stored("a", Publisher{ID: 7, Number: 1}) {
		t.Error("who has stopped knows something")
	}
}
