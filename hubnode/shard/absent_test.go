package shard

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/switchboardhub/switchboard/hubnode/history"
	"github.com/switchboardhub/switchboard/wire"
)

// A replica that was away for longer than the others keep their logs begins its log
// anew behind the snapshot that it takes over, and goes on from there.
func TestAReplicaThatWasFarBehindFollowsAgain(t *testing.T) {
	storages(t, func(t *testing.T, dir string) {
		t.Helper()
		g := newGroup(t, 3, 1, dir)
		g.publish("a", "first", Publisher{})
		eventually(t, "three voters", func() bool { return g.voters(0) == 3 })
		away := name(2)
		if g.leader("a").name == away {
			away = name(1)
		}
		g.kill(away)
		meanwhile := strings.Repeat("x", 80<<10) // more than a segment of the log in all: what is cut from its last one can still be read
		for range 2 * trailingLogs {
			g.publish("a", meanwhile, Publisher{})
		}
		for _, m := range g.nodes {
			if err := m.shards.replica(0).raft.Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
		}
		g.start(away)
		g.publish("a", "last", Publisher{})
		eventually(t, "the end of the leader's log in that of "+away, func() bool {
			r := g.node(away).shards.replica(0)
			if r == nil {
				return false
			}
			last, err := r.logs.entries.LastIndex()
			return err == nil && last == g.leader("a").shards.replica(0).raft.LastIndex()
		})
		eventually(t, "it to have caught up", func() bool { return g.node(away).shards.caughtUp(0) })
	})
}

// What the leader has to say to a replica without a link waits for the link, rather
// than for Raft to try again.
func TestALeaderWaitsForALink(t *testing.T) {
	g := newGroup(t, 3, 1, "")
	g.publish("a", "x", Publisher{})
	eventually(t, "three voters", func() bool { return g.voters(0) == 3 })
	eventually(t, "the leader to be where it stays", func() bool { return g.leader("a").name == g.desired(0)[0] })
	leader := g.leader("a")
	other := g.node(name(0))
	if other == leader {
		other = g.node(name(1))
	}
	g.unlink(leader, other)
	r, to := leader.shards.replica(0), other.shards.replica(0).id
	answered := make(chan error, 1)
	go func() {
		answered <- r.trans.AppendEntries(to, "", &raft.AppendEntriesRequest{RPCHeader: r.trans.header(), Term: r.raft.CurrentTerm(), LeaderCommitIndex: 1}, &raft.AppendEntriesResponse{})
	}()
	g.publish("a", "y", Publisher{}) // by the two that are left
	select {
	case err := <-answered:
		t.Fatalf("answered without a link: %v", err)
	default:
	}
	g.link(leader, other)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// It does not wait for who is no member.
func TestALeaderDoesNotWaitForWhoIsNoMember(t *testing.T) {
	g := newGroup(t, 3, 1, "")
	g.publish("a", "x", Publisher{})
	r := g.leader("a").shards.replica(0)
	args := &raft.AppendEntriesRequest{RPCHeader: r.trans.header(), Term: 1, LeaderCommitIndex: 1}
	if err := r.trans.AppendEntries("n-7/1", "", args, &raft.AppendEntriesResponse{}); !errors.Is(err, errNoLink) {
		t.Errorf("got %v", err)
	}
}

// A replica does not take the end of its own log for the end of the leader's.
func TestAReplicaThatIsBehindIsNotReady(t *testing.T) {
	g := newGroup(t, 3, 1, "")
	g.publish("a", "x", Publisher{})
	leader := g.leader("a")
	var follower *member
	for i := range 3 {
		if m := g.node(name(i)); m != leader {
			follower = m
		}
	}
	eventually(t, "a follower that has heard what is committed", func() bool {
		r := follower.shards.replica(0)
		return r != nil && r.trans.committed.Load() > 0 && follower.shards.caughtUp(0)
	})
	r := follower.shards.replica(0)
	begin := func(said uint64) { // as after a restart
		r.mu.Lock()
		defer r.mu.Unlock()
		r.upToDate, r.goal = false, 0
		r.trans.committed.Store(said)
	}
	begin(0)
	if r.caughtUp() {
		t.Error("no leader was heard, and the follower says that it has caught up")
	}
	said := r.machine.applied.Load() + nearEnough + 9
	begin(said)
	for range 2 { // it sets out, and has not arrived
		if r.caughtUp() {
			t.Error("the leader has committed more, and the follower says that it has caught up")
		}
	}
	r.machine.applied.Store(said) // what was committed then is there, and the leader is ahead again
	r.trans.committed.Store(said + nearEnough + 9)
	r.mu.Lock()
	r.aimed = time.Now()
	r.mu.Unlock()
	if !r.caughtUp() {
		t.Error("the follower keeps up with the leader, and says that it has not caught up")
	}
}

// While a replica is opened, which reads its log, the others are reached.
func TestOpeningAReplicaHoldsUpNoOther(t *testing.T) {
	opening, open := make(chan struct{}), make(chan struct{})
	s := New(Config{
		Self: "n-0", Shards: 2, Timing: quick, Log: slog.New(slog.DiscardHandler),
		Store: func(shard int) (history.Store, error) {
			if shard == 1 {
				close(opening)
				<-open
			}
			return history.NewMemory(), nil
		},
		Limits:  func(string) history.Limits { return history.Limits{MaxArtifacts: 1} },
		Outlet:  func() Outlet { return &member{} },
		Desired: func(int) []string { return []string{"n-0"} }, Linked: func() []string { return nil }, Settled: func() bool { return true },
		Ask:     func(context.Context, string, string, []byte) ([]byte, error) { return nil, errNoLink },
		Carrier: nowhere{}, Bundles: func(string) bool { return true }, Moved: func(int) {}, Looked: func() {},
	})
	s.Want(true)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	<-opening
	f := wire.AppendFrame(nil, wire.Header{Kind: wire.KindRaft}, "n-0/1", "n-1/1", []byte{callVote})
	if !s.Take("n-1", wire.Frame(f), nil) { // hangs when it waits for the other shard
		t.Error("a call to shard 0 was not taken")
	}
	close(open)
	stop()
	running.Wait()
}

// nowhere is a Carrier without links.
type nowhere struct{}

func (nowhere) Carry(string, ...[]byte) bool { return false }
