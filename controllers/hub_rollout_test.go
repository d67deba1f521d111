package controllers

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
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
		"so does one that fails among them: no other would be made": {
			with(view(node("a", outdated), node("b", outdated), node("c", crashing, outdated)), func(v *rolloutView) { v.lowestFirst = true }),
			rollout{outdated: 3, waiting: "c is not ready yet", stuck: "c: CrashLoopBackOff"},
		},
		"of nodes that get volumes and all fail the lowest goes": {
			with(view(node("a", crashing, outdated), node("b", crashing, outdated)), func(v *rolloutView) { v.lowestFirst = true }),
			rollout{outdated: 2, evict: "a"},
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

// Of pods without the volume of the template the StatefulSet controller makes none with a
// higher ordinal, whatever the operator waits for.
func TestNodesThatGetVolumesWhileOneIsMissing(t *testing.T) {
	hub := func(replicas int32) *switchboardv1alpha1.Hub {
		return &switchboardv1alpha1.Hub{
			ObjectMeta: metav1.ObjectMeta{Name: "agents", Namespace: "default"},
			Spec:       switchboardv1alpha1.HubSpec{Replicas: &replicas, Storage: &switchboardv1alpha1.StorageSpec{Size: new(resource.MustParse("1Gi"))}},
		}
	}
	node := func(ordinal int, volume bool) observedNode {
		n := observedNode{ready: true, report: NodeReport{Hub: "h"}}
		n.pod.Name, n.pod.Labels = fmt.Sprintf("agents-node-%d", ordinal), map[string]string{appsv1.StatefulSetRevisionLabel: "old"}
		if volume {
			n.pod.Spec.Volumes = []corev1.Volume{{Name: "history"}}
			n.pod.Labels[appsv1.StatefulSetRevisionLabel] = "new"
		}
		return n
	}
	eleven := []observedNode{node(0, true), node(1, true), node(10, false)} // by name
	for i := 2; i < 10; i++ {
		eleven = append(eleven, node(i, false))
	}
	for name, tt := range map[string]struct {
		hub           *switchboardv1alpha1.Hub
		nodes         []observedNode
		evict         string
		stuck, delete string // the pods that it names
	}{
		"all are there":                         {hub: hub(3), nodes: []observedNode{node(0, false), node(1, false), node(2, false)}, evict: "agents-node-0"},
		"the last one is lost":                  {hub: hub(3), nodes: []observedNode{node(0, false), node(1, false)}, stuck: "agents-node-2", delete: "agents-node-0"},
		"one is lost on the way":                {hub: hub(3), nodes: []observedNode{node(0, true), node(1, false)}, stuck: "agents-node-2", delete: "agents-node-1"},
		"the one that is replaced comes":        {hub: hub(3), nodes: []observedNode{node(1, false), node(2, false)}},
		"more are wanted, once all have theirs": {hub: hub(5), nodes: []observedNode{node(0, false), node(1, false), node(2, false)}, evict: "agents-node-0"},
		"fewer are wanted, likewise":            {hub: hub(1), nodes: []observedNode{node(0, true), node(1, false), node(2, false)}, evict: "agents-node-1"},
		"the tenth is not before the second":    {hub: hub(11), nodes: eleven, evict: "agents-node-2"},
		"all have theirs":                       {hub: hub(3), nodes: []observedNode{node(0, true), node(1, true)}},
	} {
		t.Run(name, func(t *testing.T) {
			o := observed{nodes: tt.nodes, workload: &appsv1.StatefulSet{
				Spec:   appsv1.StatefulSetSpec{Replicas: new(max(3, int32(len(tt.nodes)))), VolumeClaimTemplates: make([]corev1.PersistentVolumeClaim, 1)},
				Status: appsv1.StatefulSetStatus{UpdateRevision: "new", ObservedGeneration: 1, Replicas: int32(len(tt.nodes))},
			}}
			o.rollout = planRollout(o.rolloutView(tt.hub))
			if o.rollout.evict != tt.evict || (o.rollout.stuck != "") != (tt.stuck != "") {
				t.Errorf("the next step is %+v, want to evict %q and be stuck for %q", o.rollout, tt.evict, tt.stuck)
			}
			c := progressingCondition(tt.hub, &o, "")
			for _, want := range []string{tt.stuck + " is missing", "kubectl delete pod " + tt.delete + " ", "spec.storage.size"} {
				if tt.stuck != "" && (c.Reason != switchboardv1alpha1.ReasonRolloutStuck || !strings.Contains(c.Message, want)) {
					t.Errorf("progressing: %+v, want it to say %q", c, want)
				}
			}
		})
	}
}

// A Secret or ConfigMap that is not there keeps containers from being made, for ever.
func TestPodsThatNeverRanAreReplaced(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	waiting := corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}}
	ran := corev1.ContainerStatus{LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1}}, State: waiting.State}
	running := corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	for name, tt := range map[string]struct {
		status   corev1.ContainerStatus
		since    time.Duration
		revision string
		evict    string
	}{
		"it waits for what it mounts":        {waiting, 2 * time.Minute, "old", "agents-node-2"},
		"it may yet be starting":             {waiting, 30 * time.Second, "old", ""},
		"it waits by the newest template":    {waiting, 2 * time.Minute, "new", ""},
		"it has run before":                  {ran, 2 * time.Minute, "old", ""},
		"it runs: there is something to ask": {running, 2 * time.Minute, "old", ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := observed{now: now, workload: &appsv1.StatefulSet{Status: appsv1.StatefulSetStatus{UpdateRevision: "new"}}}
			for i := range 3 {
				n := observedNode{pod: corev1.Pod{Status: corev1.PodStatus{
					Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.NewTime(now.Add(-tt.since))}},
					ContainerStatuses: []corev1.ContainerStatus{tt.status},
				}}}
				n.pod.Name, n.pod.Labels = fmt.Sprintf("agents-node-%d", i), map[string]string{appsv1.StatefulSetRevisionLabel: tt.revision}
				o.nodes = append(o.nodes, n)
			}
			if got := planRollout(o.rolloutView(&switchboardv1alpha1.Hub{})); got.evict != tt.evict {
				t.Errorf("the next step is %+v, want to evict %q", got, tt.evict)
			}
		})
	}
}
