package controllers

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

// rollout is the next step of replacing nodes that run an earlier pod template.
type rollout struct {
	outdated int           // nodes that do
	evict    string        // the pod to replace now, or none
	waiting  string        // what the next one waits for
	stuck    string        // why waiting won't help; a change of the spec does
	blocked  bool          // stuck, whatever else goes on: Kubernetes makes no pod
	after    time.Duration // when to look again, if not sooner; 0: as always
}

// rolloutView is what planRollout decides by.
type rolloutView struct {
	want      int32 // nodes
	seen      bool  // Kubernetes has acted on the newest pod template
	byHand    bool  // the person deletes pods, not the operator
	delay     time.Duration
	now       time.Time
	nodes     []rolloutNode // by ordinal, without those being deleted
	unsettled string        // why no node may stop now; empty: any one may
	// lowestFirst: the nodes get volumes that they had not. Of pods without the
	// volume of the template the StatefulSet controller reports a fault, and makes
	// no pod with a higher ordinal.
	lowestFirst bool
	blocked     string // why it makes none of one that is missing, and what to do; empty: it does
}

// rolloutNode is one pod.
type rolloutNode struct {
	name     string
	outdated bool
	ready    bool
	since    time.Time // of its being ready
	dead     bool      // its container does not run: it holds nothing in memory
	failing  string    // why it does not work, or may yet be starting
}

// planRollout returns the next step. One node is replaced at a time, the highest
// ordinal first, when all the others are ready and every shard is whole. A node
// that does not work is replaced before those that do, so that a fault is mended
// by the same change that brings the next version, or the one before.
func planRollout(v rolloutView) rollout {
	var r rollout
	ready := 0
	for i := range v.nodes {
		if v.nodes[i].outdated {
			r.outdated++
		}
		if v.nodes[i].ready {
			ready++
		}
	}
	switch {
	case !v.seen || r.outdated == 0:
		return r
	case v.byHand:
		r.waiting = fmt.Sprintf("%d of %d nodes run an earlier pod template until their pods are deleted: spec.updates.strategy is OnDelete", r.outdated, len(v.nodes))
		return r
	}
	first := slices.IndexFunc(v.nodes, func(n rolloutNode) bool { return n.outdated })
	for i, n := range slices.Backward(v.nodes) {
		if v.lowestFirst && i > first {
			continue // no other would be made in its place
		}
		if n.outdated && !n.ready && (n.dead || n.failing != "" && ready == len(v.nodes)-1) {
			r.evict = n.name
			return r
		}
	}
	if v.blocked != "" {
		r.waiting, r.stuck, r.blocked = v.blocked, v.blocked, true
		return r
	}
	var last time.Time
	for _, n := range slices.Backward(v.nodes) {
		if !n.ready {
			r.waiting = n.name + " is not ready yet"
			if n.failing != "" {
				r.stuck = n.name + ": " + n.failing
			}
			return r
		}
		if !n.outdated && n.since.After(last) {
			last = n.since
		}
	}
	switch {
	case int32(len(v.nodes)) != v.want:
		r.waiting = fmt.Sprintf("%d of %d nodes exist", len(v.nodes), v.want)
		return r
	case v.unsettled != "":
		r.waiting = v.unsettled
		return r
	}
	if rest := last.Add(v.delay).Sub(v.now); !last.IsZero() && rest > 0 {
		r.waiting, r.after = fmt.Sprintf("the next node is replaced %s after the last one was ready", v.delay), rest
		return r
	}
	next := slices.Backward(v.nodes)
	if v.lowestFirst {
		next = slices.All(v.nodes)
	}
	for _, n := range next {
		if n.outdated {
			r.evict = n.name
			return r
		}
	}
	return r
}

// unsettled says why stopping a node could do harm now; empty: it can't.
func (o *observed) unsettled(want int32) string {
	for i := range o.nodes {
		n := &o.nodes[i]
		switch {
		case !n.ready:
			return n.pod.Name + " is not ready"
		case !n.answers():
			return n.pod.Name + " does not answer the operator"
		}
	}
	switch h := o.history(); {
	case int32(len(o.nodes)) < want:
		return fmt.Sprintf("%d of %d nodes exist", len(o.nodes), want)
	case h.Led < h.Shards:
		return fmt.Sprintf("%d of %d shards have no leader", h.Shards-h.Led, h.Shards)
	case h.Whole < h.Shards:
		return fmt.Sprintf("%d of %d shards wait for replicas to catch up", h.Shards-h.Whole, h.Shards)
	}
	return ""
}

// rolloutView gathers what a rollout is decided by.
func (o *observed) rolloutView(hub *switchboardv1alpha1.Hub) rolloutView {
	want := manifests.Replicas(hub)
	if o.workload != nil && o.lacksVolume(hub) != "" && want > 0 {
		want, _ = o.asked() // which stays until all have theirs
	}
	v := rolloutView{
		want: want, now: o.now, delay: hub.Spec.Updates.Delay.Duration,
		byHand:    hub.Spec.Updates.Strategy == switchboardv1alpha1.UpdateOnDelete,
		unsettled: o.unsettled(want),
	}
	sts := o.workload
	if sts == nil {
		return v
	}
	v.seen = sts.Status.ObservedGeneration >= sts.Generation && sts.Status.UpdateRevision != ""
	for i := range o.nodes {
		pod := &o.nodes[i].pod
		n := rolloutNode{
			name: pod.Name, ready: o.nodes[i].ready, failing: whyFailing(pod, o.now), dead: dead(pod, o.now),
			outdated: pod.Labels[appsv1.StatefulSetRevisionLabel] != sts.Status.UpdateRevision,
		}
		if c := podCondition(pod, corev1.PodReady); c != nil {
			n.since = c.LastTransitionTime.Time
		}
		v.nodes = append(v.nodes, n)
	}
	slices.SortStableFunc(v.nodes, func(a, b rolloutNode) int { return cmp.Compare(ordinalOf(a.name), ordinalOf(b.name)) })
	if lacks := o.lacksVolume(hub); lacks != "" && templateSize(sts) != nil {
		v.lowestFirst, v.blocked = true, o.blocked(hub, lacks, want)
	}
	return v
}

// lacksVolume returns the pod with the lowest ordinal that has no volume though the Hub
// wants one for each, or nothing.
func (o *observed) lacksVolume(hub *switchboardv1alpha1.Hub) (pod string) {
	if manifests.VolumeSize(hub) == nil {
		return ""
	}
	for i := range o.nodes {
		n := &o.nodes[i].pod
		if !manifests.HasVolume(n) && (pod == "" || ordinalOf(n.Name) < ordinalOf(pod)) {
			pod = n.Name
		}
	}
	return pod
}

// blocked says which pod is missing behind the one that lacks its volume, and what to
// do; nothing when all are there. The disruption budget refuses an eviction then, and
// rightly so: with one node away, another one may take the majority of what is in memory.
func (o *observed) blocked(hub *switchboardv1alpha1.Hub, lacks string, want int32) string {
	for i := ordinalOf(lacks) + 1; i < want; i++ {
		name := fmt.Sprintf("%s-%d", manifests.NodeName(hub), i)
		if o.node(name) != nil {
			continue
		}
		return fmt.Sprintf("%[1]s is missing, and Kubernetes does not make it while %[2]s has no volume. To lose nothing of what topics keep, remove spec.storage.size until all nodes are ready again; where no topic keeps history: kubectl delete pod %[2]s -n %[3]s",
			name, lacks, hub.Namespace)
	}
	return ""
}

// dead reports whether a pod's container has not come to run, or has ended. One that has
// never run and is not ready after long waits for what it mounts, or for its image:
// nothing is lost with it, and the next one is made from the newest template.
func dead(pod *corev1.Pod, now time.Time) bool {
	for _, cs := range pod.Status.ContainerStatuses {
		if cs.State.Running != nil {
			return false
		}
	}
	neverRan := len(pod.Status.ContainerStatuses) > 0 && !hasRun(pod)
	return whyDead(pod) != "" || neverRan && whyNotReady(pod, now) != ""
}

// hasRun reports whether a container of a pod runs or has run.
func hasRun(pod *corev1.Pod) bool {
	return slices.ContainsFunc(slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses), func(cs corev1.ContainerStatus) bool {
		return cs.State.Running != nil || cs.State.Terminated != nil || cs.LastTerminationState.Terminated != nil || cs.RestartCount > 0
	})
}

// replaceOutdated takes the next step of a rollout. The pod is evicted rather
// than deleted, so that the disruption budget has the last word: two nodes never
// go at the same time, whoever asks.
func (r *HubReconciler) replaceOutdated(ctx context.Context, p *pass) error {
	p.seen.rollout = planRollout(p.seen.rolloutView(p.hub))
	name := p.seen.rollout.evict
	if name == "" {
		return nil
	}
	pod := &corev1.Pod{}
	for i := range p.seen.nodes {
		if p.seen.nodes[i].pod.Name == name {
			pod = p.seen.nodes[i].pod.DeepCopy()
		}
	}
	eviction := &policyv1.Eviction{DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}}}
	err := r.SubResource("eviction").Create(ctx, pod, eviction, client.FieldOwner(FieldOwner))
	switch {
	case apierrors.IsTooManyRequests(err):
		p.seen.rollout.waiting = "the disruption budget lets no node go now"
	case apierrors.IsNotFound(err), apierrors.IsConflict(err): // it went by itself
	case err != nil:
		return fmt.Errorf("replace outdated nodes: evict pod %s: %w", name, err)
	default:
		log.FromContext(ctx).Info("Evicted", "pod", name, "outdated", p.seen.rollout.outdated)
		r.tell(p.hub, notice{corev1.EventTypeNormal, switchboardv1alpha1.ReasonReplacingNode, fmt.Sprintf("%s is replaced; %d of %d nodes run an earlier pod template", name, p.seen.rollout.outdated, len(p.seen.nodes))})
	}
	return nil
}
