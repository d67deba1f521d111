package shard

import (
	"encoding/json"
	"maps"
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
	removed := func(states map[string]state, node string) map[string]state {
		st := states[node]
		st.Member = true
		states[node] = st
		return states
	}
	full := func(states map[string]state, nodes ...string) map[string]state {
		for _, node := range nodes {
			st := states[node]
			st.Waits = true
			states[node] = st
		}
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
		"one that was removed is not added again":       {abc, []raft.Server{voter("a/1"), voter("b/1")}, removed(there("a/1", "b/1", "c/1"), "c"), nil},
		"nor one that there is not":                     {abc, []raft.Server{voter("a/1"), voter("b/1")}, map[string]state{"a": {ID: "a/1", Applied: committed}, "b": {ID: "b/1", Applied: committed}, "c": {}}, nil},
		"one to three":                                  {abc, []raft.Server{voter("a/1")}, there("a/1", "b/1", "c/1"), &step{addReplica, "b/1", "b"}},
		"nobody goes before all are there":              {abc, []raft.Server{voter("a/1"), voter("b/1"), voter("d/1"), silent("c/1")}, behind(there("a/1", "b/1", "c/1", "d/1"), "c"), nil},
		"who does not belong goes then":                 {abc, []raft.Server{voter("a/1"), voter("b/1"), voter("c/1"), voter("d/1")}, there("a/1", "b/1", "c/1", "d/1"), &step{removeReplica, "d/1", "d"}},
		"a leader that does not belong gives way":       {[]string{"b", "c", "d"}, []raft.Server{voter("a/1"), voter("b/1"), voter("c/1"), voter("d/1")}, there("a/1", "b/1", "c/1", "d/1"), &step{giveWay, "b/1", "b"}},
		"to one whose disk has room":                    {[]string{"b", "c", "d"}, []raft.Server{voter("a/1"), voter("b/1"), voter("c/1"), voter("d/1")}, full(there("a/1", "b/1", "c/1", "d/1"), "b"), &step{giveWay, "c/1", "c"}},
		"and to nobody while none of their disks has":   {[]string{"b", "c", "d"}, []raft.Server{voter("a/1"), voter("b/1"), voter("c/1"), voter("d/1")}, full(there("a/1", "b/1", "c/1", "d/1"), "b", "c", "d"), nil},
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

func TestAble(t *testing.T) {
	for name, tt := range map[string]struct {
		said string
		want bool
	}{
		"it has applied all":       {`{"id":"a/1","applied":1000,"commit":1000,"waits":false}`, true},
		"nearly all":               {`{"id":"a/1","applied":800,"commit":1000}`, true}, // a node of the version before says no more
		"it is far behind":         {`{"id":"a/1","applied":700,"commit":1000}`, false},
		"its store waits for room": {`{"id":"a/1","applied":999,"commit":1000,"waits":true}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			var st state
			if err := json.Unmarshal([]byte(tt.said), &st); err != nil {
				t.Fatal(err)
			}
			if got := st.able(); got != tt.want {
				t.Errorf("able to lead: %v, want %v", got, tt.want)
			}
		})
	}
}

func TestGoesOnAlone(t *testing.T) {
	const term, last = 7, 100
	group := []string{"a/1", "b/1", "c/1"}
	knows := func(id raft.ServerID, last uint64, voters ...string) state {
		return state{ID: id, Member: len(voters) > 0, Voters: voters, Term: term, Last: last, Elects: true}
	}
	own := knows("a/1", last, group...)
	for name, tt := range map[string]struct {
		others []state
		want   bool
	}{
		"the others have lost all":                 {[]state{knows("b/2", 0), knows("c/2", 0)}, true},
		"one of them is away":                      {[]state{knows("b/2", 0)}, false},
		"a majority is there":                      {[]state{knows("b/1", last, group...), knows("c/2", 0)}, false},
		"a successor had been added":               {[]state{knows("b/2", last-1, group...), knows("c/2", 0)}, true},
		"a group has gone on without it":           {[]state{knows("b/2", last+9, "b/2", "c/2"), knows("c/2", 0)}, false},
		"also on nodes that it does not know":      {[]state{knows("b/2", 0), knows("c/2", 0), knows("d/1", last+9, "d/1", "e/1")}, false},
		"what is old and not a part of it is none": {[]state{knows("b/2", 0), knows("c/2", 0), knows("d/1", last-9, "d/1", "e/1")}, true},
	} {
		t.Run(name, func(t *testing.T) {
			states := map[string]state{"a": own}
			for _, st := range tt.others {
				states[nodeOf(st.ID)] = st
			}
			var members []raft.Server
			for _, id := range group {
				members = append(members, server(raft.ServerID(id)))
			}
			if _, _, got := goesOnAlone(own, members, states); got != tt.want {
				t.Errorf("goes on alone: %v, want %v", got, tt.want)
			}
		})
	}
	t.Run("one that not all have heard of", func(t *testing.T) {
		// b/1 led, gave c/2 its vote, and is lost: a/1 has not heard of the vote, and lacks
		// what the other two have stored.
		knowing := []string{"a/1", "b/1", "c/2"}
		states := map[string]state{"a": knows("a/1", last, "a/1", "b/1"), "b": knows("b/2", 0), "c": knows("c/2", last+2, knowing...)}
		for node, want := range map[string]bool{"a": false, "c": true} {
			own := states[node]
			var members []raft.Server
			for _, id := range own.Voters {
				members = append(members, server(raft.ServerID(id)))
			}
			if _, _, got := goesOnAlone(own, members, states); got != want {
				t.Errorf("%s goes on alone: %v, want %v", node, got, want)
			}
		}
		for node, want := range map[string]bool{"a": true, "c": false} { // as one of the version before does
			for _, old := range []string{"a", "c"} {
				mixed := maps.Clone(states)
				st := mixed[old]
				st.Elects = false
				mixed[old] = st
				var members []raft.Server
				for _, id := range mixed[node].Voters {
					members = append(members, server(raft.ServerID(id)))
				}
				if _, _, got := goesOnAlone(mixed[node], members, mixed); got != want {
					t.Errorf("%s goes on alone when %s is of the version before: %v, want %v", node, old, got, want)
				}
			}
		}
		states["d"] = knows("d/1", last, "a/1", "b/1", "d/1") // with which a/1 can be elected
		states["a"] = knows("a/1", last, "a/1", "b/1", "d/1")
		members := []raft.Server{server("a/1"), server("b/1"), server("c/2"), server("d/1")}
		if _, _, got := goesOnAlone(knows("c/2", last+2, "a/1", "b/1", "c/2", "d/1"), members, states); got {
			t.Error("c goes on alone, and the others elect one of them")
		}
		delete(states, "d")
		states["c"] = knows("c/2", last+2, knowing...)
		members = members[:3]
		if _, _, got := goesOnAlone(states["c"], members, states); got {
			t.Error("c goes on alone, and another one that it does not know may come back and elect a")
		}
	})
	t.Run("the one that knows most", func(t *testing.T) {
		five := []string{"a/1", "b/1", "c/1", "d/1", "e/1"}
		var members []raft.Server
		for _, id := range five {
			members = append(members, server(raft.ServerID(id)))
		}
		states := map[string]state{
			"a": knows("a/1", last, five...), "b": knows("b/1", last+1, five...),
			"c": knows("c/2", 0), "d": knows("d/2", 0), "e": knows("e/2", 0),
		}
		for node, want := range map[string]bool{"a": false, "b": true} {
			voters, alive, got := goesOnAlone(states[node], members, states)
			if got != want || voters != 5 || alive != 2 {
				t.Errorf("%s goes on alone: %v, %d of %d left; want %v", node, got, alive, voters, want)
			}
		}
	})
}
