package hub

import (
	"cmp"
	"slices"
	"time"
)

// ReplicaState is how one node's replica of a shard is. Nodes tell it each other.
type ReplicaState struct {
	Shard    int        `json:"shard"`
	Node     string     `json:"node"`
	Leads    bool       `json:"leads"`
	Logged   uint64     `json:"logged"`                  // the last entry of the shard's log that it has
	DiskFull *time.Time `json:"diskFullSince,omitempty"` // since when the disk for its history is nearly full
}

// ShardInfo is one shard in the answer to "topics".
type ShardInfo struct {
	Shard    int           `json:"shard"`
	Leader   string        `json:"leader,omitempty"` // the node; empty: there is none now
	Replicas []ReplicaInfo `json:"replicas"`         // those that answered, by node
}

// ReplicaInfo is one replica of a shard.
type ReplicaInfo struct {
	Node     string     `json:"node"`
	Lag      uint64     `json:"lag"` // entries of the shard's log that the leader has more
	DiskFull *time.Time `json:"diskFullSince,omitempty"`
}

// shardsOf makes of what the nodes say of their replicas a list of shards.
func shardsOf(all []ReplicaState) []ShardInfo {
	slices.SortFunc(all, func(a, b ReplicaState) int {
		return cmp.Or(cmp.Compare(a.Shard, b.Shard), cmp.Compare(a.Node, b.Node))
	})
	shards := []ShardInfo{}
	for len(all) > 0 {
		n := slices.IndexFunc(all, func(r ReplicaState) bool { return r.Shard != all[0].Shard })
		if n < 0 {
			n = len(all)
		}
		shards = append(shards, shardOf(all[:n]))
		all = all[n:]
	}
	return shards
}

// leaderless reports whether a shard has no leader: that would list what the shard keeps.
func leaderless(shards []ShardInfo) bool {
	return slices.ContainsFunc(shards, func(s ShardInfo) bool { return s.Leader == "" })
}

func shardOf(replicas []ReplicaState) ShardInfo {
	s := ShardInfo{Shard: replicas[0].Shard}
	var logged uint64 // by the leader
	for _, r := range replicas {
		if r.Leads {
			s.Leader, logged = r.Node, r.Logged
		}
	}
	for _, r := range replicas {
		s.Replicas = append(s.Replicas, ReplicaInfo{Node: r.Node, Lag: lag(r.Logged, logged), DiskFull: r.DiskFull})
	}
	return s
}

// lag returns how many log entries a replica has less than the leader. What a replica
// has is kept, also before it hears that a majority has it.
func lag(logged, leader uint64) uint64 { return max(logged, leader) - logged }

// replicaHere returns how this node's replica of a topic's shard is.
func (h *Hub) replicaHere(topic string) (ReplicaState, bool) {
	shard := h.keeper.ShardOf(topic)
	all := h.keeper.Replicas()
	i := slices.IndexFunc(all, func(r ReplicaState) bool { return r.Shard == shard })
	if i < 0 {
		return ReplicaState{}, false
	}
	return all[i], true
}
