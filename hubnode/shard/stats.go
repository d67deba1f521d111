package shard

import "github.com/hashicorp/raft"

// Stat is a moment's view of one of this node's replicas.
type Stat struct {
	Shard     int
	Leads     bool
	Whole     bool // on the leader: no replica is missing, without a vote or behind
	Term      uint64
	Logged    uint64 // the last log entry that it has
	Applied   uint64 // the last log entry in the store
	Committed uint64 // the last log entry known to be with a majority
	Pending   int    // bytes that wait to be stored, on the leader
	Voters    int    // members with a vote, by what this replica knows
}

// Stats returns what this node's replicas are like.
func (s *Shards) Stats() []Stat {
	var all []Stat
	s.eachReplica(func(r *replica) {
		st := Stat{Shard: r.n, Term: r.raft.CurrentTerm(), Logged: r.raft.LastIndex(), Applied: r.machine.applied.Load(), Committed: r.raft.CommitIndex()}
		for _, m := range r.members() {
			if m.Suffrage == raft.Voter {
				st.Voters++
			}
		}
		r.mu.Lock()
		st.Leads, st.Pending = r.serving, r.pending
		st.Whole = st.Leads && r.whole.Load()
		r.mu.Unlock()
		all = append(all, st)
	})
	return all
}

// Recovered returns how many groups went on without a majority that was lost for good.
func (s *Shards) Recovered() uint64 { return s.recovered.Load() }

// Remade returns how many replicas were made anew because what they held was damaged.
func (s *Shards) Remade() uint64 { return s.remade.Load() }
