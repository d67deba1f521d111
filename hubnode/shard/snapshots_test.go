package shard

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

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
		away := g.node(follower(g))
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

// Raft writes a replica's own snapshot when it gets to it, which may be after it took over a
// newer one of another replica, or while it does. Nothing goes back.
func TestAnOlderSnapshotDoesNotReplaceANewerOne(t *testing.T) {
	for what, dir := range map[string]string{"memory": "", "disk": "node"} {
		t.Run(what, func(t *testing.T) {
			fs := memFiles{machineDisk: newMachineDisk(vfs.NewMem())}
			if err := fs.MkdirAll("node"); err != nil {
				t.Fatal(err)
			}
			s, err := openSnapshots(fs, dir)
			if err != nil {
				t.Fatal(err)
			}
			take := func(index uint64, own bool) error {
				to, err := s.Create(1, index, 3, raft.Configuration{}, 1, nil)
				if err != nil {
					t.Fatal(err)
				}
				to.(*sink).own = own
				return to.Close()
			}
			for _, step := range []struct {
				what string
				do   func() error
				want error
				held uint64
			}{
				{"its own", func() error { return take(100, true) }, nil, 100},
				{"another one's, not fetched yet", func() error { return take(500, false) }, nil, 100},
				{"its own, taken before that", func() error { return take(120, true) }, errOlder, 100},
				{"it is fetched", s.fetched, nil, 500},
				{"its own, taken before that, at last", func() error { return take(120, true) }, errOlder, 500},
				{"an older one of another one", func() error { return take(400, false) }, errOlder, 500},
				{"nothing is being fetched", s.fetched, errOlder, 500},
				{"one that is given up", func() error { return errors.Join(take(900, false), s.givenUp()) }, nil, 500},
				{"an older one after that", func() error { return errors.Join(take(800, false), s.fetched()) }, nil, 800},
				{"its own", func() error { return take(810, true) }, nil, 810},
				{"another one given up", func() error { return errors.Join(take(900, false), s.givenUp()) }, nil, 810},
			} {
				if err := step.do(); !errors.Is(err, step.want) || s.held() != step.held {
					t.Errorf("%s: %v, and it holds up to %d, want %v and %d", step.what, err, s.held(), step.want, step.held)
				}
			}
			if dir == "" {
				return
			}
			if s, err = openSnapshots(fs, dir); err != nil || s.held() != 810 {
				t.Errorf("after a restart: %v", err)
			}
			if err := take(900, false); err != nil {
				t.Fatal(err)
			}
			if _, err = openSnapshots(fs, dir); !errors.Is(err, errLacking) {
				t.Errorf("after a restart in the middle of fetching: %v", err)
			}
		})
	}
}

// A replica is fetching a snapshot when all others are lost for good. It goes on alone with
// what it had and what it has fetched.
func TestAReplicaThatWasFetchingGoesOnAlone(t *testing.T) {
	storages := map[string]func(*group){"memory": func(*group) {}, "disk": func(g *group) { g.disks = newDisks() }}
	for what, on := range storages {
		t.Run(what, func(t *testing.T) {
			g := &group{t: t}
			on(g)
			held, release := make(chan struct{}), make(chan struct{})
			var asked atomic.Int64
			var hold atomic.Pointer[string] // the node whose second question for a page is held up
			g.asking = func(from, _, question string) {
				if node := hold.Load(); node == nil || *node != from || question != questionStretch {
					return
				}
				if asked.Add(1) == 2 {
					close(held)
				}
				if asked.Load() >= 2 {
					<-release
				}
			}
			g.begin(3, 1)
			away, all := g.leaveBehind()
			hold.Store(&away.name)
			g.rejoin(away)
			<-held
			had := len(away.held("a"))
			if had <= 3 || had >= len(all) {
				t.Fatalf("it holds %d of %d in the middle of fetching", had, len(all))
			}
			for i := range 3 {
				if name(i) != away.name {
					g.kill(name(i))
					if g.disks != nil {
						g.disks.replace(name(i), vfs.NewCrashableMem())
					}
				}
			}
			close(release)
			for i := range 3 {
				if name(i) != away.name {
					g.start(name(i))
				}
			}
			g.publish("a", "more", Publisher{ID: 2, Number: 1})
			g.allHold(append(slices.Clone(all[:had]), "more"))
			r := away.shards.replica(0)
			if n := away.shards.Recovered(); n != 1 {
				t.Errorf("it went on alone %d times", n)
			}
			if g.disks == nil {
				return
			}
			logs, _ := r.logs.entries.(guardedLogs)
			logs.damaged(history.ErrCorrupt) // what its log finds later is told the replica that runs
			eventually(t, "another replica", func() bool {
				now := away.shards.replica(0)
				return now != nil && now != r
			})
			g.allHold(append(slices.Clone(all[:had]), "more"))
		})
	}
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

// follower returns a node that does not lead the shard of topic a.
func follower(g *group) string {
	leader := g.leader("a").name
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
