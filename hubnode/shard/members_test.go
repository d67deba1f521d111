package shard

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
)

func TestNextStep(t *testing.T) {
	voter := server
	silent := func(id raft.ServerID) raft.Server {
		s := server(id)
		s.Suffrage = raft.Nonvoter
		return s
	}
	const committed = 1000
	there := func(ids ...raft.ServerID) map[string]state {
		states := make(map[string]state)
		for _, id := range ids {
			states[nodeOf(id)] = state{ID: id, Applied: committed}
		}
		return states
	}
	behind := func(states map[string]state, node string) map[string]state {
		st := states[node]
		st.Applied = committed - nearEnough - 1
		states[node] = st
		return states
	}
	abc := []string{"a", "b", "c"}
	for name, tt := range map[string]struct {
		desired []string
		members []raft.Server
		states  map[string]state
		want    *step
	}{
		"all as it should be":                           {abc, []raft.Server{voter("a/1"), voter("b/1"), voter("c/1")}, there("a/1", "b/1", "c/1"), nil},
		"a node that is away is waited for":             {abc, []raft.Server{voter("a/1"), voter("b/1"), voter("c/1")}, there("a/1", "b/1"), nil},
		"a successor is added first":                    {abc, []raft.Server{voter("a/1"), voter("b/1"), voter("c/1")}, there("a/1", "b/1", "c/2"), &step{addReplica, "c/2", "c"}},
		"then the lost one goes":                        {abc, []raft.Server{voter("a/1"), voter("b/1"), voter("c/1"), silent("c/2")}, there("a/1", "b/1", "c/2"), &step{removeReplica, "c/1", "c"}},
		"then the successor gets its vote":              {abc, []raft.Server{voter("a/1"), voter("b/1"), silent("c/2")}, there("a/1", "b/1", "c/2"), &step{giveVote, "c/2", "c"}},
		"but not before it has caught up":               {abc, []raft.Server{voter("a/1"), voter("b/1"), silent("c/2")}, behind(there("a/1", "b/1", "c/2"), "c"), nil},
		"a lost one stays while it would stop the rest": {abc, []raft.Server{voter("a/1"), voter("b/1"), voter("c/1"), silent("c/2")}, there("a/1", "c/2"), nil},
		"a successor that was lost too goes":            {abc, []raft.Server{voter("a/1"), voter("b/1"), silent("c/2")}, there("a/1", "b/1", "c/3"), &step{removeReplica, "c/2", "c"}},
		"one to three":                                  {abc, []raft.Server{voter("a/1")}, there("a/1", "b/1", "c/1"), &step{addReplica, "b/1", "b"}},
		"nobody goes before all are there":              {abc, []raft.Server{voter("a/1"), voter("b/1"), voter("d/1"), silent("c/1")}, behind(there("a/1", "b/1", "c/1", "d/1"), "c"), nil},
		"who does not belong goes then":                 {abc, []raft.Server{voter("a/1"), voter("b/1"), voter("c/1"), voter("d/1")}, there("a/1", "b/1", "c/1", "d/1"), &step{removeReplica, "d/1", "d"}},
		"a leader that does not belong gives way":       {[]string{"b", "c", "d"}, []raft.Server{voter("a/1"), voter("b/1"), voter("c/1"), voter("d/1")}, there("a/1", "b/1", "c/1", "d/1"), &step{giveWay, "b/1", "b"}},
		"three to one":                                  {[]string{"a"}, []raft.Server{voter("a/1"), voter("b/1"), voter("c/1")}, there("a/1", "b/1", "c/1"), &step{removeReplica, "b/1", "b"}},
		"three to one, and the rest is away":            {[]string{"a"}, []raft.Server{voter("a/1"), voter("b/1"), voter("c/1")}, there("a/1"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := nextStep("a", committed, tt.desired, tt.members, tt.states)
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(step{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}
