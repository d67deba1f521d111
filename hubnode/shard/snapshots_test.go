package shard

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
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
				m.cutLog(t)
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

// A store whose end was lost, to damage that the database does not see, is not taken for
// what the snapshot stands for.
func TestAStoreThatEndsBeforeTheSnapshotIsDamaged(t *testing.T) {
	store := history.NewMemory()
	for i := range wire.Sequence(4) {
		if err := store.Append(time.Now(), "a", history.Limits{MaxArtifacts: 9}, history.Run{First: i + 1, Count: 1}); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		topics map[string]wire.Sequence
		want   error
	}{
		{map[string]wire.Sequence{"a": 5}, nil},
		{map[string]wire.Sequence{"a": 3}, nil}, // it may be further
		{map[string]wire.Sequence{"a": 6}, history.ErrCorrupt},
		{map[string]wire.Sequence{"a": 5, "b": 2}, history.ErrCorrupt},
	} {
		if err := newMachine(store).holds(&snapshot{Topics: test.topics}); !errors.Is(err, test.want) {
			t.Errorf("%v: %v, want %v", test.topics, err, test.want)
		}
	}
}

// A topic that goes on at a sequence does so in the store too, and keeps what it has when
// that is further.
func TestWhatIsSkippedIsInTheStore(t *testing.T) {
	db := openHistory(t, vfs.NewMem(), "node", nil)
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	storage := map[string]history.Store{"memory": history.NewMemory(), "disk": db.Shard(0)}
	for name, store := range storage {
		for _, next := range []wire.Sequence{1, 7, 3, 20} {
			if err := skip(store, "a", next); err != nil {
				t.Fatal(err)
			}
		}
		b, _, err := store.Bounds("a")
		if err != nil || b.First != 20 || b.Next != 20 || b.Artifacts != 0 {
			t.Errorf("%s: %+v, %v", name, b, err)
		}
		run := history.Run{First: 20, Count: 1, Body: []byte("x")}
		if err := store.Append(time.Now(), "a", history.Limits{MaxArtifacts: 9}, run); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := skip(store, "a", 21); err != nil {
			t.Fatal(err)
		}
		if b, _, _ := store.Bounds("a"); b.Artifacts != 1 {
			t.Errorf("%s: %+v", name, b)
		}
	}
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

// cutLog cuts the log of the member's replica of the only shard now.
func (m *member) cutLog(t *testing.T) {
	t.Helper()
	r := m.shards.replica(0)
	if r == nil {
		t.Fatalf("node %s has no replica", m.name)
	}
	if err := r.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
}
