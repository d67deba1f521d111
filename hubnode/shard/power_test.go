package shard

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// The power of all machines fails at one moment, again and again, under load: disks
// hold what was synced, and by chance some of what was not. Everything that was
// acknowledged is there afterwards, once and in its place, and on every replica. (A
// peer lost acknowledged writes in the same case.)
func TestNothingAcknowledgedIsLostWhenAllPowerFails(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel() // it waits most of the time
			g := (&group{t: t, disks: newDisks()}).begin(3, 2)
			var (
				mu      sync.Mutex
				acked   = make(map[string]map[wire.Sequence]string) // by topic
				count   atomic.Int64
				quiet   atomic.Bool
				working sync.WaitGroup
			)
			for p := range 3 {
				working.Go(func() {
					for n := uint64(1); !quiet.Load(); n++ {
						topic, value := string(rune('a'+p)), fmt.Sprintf("%d.%d", p, n)
						seq := g.publish(topic, value, Publisher{ID: uint64(p + 1), Number: n})
						mu.Lock()
						if acked[topic] == nil {
							acked[topic] = make(map[wire.Sequence]string)
						}
						if other := acked[topic][seq]; other != "" {
							t.Errorf("%s of topic %s was acknowledged with %d, as %s was", value, topic, seq, other)
						}
						acked[topic][seq] = value
						mu.Unlock()
						count.Add(1)
					}
				})
			}
			chance := rand.New(rand.NewPCG(seed, 5))
			for range 4 {
				before := count.Load()
				eventually(t, "some more are acknowledged", func() bool { return count.Load() > before+20 })
				g.lasts(chance, 30)
				g.powerFails(chance, name(0), name(1), name(2))
			}
			quiet.Store(true)
			working.Wait()
			for topic, values := range acked {
				want := make([]string, len(values))
				for seq, value := range values {
					if int(seq) > len(values) {
						t.Fatalf("%s of topic %s has sequence %d of %d", value, topic, seq, len(values))
					}
					want[seq-1] = value
				}
				for i := range 3 {
					m := g.node(name(i))
					eventually(t, fmt.Sprintf("all %d of topic %s on %s", len(want), topic, m.name), func() bool { return slices.Equal(m.held(topic), want) })
				}
			}
		})
	}
}

// lazyGroup is three nodes that sync their logs when they have to. What it returns was
// stored on topic a, and is in their logs for good.
func lazyGroup(t *testing.T, ahead bool) (g *group, stored []string) {
	t.Helper()
	g = (&group{t: t, disks: newDisks(), interval: time.Hour, ahead: ahead}).begin(3, 1)
	stored = g.publishAll("first", 1)
	g.allHold(stored)
	for i := range 3 { // a node that ends syncs
		g.kill(name(i))
	}
	for i := range 3 {
		g.start(name(i))
	}
	return g, stored
}

// publishAll publishes five artifacts to topic a.
func (g *group) publishAll(what string, by uint64) (values []string) {
	g.t.Helper()
	for n := range uint64(5) {
		values = append(values, fmt.Sprintf("%s %d", what, n))
		g.publish("a", values[n], Publisher{ID: by, Number: n + 1})
	}
	return values
}

// allHold waits until all that run hold as much of topic a.
func (g *group) allHold(want []string) {
	g.t.Helper()
	for _, m := range g.members() {
		eventually(g.t, fmt.Sprintf("%q on %s", want, m.name), func() bool { return slices.Equal(m.held("a"), want) })
	}
}

// loseUnsynced takes the power from all nodes, which lose all that was not synced.
func (g *group) loseUnsynced() {
	left := make(map[string]*vfs.MemFS)
	for i := range 3 {
		left[name(i)] = g.disks.of(name(i)).files.CrashClone(vfs.CrashCloneCfg{})
	}
	for _, m := range g.members() {
		g.cutOff(m)
	}
	for i := range 3 {
		g.kill(name(i))
		g.disks.replace(name(i), left[name(i)])
	}
}

func (m *member) flush(t *testing.T) {
	t.Helper()
	if err := m.db.Flush(); err != nil {
		t.Fatal(err)
	}
}

// Stores are written when memory is full, logs once in an interval. What is acknowledged
// after all power failed must not be taken for what a store holds already.
func TestStoresAreNotAheadOfTheirLogsWhenAllPowerFails(t *testing.T) {
	g, want := lazyGroup(t, false)
	want = append(want, g.publishAll("second", 2)...)
	g.allHold(want)
	for i := range 3 {
		g.node(name(i)).flush(t)
	}
	g.publishAll("lost", 3)
	g.loseUnsynced()
	for i := range 3 {
		g.start(name(i))
	}
	want = append(want, g.publishAll("new", 4)...)
	g.allHold(want)
}

// The same with stores that are: those of a version before.
func TestStoresAheadOfTheirLogsAreCutBack(t *testing.T) {
	g, want := lazyGroup(t, true)
	g.publishAll("lost", 2)
	for i := range 3 {
		m := g.node(name(i))
		eventually(t, "all on "+m.name, func() bool { return len(m.held("a")) == 10 })
		m.flush(t)
	}
	g.loseUnsynced()
	g.ahead = false
	for i := range 3 {
		g.start(name(i))
	}
	want = append(want, g.publishAll("new", 4)...)
	g.allHold(want)
}

// twoLostWhatTheThirdHolds returns a group of which two run that lost, with their power, what
// the third one has in its store for good. stored is what all of them have.
func twoLostWhatTheThirdHolds(t *testing.T) (g *group, stored []string) {
	t.Helper()
	g, stored = lazyGroup(t, false)
	g.publishAll("lost", 2)
	for i := range 3 {
		m := g.node(name(i))
		eventually(t, "all on "+m.name, func() bool { return len(m.held("a")) == 10 })
	}
	g.node(name(2)).flush(t)
	g.loseUnsynced()
	for i := range 2 {
		g.start(name(i))
	}
	return g, stored
}

// What one of three has in its log for good, and in its store, the other two lost: they go on
// without it. It is made anew from them.
func TestStoreWhoseLogIsReplacedIsMadeAnew(t *testing.T) {
	g, want := twoLostWhatTheThirdHolds(t)
	want = append(want, g.publishAll("new", 4)...)
	g.start(name(2))
	g.allHold(want)
}

// The same when the two have cut their logs before it comes back: all it gets is a snapshot,
// which does not go on from what its store holds.
func TestStoreThatHoldsWhatOthersLostIsMadeAnewOverASnapshot(t *testing.T) {
	g, want := twoLostWhatTheThirdHolds(t)
	for n := range uint64(trailingLogs) {
		want = append(want, g.publishAll(fmt.Sprintf("new %d", n), 10+n)...)
	}
	for i := range 2 {
		g.node(name(i)).cutLog(t)
	}
	g.start(name(2))
	g.allHold(want)
}

// The same when it is in its snapshot: the entries that the others send say so, also those
// that the snapshot would stand for.
func TestSnapshotOfWhatOthersLostIsMadeAnew(t *testing.T) {
	for what, behind := range map[string]bool{"the others are behind": true, "they are beyond": false} {
		t.Run(what, func(t *testing.T) {
			g, want := lazyGroup(t, false)
			for n := range uint64(3) {
				g.publishAll("lost", 2+n)
			}
			for i := range 3 {
				m := g.node(name(i))
				eventually(t, "all on "+m.name, func() bool { return len(m.held("a")) == 20 })
			}
			g.node(name(2)).cutLog(t)
			g.loseUnsynced()
			for i := range 2 {
				g.start(name(i))
			}
			want = append(want, g.publishAll("new", 10)...)
			for n := range uint64(3) {
				if !behind {
					want = append(want, g.publishAll("more", 20+n)...)
				}
			}
			g.start(name(2))
			g.allHold(want)
			want = append(want, g.publishAll("after", 30)...)
			g.allHold(want)
		})
	}
}

// What was fetched of a snapshot does not stay in the store when the rest can't be: the one who
// sent it may lose it, with a majority.
func TestWhatWasFetchedInPartDoesNotStay(t *testing.T) {
	g := &group{t: t, disks: newDisks(), interval: time.Hour}
	held, release := make(chan struct{}), make(chan struct{})
	var asked atomic.Int64
	g.asking = func(_, _, question string) {
		if question == questionStretch && asked.Add(1) == 2 {
			close(held)
			<-release
		}
	}
	g.begin(3, 1)
	away, all := g.leaveBehind()
	r := away.shards.replica(0)
	g.rejoin(away)
	<-held
	if n := len(away.held("a")); n <= 3 || n >= len(all) {
		t.Errorf("it holds %d of %d in the middle of fetching", n, len(all))
	}
	g.cutOff(away)
	close(release)
	eventually(t, "what it had before on "+away.name, func() bool { return slices.Equal(away.held("a"), all[:3]) })
	g.rejoin(away)
	g.allHold(all)
	if away.shards.replica(0) != r {
		t.Error("it was made anew")
	}
}

// A file of the log that could not be synced is not believed when the next sync goes well: the
// kernel has dropped what it holds. On all machines at once, as when their disks are one, what
// was acknowledged stays, and is on the disks in the end.
func TestFileThatCouldNotBeSyncedIsNotBelieved(t *testing.T) {
	for nodes, what := range map[int]string{1: "alone", 3: "all of three"} {
		t.Run(what, func(t *testing.T) {
			g := (&group{t: t, disks: newDisks(), interval: time.Hour}).begin(nodes, 1)
			want := g.publishAll("first", 1)
			g.allHold(want)
			was := make(map[string]*replica)
			for i, m := range g.members() {
				was[m.name] = m.shards.replica(0)
				g.disks.of(m.name).drops.Store(int64(1 + i)) // the more, the longer it can't be written anew
				if err := m.shards.SyncLogs(); !errors.Is(err, syscall.EIO) {
					t.Errorf("%s syncs: %v", m.name, err)
				}
			}
			for _, m := range g.members() {
				eventually(t, "another log on "+m.name, func() bool {
					r := m.shards.replica(0)
					return r != nil && r != was[m.name]
				})
				eventually(t, "it is synced on "+m.name, func() bool { return m.shards.SyncLogs() == nil && m.db.Flush() == nil })
				if is := m.shards.replica(0); is.id != was[m.name].id || m.shards.Remade() > 0 {
					t.Errorf("%s was made anew as %s", was[m.name].id, is.id)
				}
			}
			want = append(want, g.publishAll("second", 2)...)
			g.allHold(want)
			for _, m := range g.members() {
				m.flush(t)
			}
			left := make(map[string]*vfs.MemFS)
			for _, m := range g.members() {
				left[m.name] = g.disks.of(m.name).files.CrashClone(vfs.CrashCloneCfg{})
			}
			for node := range left {
				g.kill(node)
			}
			for node, fs := range left {
				g.disks.replace(node, fs)
				g.start(node)
			}
			g.allHold(want)
			want = append(want, g.publishAll("third", 3)...)
			g.allHold(want)
		})
	}
}

// The last sync, when a node ends, may be the one that fails. And a node may end while what it
// could not sync before can't be written anew.
func TestLogThatCouldNotBeSyncedAtTheEndIsThere(t *testing.T) {
	for what, before := range map[string]bool{"the last sync": false, "one before": true} {
		t.Run(what, func(t *testing.T) {
			g := (&group{t: t, disks: newDisks(), interval: time.Hour}).begin(1, 1)
			want := g.publishAll("first", 1)
			m, disk := g.node(name(0)), g.disks.of(name(0))
			disk.drops.Store(1)
			if before {
				disk.drops.Store(2)
				if err := m.shards.SyncLogs(); !errors.Is(err, errUnsynced) {
					t.Errorf("it syncs: %v", err)
				}
				eventually(t, "it could not be written anew", func() bool { return disk.drops.Load() == 0 })
			}
			g.kill(name(0))
			g.disks.replace(name(0), disk.files.CrashClone(vfs.CrashCloneCfg{}))
			g.start(name(0))
			g.allHold(want)
		})
	}
}

// While a log waits to be written anew nothing of any store survives a crash, and memory fills
// up. The stores wait: nothing is thrown away.
func TestStoreWaitsForALogThatIsWrittenAnew(t *testing.T) {
	if err := fmt.Errorf("flush history: %w", fmt.Errorf("%w: %w", errUnsynced, syscall.EIO)); !passing(err) {
		t.Errorf("%v would end a replica", err)
	}
	fs := vfs.NewMem()
	db := openHistory(t, fs, "node", func() error { return fmt.Errorf("%w: %w", errUnsynced, syscall.EIO) })
	if err := db.Shard(0).Append(time.Now(), "a", history.Limits{MaxArtifacts: 9}, history.Run{First: 1, Count: 1}); err != nil {
		t.Fatal(err)
	}
	if err := db.Flush(); !passing(err) {
		t.Errorf("flush: %v", err)
	}
	if err := db.Shard(0).Append(time.Now(), "a", history.Limits{MaxArtifacts: 9}, history.Run{First: 2, Count: 1}); !passing(err) {
		t.Errorf("append: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// Power fails everywhere again and again, and takes what was not synced, by chance not all of
// it, and on no two machines the same. What the replicas hold afterwards is the same, and all
// that was acknowledged since is in it.
func TestReplicasThatSyncFromTimeToTimeAgreeWhenAllPowerFails(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel() // it waits most of the time
			g := (&group{t: t, disks: newDisks(), interval: time.Hour}).begin(3, 1)
			chance := rand.New(rand.NewPCG(seed, 6))
			var since []string
			for round := range uint64(5) {
				since = nil
				for part := range uint64(3) {
					since = append(since, g.publishAll(fmt.Sprintf("%d.%d", round, part), 3*round+part+1)...)
					for _, m := range g.members() {
						if chance.IntN(4) == 0 {
							m.flush(t)
						}
					}
				}
				if round < 4 {
					g.powerFails(chance, name(0), name(1), name(2))
				}
			}
			agreed := func() bool {
				held := g.node(name(0)).held("a")
				return len(held) >= len(since) && slices.Equal(held[len(held)-len(since):], since) &&
					slices.Equal(held, g.node(name(1)).held("a")) && slices.Equal(held, g.node(name(2)).held("a"))
			}
			eventually(t, fmt.Sprintf("the same everywhere, and %q at its end", since), agreed)
		})
	}
}
