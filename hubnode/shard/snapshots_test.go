package shard

import (
	"fmt"
	"slices"
	"testing"
)

// A replica that was away for longer than the others keep their logs takes over a
// snapshot, and goes on from there, though its log ends before.
func TestAReplicaThatWasAwayForLongCatchesUp(t *testing.T) {
	storages(t, func(t *testing.T, dir string) {
		t.Helper()
		g := newGroup(t, 3, 1, dir)
		var want []string
		publish := func(n int) {
			t.Helper()
			for range n {
				want = append(want, fmt.Sprint(len(want)))
				g.publish("a", want[len(want)-1], Publisher{ID: 1, Number: uint64(len(want))})
			}
		}
		publish(trailingLogs)
		away := g.node(follower(g, "a"))
		g.cutOff(away)
		publish(2 * trailingLogs)
		for _, m := range g.members() {
			if m != away {
				m.cutLog(t, "a")
			}
		}
		g.rejoin(away)
		for range 2 { // what it fetches, and what follows in the log
			publish(3)
			eventually(t, "all artifacts on "+away.name, func() bool { return slices.Equal(away.held("a"), want) })
		}
		if dir == "" {
			return
		}
		g.kill(away.name)
		publish(3)
		g.start(away.name)
		eventually(t, "all artifacts after a restart", func() bool { return slices.Equal(g.node(away.name).held("a"), want) })
		if n := g.node(away.name).shards.remade.Load() + away.shards.remade.Load(); n > 0 {
			t.Errorf("%d replicas were made anew", n)
		}
	})
}

// follower returns a node that does not lead a topic's shard.
func follower(g *group, topic string) string {
	leader := g.leader(topic).name
	for i := range 3 {
		if name(i) != leader {
			return name(i)
		}
	}
	return ""
}

// cutLog cuts the log of the member's replica of a topic's shard now.
func (m *member) cutLog(t *testing.T, topic string) {
	t.Helper()
	r := m.shards.replica(m.shards.Of(topic))
	if r == nil {
		t.Fatalf("node %s has no replica", m.name)
	}
	if err := r.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
}
