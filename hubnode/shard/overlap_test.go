package shard

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/switchboardhub/switchboard/hubnode/history"
)

// A replica whose answers were lost after it had taken over a snapshot goes on: what the
// leader sends again begins where its log does not reach back to.
func TestAReplicaWhoseAnswersWereLostGoesOnFromItsSnapshot(t *testing.T) {
	storages(t, func(t *testing.T, dir string) {
		t.Helper()
		timing := quick
		timing.Heartbeat = 3 * time.Second // a new leader can't find out without answers what a replica lacks
		g := newGroupWith(t, 3, 1, dir, timing)
		var want []string
		publish := func(n int) {
			t.Helper()
			for range n {
				want = append(want, fmt.Sprint(len(want)))
				g.publish("a", want[len(want)-1], Publisher{ID: 1, Number: uint64(len(want))})
			}
		}
		publish(3)
		away := g.node(follower(g))
		g.cutOff(away)
		publish(2 * trailingLogs)
		for _, m := range g.members() {
			if m != away {
				m.cutLog(t)
			}
		}
		g.rejoin(away)
		r := away.shards.replica(0)
		eventually(t, "the leader has heard that it has the snapshot", func() bool {
			held := r.snaps.held()
			return held > 0 && r.trans.committed.Load() >= held
		})
		for _, m := range g.members() {
			if m != away {
				away.linkTo(m.name).lost.Store(true)
			}
		}
		publish(3)
		eventually(t, "all artifacts without answers", func() bool { return slices.Equal(away.held("a"), want) })
		g.cutOff(away)
		g.rejoin(away)
		publish(3)
		eventually(t, "all artifacts with answers again", func() bool { return slices.Equal(away.held("a"), want) })
		if away.shards.replica(0) != r {
			t.Error("the replica was made anew")
		}
	})
}

// What a snapshot holds is not compared with the log, nor stored again, and nothing is
// committed that the leader did not send.
func TestEntriesThatTheSnapshotHoldsAreCut(t *testing.T) {
	entries := func(from, to uint64) []*raft.Log {
		all := []*raft.Log{}
		for i := from; i <= to; i++ {
			all = append(all, &raft.Log{Index: i, Term: 2})
		}
		return all
	}
	for what, test := range map[string]struct {
		held      uint64
		got, want raft.AppendEntriesRequest
	}{
		"no snapshot":                    {0, raft.AppendEntriesRequest{PrevLogEntry: 4, PrevLogTerm: 2, Entries: entries(5, 8), LeaderCommitIndex: 20}, raft.AppendEntriesRequest{PrevLogEntry: 4, PrevLogTerm: 2, Entries: entries(5, 8), LeaderCommitIndex: 20}},
		"all behind it":                  {3, raft.AppendEntriesRequest{PrevLogEntry: 4, PrevLogTerm: 2, Entries: entries(5, 8), LeaderCommitIndex: 20}, raft.AppendEntriesRequest{PrevLogEntry: 4, PrevLogTerm: 2, Entries: entries(5, 8), LeaderCommitIndex: 20}},
		"from its end on":                {4, raft.AppendEntriesRequest{PrevLogEntry: 4, PrevLogTerm: 2, Entries: entries(5, 8), LeaderCommitIndex: 20}, raft.AppendEntriesRequest{Entries: entries(5, 8), LeaderCommitIndex: 8}},
		"from before its end":            {6, raft.AppendEntriesRequest{PrevLogEntry: 4, PrevLogTerm: 2, Entries: entries(5, 8), LeaderCommitIndex: 7}, raft.AppendEntriesRequest{Entries: entries(7, 8), LeaderCommitIndex: 7}},
		"from the beginning":             {6, raft.AppendEntriesRequest{Entries: entries(1, 8), LeaderCommitIndex: 8}, raft.AppendEntriesRequest{Entries: entries(7, 8), LeaderCommitIndex: 8}},
		"all in it":                      {9, raft.AppendEntriesRequest{PrevLogEntry: 4, PrevLogTerm: 2, Entries: entries(5, 8), LeaderCommitIndex: 20}, raft.AppendEntriesRequest{Entries: entries(1, 0), LeaderCommitIndex: 9}},
		"nothing but what was committed": {4, raft.AppendEntriesRequest{PrevLogEntry: 4, PrevLogTerm: 2, LeaderCommitIndex: 20}, raft.AppendEntriesRequest{LeaderCommitIndex: 4}},
	} {
		cutHeld(&test.got, test.held)
		if diff := cmp.Diff(test.want, test.got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", what, diff)
		}
	}
}

// A snapshot of which the replica has all is not taken over again: its log goes on behind it.
func TestASnapshotIsTakenOverOnlyWhereTheLogEndsBefore(t *testing.T) {
	storages(t, func(t *testing.T, dir string) {
		t.Helper()
		g := newGroup(t, 1, 1, dir)
		for i := range 2 * trailingLogs {
			g.publish("a", fmt.Sprint(i), Publisher{})
		}
		m := g.leader("a")
		m.cutLog(t)
		g.publish("a", "behind the snapshot", Publisher{})
		r := m.shards.replica(0)
		held, last, term := r.snaps.held(), r.raft.LastIndex(), r.raft.CurrentTerm()
		if held == 0 || held >= last {
			t.Fatalf("the snapshot ends at %d, the log at %d", held, last)
		}
		for _, test := range []struct {
			what              string
			index, term, from uint64
			answered, has     bool
			err               error
		}{
			{"before the end of its own", held - 1, term, term, true, true, nil},
			{"its own", held, term, term, true, true, nil},
			{"in its log", last, term, term, true, true, nil},
			{"behind its log", last + 1, term, term, false, false, nil},
			{"of a leader of before", held, term, term - 1, false, false, nil},
			{"another than what is in its log", last, term + 1, term + 1, true, false, history.ErrCorrupt},
		} {
			answer := make(chan raft.RPCResponse, 1)
			call := raft.RPC{Command: &raft.InstallSnapshotRequest{Term: test.from, LastLogIndex: test.index, LastLogTerm: test.term}, RespChan: answer}
			if answered := r.overlap(call); answered != test.answered {
				t.Errorf("%s: answered %v", test.what, answered)
			}
			if !test.answered {
				continue
			}
			got := <-answer
			if resp, ok := got.Response.(*raft.InstallSnapshotResponse); !ok || resp.Success != test.has || !errors.Is(got.Error, test.err) {
				t.Errorf("%s: %+v, %v", test.what, got.Response, got.Error)
			}
		}
		if r.failed.Load() == nil {
			t.Error("a replica whose log goes on otherwise is not made anew")
		}
	})
}
