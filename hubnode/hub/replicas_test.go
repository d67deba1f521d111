package hub

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestShardsAreWhatTheirReplicasSay(t *testing.T) {
	full := time.Unix(7, 0)
	got := shardsOf([]ReplicaState{
		{Shard: 1, Node: "n-2", Logged: 90, DiskFull: &full},
		{Shard: 0, Node: "n-1", Logged: 5},
		{Shard: 1, Node: "n-0", Logged: 100, Leads: true},
		{Shard: 1, Node: "n-1", Logged: 102}, // asked after the leader
		{Shard: 0, Node: "n-0", Logged: 7},
	})
	want := []ShardInfo{
		{Shard: 0, Replicas: []ReplicaInfo{{Node: "n-0"}, {Node: "n-1"}}}, // nobody leads: nobody knows
		{Shard: 1, Leader: "n-0", Replicas: []ReplicaInfo{{Node: "n-0"}, {Node: "n-1"}, {Node: "n-2", Lag: 10, DiskFull: &full}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("shards (-want +got):\n%s", diff)
	}
	if got := shardsOf(nil); got == nil || len(got) > 0 {
		t.Errorf("of no replicas: %v, want an empty list", got)
	}
}
