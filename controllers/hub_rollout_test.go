package controllers

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPlanRollout(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	node := func(name string, change ...func(*rolloutNode)) rolloutNode {
		n := rolloutNode{name: name, ready: true, since: now.Add(-time.Hour)}
		for _, c := range change {
			c(&n)
		}
		return n
	}
	outdated := func(n *rolloutNode) { n.outdated = true }
	starting := func(n *rolloutNode) { n.ready = false }
	failing := func(n *rolloutNode) { n.ready, n.failing = false, "not ready for more than 1m0s" }
	crashing := func(n *rolloutNode) { n.ready, n.dead, n.failing = false, true, "CrashLoopBackOff" }
	fresh := func(n *rolloutNode) { n.since = now.Add(-10 * time.Second) }
	view := func(nodes ...rolloutNode) rolloutView {
		return rolloutView{want: 3, seen: true, now: now, nodes: nodes}
	}
	with := func(v rolloutView, change func(*rolloutView)) rolloutView {
		change(&v)
		return v
	}
	tests := map[string]struct {
		view rolloutView
		want rollout
	}{
		"nothing is outdated": {
			view(node("a"), node("b"), node("c")), rollout{},
		},
		"the highest ordinal goes first": {
			view(node("a", outdated), node("b", outdated), node("c", outdated)), rollout{outdated: 3, evict: "c"},
		},
		"then the next, once the one before is ready": {
			view(node("a", outdated), node("b", outdated), node("c")), rollout{outdated: 2, evict: "b"},
		},
		"a new node that starts is waited for": {
			view(node("a", outdated), node("b", outdated), node("c", starting)), rollout{outdated: 2, waiting: "c is not ready yet"},
		},
		"a new node that fails stops the rollout": {
			view(node("a", outdated), node("b", outdated), node("c", crashing)),
			rollout{outdated: 2, waiting: "c is not ready yet", stuck: "c: CrashLoopBackOff"},
		},
		"a node that fails is replaced before those that work": {
			view(node("a", outdated), node("b", crashing, outdated), node("c", outdated)), rollout{outdated: 3, evict: "b"},
		},
		"going back replaces the one that the rollout was stuck at": {
			view(node("a"), node("b"), node("c", crashing, outdated)), rollout{outdated: 1, evict: "c"},
		},
		"all crash: each is replaced without waiting for the others": {
			view(node("a", crashing, outdated), node("b", crashing, outdated), node("c", starting)), rollout{outdated: 2, evict: "b"},
		},
		"nodes that run and are not ready keep what they hold in memory": {
			view(node("a", failing, outdated), node("b", failing, outdated), node("c")),
			rollout{outdated: 2, waiting: "b is not ready yet", stuck: "b: not ready for more than 1m0s"},
		},
		"one that runs and is not ready for long goes when all others are": {
			view(node("a", failing, outdated), node("b", outdated), node("c")), rollout{outdated: 2, evict: "a"},
		},
		"a pod is missing": {
			view(node("a", outdated), node("b", outdated)), rollout{outdated: 2, waiting: "2 of 3 nodes exist"},
		},
		"a pod too many: the Hub shrinks": {
			view(node("a", outdated), node("b"), node("c"), node("d")), rollout{outdated: 1, waiting: "4 of 3 nodes exist"},
		},
		"replicas that have not caught up are waited for": {
			with(view(node("a", outdated), node("b"), node("c")), func(v *rolloutView) { v.unsettled = "2 of 16 shards wait" }),
			rollout{outdated: 1, waiting: "2 of 16 shards wait"},
		},
		"a delay is waited for": {
			with(view(node("a", outdated), node("b"), node("c", fresh)), func(v *rolloutView) { v.delay = time.Minute }),
			rollout{outdated: 1, waiting: "the next node is replaced 1m0s after the last one was ready", after: 50 * time.Second},
		},
		"before the first one there is no delay": {
			with(view(node("a", outdated), node("b", outdated, fresh), node("c", outdated)), func(v *rolloutView) { v.delay = time.Minute }),
			rollout{outdated: 3, evict: "c"},
		},
		"nodes that get volumes go the lowest ordinal first": {
			with(view(node("a"), node("b", outdated), node("c", outdated)), func(v *rolloutView) { v.lowestFirst = true }),
			rollout{outdated: 2, evict: "b"},
		},
		"Kubernetes has not seen the new template": {
			with(view(node("a", outdated), node("b"), node("c")), func(v *rolloutView) { v.seen = false }), rollout{outdated: 1},
		},
		"a person replaces nodes": {
			with(view(node("a", outdated), node("b"), node("c")), func(v *rolloutView) { v.byHand = true }),
			rollout{outdated: 1, waiting: "1 of 3 nodes run an earlier pod template until their pods are deleted: spec.updates.strategy is OnDelete"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, planRollout(tt.view), cmp.AllowUnexported(rollout{})); diff != "" {
				t.Errorf("the next step (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSafeToRestart(t *testing.T) {
	ready := func(name string, shards, led, whole int) observedNode {
		n := observedNode{ready: true, report: NodeReport{Hub: "h", History: HistoryReport{Shards: shards, Led: led, Whole: whole}}}
		n.pod.Name = name
		return n
	}
	tests := map[string]struct {
		nodes []observedNode
		want  string
	}{
		"no history":                 {[]observedNode{ready("a", 0, 0, 0), ready("b", 0, 0, 0)}, ""},
		"every shard is whole":       {[]observedNode{ready("a", 4, 1, 1), ready("b", 4, 3, 3)}, ""},
		"a shard without a leader":   {[]observedNode{ready("a", 4, 1, 1), ready("b", 4, 2, 2)}, "1 of 4 shards have no leader"},
		"a replica that is behind":   {[]observedNode{ready("a", 4, 1, 1), ready("b", 4, 3, 1)}, "2 of 4 shards wait for replicas to catch up"},
		"a node that is not ready":   {[]observedNode{ready("a", 0, 0, 0), {pod: corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "b"}}}}, "b is not ready"},
		"a node that says nothing":   {[]observedNode{ready("a", 0, 0, 0), {ready: true, pod: corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "b"}}}}, "b does not answer the operator"},
		"a node that does not exist": {[]observedNode{ready("a", 0, 0, 0)}, "1 of 2 nodes exist"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := (&observed{nodes: tt.nodes}).unsettled(2); got != tt.want {
				t.Errorf("unsettled = %q, want %q", got, tt.want)
			}
		})
	}
}
