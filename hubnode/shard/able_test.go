package shard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/switchboardhub/switchboard/hubnode/history"
)

// steady is the timing of tests in which no leader is lost by chance.
var steady = Timing{Heartbeat: time.Second, Commit: 20 * time.Millisecond, Tend: 20 * time.Millisecond}

// fullStore is a store whose disk has no room while full, or takes its time while frozen.
type fullStore struct {
	history.Store
	full    atomic.Bool
	frozen  sync.RWMutex // held while nothing is appended
	refused atomic.Int64 // appends, for want of room
}

// Append implements history.Store.
func (s *fullStore) Append(now time.Time, topic string, l history.Limits, run history.Run) error {
	s.frozen.RLock()
	defer s.frozen.RUnlock()
	if s.full.Load() {
		s.refused.Add(1)
		return fmt.Errorf("append: %w", history.ErrFull)
	}
	return s.Store.Append(now, topic, l, run)
}

// fullDisks is a group of three, whose disks can be full.
type fullDisks struct {
	*group
	disks   map[string]*fullStore
	numbers uint64 // of what was published
}

func newFullDisks(t *testing.T, timing Timing) *fullDisks {
	t.Helper()
	d := &fullDisks{disks: make(map[string]*fullStore)}
	var mu sync.Mutex
	d.group = &group{t: t, timing: timing, wrap: func(node string, s history.Store) history.Store {
		mu.Lock()
		defer mu.Unlock()
		d.disks[node] = &fullStore{Store: s}
		return d.disks[node]
	}}
	d.begin(3, 1)
	d.more()
	eventually(t, "three voters", func() bool { return d.voters(0) == 3 })
	return d
}

// more publishes one artifact more.
func (d *fullDisks) more() {
	d.t.Helper()
	d.numbers++
	d.publish("a", fmt.Sprint(d.numbers), Publisher{ID: 1, Number: d.numbers})
}

func (d *fullDisks) of(m *member) *fullStore { return d.disks[m.name] }

// roles returns the leader, and the others in the order of the group's members.
func (d *fullDisks) roles() (leader *member, others []*member) {
	d.t.Helper()
	leader = d.leader("a")
	for _, s := range leader.shards.replica(0).members() {
		if m := d.node(nodeOf(s.ID)); m != leader {
			others = append(others, m)
		}
	}
	return leader, others
}

// stuck returns once all of the others have the whole log of a leader, and one of them waits
// for room to apply it.
func (d *fullDisks) stuck(one *member, others ...*member) {
	d.t.Helper()
	eventually(d.t, one.name+" waits for room", one.shards.replica(0).machine.waits.Load)
	eventually(d.t, "the same log everywhere", func() bool {
		last := one.shards.replica(0).raft.LastIndex()
		return !slices.ContainsFunc(others, func(m *member) bool { return m.shards.replica(0).raft.LastIndex() != last })
	})
}

// allHave makes room everywhere, and returns once every replica has all that was published.
func (d *fullDisks) allHave() {
	d.t.Helper()
	var want []string
	for n := range d.numbers {
		want = append(want, fmt.Sprint(n+1))
	}
	for _, m := range d.members() {
		d.of(m).full.Store(false)
		eventually(d.t, "all artifacts on "+m.name, func() bool { return slices.Equal(m.held("a"), want) })
	}
}

// A follower whose disk is full has the whole log, and is the first in line. The leader hands
// over to another one.
func TestADrainedLeaderHandsOverToOneThatHasRoom(t *testing.T) {
	d := newFullDisks(t, steady)
	leader, others := d.roles()
	full := others[0]
	d.of(full).full.Store(true)
	d.more()
	d.stuck(full, leader)
	term := leader.shards.replica(0).raft.CurrentTerm()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	leader.shards.HandOver(ctx)
	if leader.shards.replica(0).raft.CurrentTerm() == term {
		t.Error("it has not handed over")
	}
	if full.shards.replica(0).raft.State() == raft.Leader {
		t.Errorf("%s, whose disk is full, leads", full.name)
	}
	d.more()
	d.allHave()
}

// Whoever is elected with a full disk does not keep the leadership.
func TestALeaderWithoutRoomPassesTheLeadershipOn(t *testing.T) {
	d := newFullDisks(t, steady)
	leader, others := d.roles()
	full := others[0]
	d.of(full).full.Store(true)
	d.more()
	d.stuck(full, leader)
	full.shards.replica(0).trans.stand()
	eventually(t, "another term", func() bool { return leader.shards.replica(0).raft.State() != raft.Leader })
	d.more()
	if d.of(full).refused.Load() == 0 || !d.of(full).full.Load() {
		t.Error("its disk has had room")
	}
	d.allHave()
}

// The disk of a new leader says nothing at all.
func TestALeaderThatCannotApplyPassesTheLeadershipOn(t *testing.T) {
	timing := steady
	timing.barrier = 50 * time.Millisecond
	d := newFullDisks(t, timing)
	leader, others := d.roles()
	slow := others[0]
	d.of(slow).frozen.Lock()
	d.more()
	eventually(t, "the same log", func() bool {
		return slow.shards.replica(0).raft.LastIndex() == leader.shards.replica(0).raft.LastIndex()
	})
	slow.shards.replica(0).trans.stand()
	eventually(t, "another term", func() bool { return leader.shards.replica(0).raft.State() != raft.Leader })
	d.more()
	d.of(slow).frozen.Unlock()
	d.allHave()
}

// When nobody has room the leadership stays, and history goes on once there is some,
// however long that takes.
func TestALeaderGoesOnOnceThereIsRoom(t *testing.T) {
	timing := steady
	timing.barrier = 50 * time.Millisecond
	d := newFullDisks(t, timing)
	leader, others := d.roles()
	for _, m := range others {
		d.of(m).full.Store(true)
	}
	d.more()
	d.stuck(others[0], leader, others[1])
	d.stuck(others[1])
	d.of(leader).full.Store(true)
	full := others[0]
	full.shards.replica(0).trans.stand()
	eventually(t, full.name+" leads", func() bool { return full.shards.replica(0).raft.State() == raft.Leader })
	refused := d.of(full).refused.Load()
	eventually(t, "more than its time to catch up", func() bool { return d.of(full).refused.Load() >= refused+2 }) // retryFull lies between
	d.of(full).full.Store(false)
	d.more()
	d.allHave()
}

// One hand-over leaves it to another one that is under way whether the leader serves.
func TestOneHandOverAtATime(t *testing.T) {
	d := newFullDisks(t, steady)
	leader, _ := d.roles()
	r := leader.shards.replica(0)
	r.handing.Store(true)
	if err := r.transfer(t.Context(), r.otherVoters()); !errors.Is(err, errHanding) {
		t.Errorf("got %v, want %v", err, errHanding)
	}
	r.handing.Store(false)
	if err := r.transfer(t.Context(), r.otherVoters()); err != nil {
		t.Error(err)
	}
	d.more()
}

// A leader that serves may have so much to apply when its disk is full that its Raft stands
// still, and does not even say that it has been replaced.
func TestALeaderThatServesPassesTheLeadershipOn(t *testing.T) {
	d := newFullDisks(t, steady)
	leader, _ := d.roles()
	r := leader.shards.replica(0)
	d.of(leader).frozen.Lock()
	waiting := func() bool { return r.raft.Stats()["fsm_pending"] == "128" } // as much as Raft lets wait
	first, answered := d.numbers+1, atomic.Uint64{}
	for more := true; more; { // the last one is more than that
		more = !waiting()
		d.numbers++
		last := r.raft.LastIndex()
		by := Publisher{ID: 1, Number: d.numbers}
		if err := leader.shards.Append(frame("a", fmt.Sprint(d.numbers)), 0, by, func(Outlet, Result) { answered.Add(1) }); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is committed", func() bool { return r.raft.CommitIndex() > last })
	}
	d.of(leader).full.Store(true)
	d.of(leader).frozen.Unlock()
	eventually(t, "another one leads", func() bool { return d.leader("a") != leader })
	eventually(t, "all who published hear", func() bool { return answered.Load() == d.numbers+1-first })
	for n := first; n <= d.numbers; n++ { // they publish again
		d.publish("a", fmt.Sprint(n), Publisher{ID: 1, Number: n})
	}
	if !r.machine.waits.Load() {
		t.Errorf("%s does not wait for room", leader.name)
	}
	d.allHave()
}

// A leader ends while a change of the members that it has begun is committed and waits to be
// applied. Raft answers those who wait for what is applied only as long as it runs.
func TestALeaderEndsInTheMiddleOfAChangeOfMembers(t *testing.T) {
	for range 5 { // whether it answers then is a matter of chance
		t.Run("", func(t *testing.T) {
			d := newFullDisks(t, steady)
			leader, others := d.roles()
			r, goOn := leader.shards.replica(0), sync.OnceFunc(d.of(leader).frozen.Unlock)
			d.of(leader).frozen.Lock()
			defer goOn()
			if err := leader.shards.Append(frame("a", "more"), 0, Publisher{}, func(Outlet, Result) {}); err != nil {
				t.Fatal(err)
			}
			d.kill(others[1].name)
			d.start(others[1].name)
			eventually(t, "a change of the members is committed", func() bool {
				return len(r.members()) == 4 && r.raft.CommitIndex() == r.raft.LastIndex()
			})
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				d.kill(leader.name)
			}()
			eventually(t, "the leader is about to end", func() bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				return r.halting
			})
			goOn()
			select {
			case <-ended:
			case <-time.After(time.Minute):
				t.Fatal("the leader's node does not end")
			}
		})
	}
}
