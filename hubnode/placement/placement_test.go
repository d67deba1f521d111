package placement_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/hubnode/placement"
)

// shards256 is how many shards the tests deal topics out to.
const shards256 = 256

// Data is stored where these numbers say: a change that breaks this test loses
// the history of every hub that is upgraded.
func TestPlacementNeverChanges(t *testing.T) {
	type place struct {
		Shard    int
		Replicas []int // 3 of 5
	}
	for topic, want := range map[string]place{
		"broadcast":      {228, []int{2, 1, 3}},
		"orders":         {41, []int{0, 4, 2}},
		"orders.new":     {153, []int{4, 1, 0}},
		"orders.eu.new":  {121, []int{0, 1, 4}},
		"Grüße.日本":       {228, []int{2, 1, 3}},
		"$hub.nodes":     {174, []int{4, 3, 0}},
		"a":              {248, []int{4, 0, 3}},
		"tenant-1.audit": {141, []int{4, 1, 2}},
	} {
		shard := placement.ShardOf(topic, shards256)
		got := place{shard, placement.Replicas(shard, 5, 3)}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", topic, diff)
		}
	}
}

func TestShardOf(t *testing.T) {
	for _, shards := range []int{-1, 0, 1} {
		if got := placement.ShardOf("orders", shards); got != 0 {
			t.Errorf("of %d shards: got %d, want 0", shards, got)
		}
	}
	const topics = 100_000
	counts := make([]int, shards256)
	for i := range topics {
		counts[placement.ShardOf(fmt.Sprintf("tenant-%d.orders", i), shards256)]++
	}
	mean := topics / shards256
	if low, high := slices.Min(counts), slices.Max(counts); low < mean*3/4 || high > mean*5/4 {
		t.Errorf("similar names fill shards unevenly: %d to %d topics, mean %d", low, high, mean)
	}
}

func TestReplicas(t *testing.T) {
	for name, test := range map[string]struct {
		nodes, replicas int
		want            int // how many
	}{
		"as many as asked for":    {nodes: 5, replicas: 3, want: 3},
		"all nodes":               {nodes: 3, replicas: 3, want: 3},
		"fewer nodes than wanted": {nodes: 2, replicas: 3, want: 2},
		"one node":                {nodes: 1, replicas: 1, want: 1},
		"no nodes":                {nodes: 0, replicas: 3, want: 0},
		"fewer than no nodes":     {nodes: -1, replicas: 3, want: 0},
		"no replicas":             {nodes: 3, replicas: 0, want: 0},
		"fewer than no replicas":  {nodes: 3, replicas: -1, want: 0},
	} {
		t.Run(name, func(t *testing.T) {
			for shard := range shards256 {
				got := placement.Replicas(shard, test.nodes, test.replicas)
				distinct := slices.Compact(slices.Sorted(slices.Values(got)))
				if len(got) != test.want || len(distinct) != test.want {
					t.Fatalf("shard %d: got %v, want %d different ordinals", shard, got, test.want)
				}
				if len(distinct) > 0 && (distinct[0] < 0 || distinct[len(distinct)-1] >= test.nodes) {
					t.Fatalf("shard %d: got %v, of %d nodes", shard, got, test.nodes)
				}
			}
		})
	}
}

func TestReplicasAskingForMoreKeepsTheFirst(t *testing.T) {
	for shard := range shards256 {
		all := placement.Replicas(shard, 9, 9)
		for n := 1; n < 9; n++ {
			if diff := cmp.Diff(all[:n], placement.Replicas(shard, 9, n)); diff != "" {
				t.Fatalf("shard %d, %d replicas: %s", shard, n, diff)
			}
		}
	}
}

func TestReplicasAreBalanced(t *testing.T) {
	for _, nodes := range []int{2, 3, 5, 7, 9, 16} {
		replicas := min(nodes, 3)
		held, first := make([]int, nodes), make([]int, nodes)
		for shard := range shards256 {
			r := placement.Replicas(shard, nodes, replicas)
			first[r[0]]++
			for _, ordinal := range r {
				held[ordinal]++
			}
		}
		for what, test := range map[string]struct {
			counts []int
			mean   float64
		}{
			"replicas":       {held, float64(shards256*replicas) / float64(nodes)},
			"first replicas": {first, float64(shards256) / float64(nodes)},
		} {
			low, high := float64(slices.Min(test.counts)), float64(slices.Max(test.counts))
			if low < 0.5*test.mean || high > 1.6*test.mean {
				t.Errorf("%d nodes: %s per node are %v, mean %.1f", nodes, what, test.counts, test.mean)
			}
		}
	}
}

func TestScalingUpMovesOnlyToTheNewNode(t *testing.T) {
	for nodes := 3; nodes < 16; nodes++ {
		moved := 0
		for shard := range shards256 {
			before, after := placement.Replicas(shard, nodes, 3), placement.Replicas(shard, nodes+1, 3)
			at := slices.Index(after, nodes)
			if at < 0 {
				if diff := cmp.Diff(before, after); diff != "" {
					t.Errorf("shard %d, %d to %d nodes: %s", shard, nodes, nodes+1, diff)
				}
				continue
			}
			moved++
			// The new node pushes the last one out; the others keep their order.
			if diff := cmp.Diff(before[:2], slices.Delete(after, at, at+1)); diff != "" {
				t.Errorf("shard %d, %d to %d nodes: %s", shard, nodes, nodes+1, diff)
			}
		}
		want := 3 * float64(shards256) / float64(nodes+1)
		if got := float64(moved); got < 0.6*want || got > 1.5*want {
			t.Errorf("%d to %d nodes: %d replicas moved, want about %.0f", nodes, nodes+1, moved, want)
		}
	}
}

func TestOrdinal(t *testing.T) {
	for node, want := range map[string]int{
		"agents-node-0": 0, "agents-node-12": 12, "n-2147483647": 2147483647, "a--3": 3,
	} {
		if got, err := placement.Ordinal(node); err != nil || got != want {
			t.Errorf("Ordinal(%q): got %d, %v, want %d", node, got, err, want)
		}
	}
	for node, want := range map[string]string{
		"":                  `node name "" does not end in a hyphen and an ordinal`,
		"agents":            `node name "agents" does not end in a hyphen and an ordinal`,
		"-1":                `node name "-1" does not end in a hyphen and an ordinal`,
		"agents-":           `node name "agents-" ends in "", not in an ordinal`,
		"agents-node":       `node name "agents-node" ends in "node", not in an ordinal`,
		"agents-01":         `node name "agents-01" ends in "01", not in an ordinal`,
		"agents-+1":         `node name "agents-+1" ends in "+1", not in an ordinal`,
		"agents-1\t":        `node name "agents-1\t" ends in "1\t", not in an ordinal`,
		"agents-٣":          `node name "agents-٣" ends in "٣", not in an ordinal`,
		"agents-2147483648": `node name "agents-2147483648" ends in "2147483648", not in an ordinal`,
	} {
		if got, err := placement.Ordinal(node); err == nil || err.Error() != want {
			t.Errorf("Ordinal(%q): got %d, %v, want error %q", node, got, err, want)
		}
	}
}

func BenchmarkReplicas(b *testing.B) {
	for b.Loop() {
		placement.Replicas(17, 9, 3)
	}
}
