package placement

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ShardOf returns the shard of a topic, from 0 to shards-1; 0 when shards is
// less than 2.
func ShardOf[S string | []byte](topic S, shards int) int {
	if shards < 2 {
		return 0
	}
	return int(mix(fnv1a(topic)) % uint64(shards))
}

// Replicas returns the ordinals of the nodes that hold a shard, the preferred
// one first, out of nodes nodes: as many as replicas asks for, fewer when there
// are not that many nodes, none when either is less than 1.
//
// When a node is added, it takes its share of the shards from the others and
// nothing else moves; the order among the others stays.
func Replicas(shard, nodes, replicas int) []int {
	replicas = min(replicas, nodes)
	if replicas < 1 {
		return nil
	}
	best := make([]candidate, 0, replicas+1)
	for ordinal := range nodes {
		c := candidate{ordinal: ordinal, weight: weight(shard, ordinal)}
		if len(best) == replicas && !c.before(best[replicas-1]) {
			continue
		}
		at := len(best)
		for at > 0 && c.before(best[at-1]) {
			at--
		}
		best = slices.Insert(best, at, c)[:min(len(best)+1, replicas)]
	}
	ordinals := make([]int, len(best))
	for i, c := range best {
		ordinals[i] = c.ordinal
	}
	return ordinals
}

// Ordinal returns the number at the end of a node's name, 12 for
// "agents-node-12". Only the form that a StatefulSet gives is taken: decimal
// digits without leading zeros, after a name and a hyphen.
func Ordinal(node string) (int, error) {
	at := strings.LastIndexByte(node, '-')
	if at < 1 {
		return 0, fmt.Errorf("node name %q does not end in a hyphen and an ordinal", node)
	}
	digits := node[at+1:]
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil || strconv.FormatInt(n, 10) != digits {
		return 0, fmt.Errorf("node name %q ends in %q, not in an ordinal", node, digits)
	}
	return int(n), nil
}

// candidate is a node with its rank for one shard.
type candidate struct {
	ordinal int
	weight  uint64
}

// before orders by weight, the highest first; the lower ordinal wins a tie.
func (c candidate) before(other candidate) bool {
	if c.weight != other.weight {
		return c.weight > other.weight
	}
	return c.ordinal < other.ordinal
}

// weight is the rendezvous hash of a shard and a node.
func weight(shard, ordinal int) uint64 {
	return mix(mix(uint64(shard)+1) ^ mix(^uint64(ordinal)))
}

// fnv1a is the 64-bit FNV-1a hash of a string; hash/fnv would allocate.
func fnv1a[S string | []byte](s S) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// mix spreads what its argument holds over all bits: the finalizer of
// SplitMix64. FNV alone leaves the low bits of similar names similar.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
