package controllers

import (
	"errors"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// lastingPass is what one of several passes saw, so long after the first.
type lastingPass struct {
	after  time.Duration
	change func(*observed)
	want   lasting
}

func TestWhatPassesIsNoFault(t *testing.T) {
	led, leaderless := shards(4, 4), shards(4, 3)
	silent := func(s *observed) { leaderless(s); s.nodes[2].err = errors.New("timeout") }
	starting := func(s *observed) { leaderless(s); notReady(1, time.Second)(s) }
	ending := func(s *observed) { leaderless(s); s.leaving, s.nodes = []corev1.Pod{s.nodes[2].pod}, s.nodes[:2] }
	gone := func(ordinal int) func(*observed) {
		return func(s *observed) { s.nodes = slices.Delete(s.nodes, ordinal, ordinal+1) }
	}
	said := lasting{leaderless: "1 of 4 shards"}
	tests := map[string][]lastingPass{
		"all is well":                 {{after: 0, change: led}, {after: time.Hour, change: led}},
		"a leader is elected":         {{after: 0, change: leaderless}, {after: 10 * time.Second, change: led}, {after: 2 * time.Minute, change: leaderless}},
		"no leader is elected":        {{after: 0, change: leaderless}, {after: time.Minute, change: leaderless}, {61 * time.Second, leaderless, said}, {time.Hour, leaderless, said}, {after: 2 * time.Hour, change: led}},
		"elections, and nobody looks": {{after: 0, change: leaderless}, {after: 10 * time.Second, change: silent}, {after: 2 * time.Minute, change: leaderless}},
		"a node is silent":            {{after: 0, change: silent}, {after: time.Hour, change: silent}},
		"a node starts":               {{after: 0, change: starting}, {after: time.Hour, change: starting}},
		"a node ends":                 {{after: 0, change: ending}, {after: time.Hour, change: ending}},
		"no leader is elected, and then a node is silent": {
			{after: 0, change: leaderless}, {2 * time.Minute, leaderless, said}, {3 * time.Minute, silent, said}, {after: 4 * time.Minute, change: led}, {after: 5 * time.Minute, change: silent},
		},
		"a pod is made":       {{after: 0, change: gone(2)}, {after: 50 * time.Second, change: led}, {after: 2 * time.Minute, change: gone(2)}},
		"one after another":   {{after: 0, change: gone(2)}, {after: 50 * time.Second, change: gone(1)}, {after: 100 * time.Second, change: gone(0)}},
		"a pod is not made":   {{after: 0, change: gone(1)}, {after: time.Minute, change: gone(1)}, {61 * time.Second, gone(1), lasting{missing: []string{"agents-node-1"}}}, {after: 62 * time.Second, change: led}},
		"a pod ends for long": {{after: 0, change: ending}, {after: time.Hour, change: ending}},
		"nobody makes pods": {
			{after: 0, change: func(s *observed) { s.workload, s.nodes = nil, nil }}, {after: time.Hour, change: func(s *observed) { s.workload, s.nodes = nil, nil }},
		},
		"there are many": {
			{after: 0, change: func(s *observed) { s.workload.Spec.Replicas = new(int32(12)) }},
			{2 * time.Minute, func(s *observed) { s.workload.Spec.Replicas = new(int32(12)) }, lasting{missing: []string{
				"agents-node-3", "agents-node-4", "agents-node-5", "agents-node-6", "agents-node-7", "agents-node-8", "agents-node-9", "agents-node-10", "agents-node-11",
			}}},
		},
	}
	for name, passes := range tests {
		t.Run(name, func(t *testing.T) {
			h := &hubMemory{}
			for _, p := range passes {
				seen := settled(func(s *observed) { s.workload.Name, s.workload.Spec.Replicas = "agents-node", new(int32(3)) }, p.change)
				seen.now = testNow.Add(p.after)
				if got := h.lasting(seen); got.leaderless != p.want.leaderless || !slices.Equal(got.missing, p.want.missing) {
					t.Errorf("after %s: %+v, want %+v", p.after, got, p.want)
				}
			}
		})
	}
}
