package controllers

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

// scale is how many nodes a pass aims at. The settings tell nodes among how many
// of them topics have their homes; the StatefulSet runs them. They differ while
// a Hub grows or shrinks: a home has to run before topics move to it, and
// topics have to move before their home goes.
type scale struct {
	settings, workload int32
	waiting            string // what the other one waits for; empty when they agree
}

// scaleView is what planScale decides by.
type scaleView struct {
	want    int32 // by the spec
	exists  bool  // there is a StatefulSet, and settings
	running int32 // what the StatefulSet is asked for
	homes   int32 // what the settings say
	ready   int32 // ready pods among those with ordinals below want
	applied bool  // every ready node runs the settings for want
	moving  int   // shards that some node knows to be not where the settings want them
}

// planScale returns the next step from what is to what is wanted.
func planScale(v scaleView) scale {
	switch {
	case !v.exists, v.want == 0, v.homes == 0: // nobody to wait for, or to move to
		return scale{settings: v.want, workload: v.want}
	case v.want > v.homes && v.ready < v.want:
		return scale{
			settings: v.homes, workload: v.want,
			waiting: fmt.Sprintf("%d of %d nodes are ready; topics move to the new ones when all are", v.ready, v.want),
		}
	case v.running > v.want && (v.homes != v.want || !v.applied):
		return scale{
			settings: v.want, workload: v.running,
			waiting: fmt.Sprintf("nodes learn that %d of %d remain", v.want, v.running),
		}
	case v.running > v.want && v.moving > 0:
		return scale{
			settings: v.want, workload: v.running,
			waiting: fmt.Sprintf("the %d nodes that remain take over the others' topics: %d shards are on their way", v.want, v.moving),
		}
	default:
		return scale{settings: v.want, workload: v.want}
	}
}

// decideScale plans the pass's scale by what was seen.
func (r *HubReconciler) decideScale(ctx context.Context, p *pass) error {
	v := scaleView{want: manifests.Replicas(p.hub)}
	written, exist, err := r.writtenSettings(ctx, p.hub)
	if err != nil {
		return err
	}
	settings, parseErr := config.Parse(written)
	if running, exists := p.seen.asked(); exist && parseErr == nil && exists {
		v.exists = true
		p.seen.servesTLS = settings.TLS.Clients != config.TLSDisabled
		p.seen.requiresClusterTLS = settings.TLS.Cluster == config.TLSRequired
		v.running = running
		v.homes = int32(settings.Replicas)
		v.ready, v.applied, v.moving = p.seen.progress(v.want, configHash(written))
	}
	p.seen.scale = planScale(v)
	return nil
}

// asked is how many nodes the StatefulSet is asked for, or was until it was deleted
// to be made again.
func (o *observed) asked() (replicas int32, exists bool) {
	if o.workload != nil && o.workload.Spec.Replicas != nil {
		return *o.workload.Spec.Replicas, true
	}
	for i := range o.nodes {
		replicas = max(replicas, ordinalOf(o.nodes[i].pod.Name)+1)
	}
	return replicas, len(o.nodes) > 0
}

// progress counts the ready pods among the first want, and reports whether
// every ready node runs the settings with this hash, and how many shards one of
// them knows to be not where they belong.
func (o *observed) progress(want int32, hash string) (ready int32, applied bool, moving int) {
	applied = true
	for i := range o.nodes {
		n := &o.nodes[i]
		if !n.ready {
			continue
		}
		if n.err != nil || n.report.ConfigHash != hash {
			applied = false
		}
		moving = max(moving, n.report.ShardsUnsettled)
		if ordinalOf(n.pod.Name) < want {
			ready++
		}
	}
	return ready, applied, moving
}

// ordinalOf returns the number that a StatefulSet put behind the last hyphen of
// its pod's name.
func ordinalOf(pod string) int32 {
	n, err := strconv.ParseInt(pod[strings.LastIndexByte(pod, '-')+1:], 10, 32)
	if err != nil {
		return math.MaxInt32 // not a StatefulSet's pod: none that is wanted
	}
	return int32(n)
}

// hurrySettings makes the kubelet look at the pods whose nodes run old settings.
// It would refresh a ConfigMap's volume at its next look, up to a minute later;
// a changed annotation makes it look at once. The annotation is not in the pod
// template, where it would restart the pod.
func (r *HubReconciler) hurrySettings(ctx context.Context, p *pass) error {
	for i := range p.seen.nodes {
		n := &p.seen.nodes[i]
		if !n.ready || n.err != nil || n.report.ConfigHash == p.seen.configHash || n.pod.Annotations[manifests.AnnotationConfigHash] == p.seen.configHash {
			continue
		}
		if err := r.hurry(ctx, n, manifests.AnnotationConfigHash, p.seen.configHash); err != nil {
			return err
		}
	}
	return nil
}

// hurry makes the kubelet look at a pod, and at what is mounted in it, by an annotation.
func (r *HubReconciler) hurry(ctx context.Context, n *observedNode, annotation, value string) error {
	pod := n.pod.DeepCopy()
	if pod.Annotations == nil {
		pod.Annotations = make(map[string]string)
	}
	pod.Annotations[annotation] = value
	err := r.Patch(ctx, pod, client.MergeFrom(&n.pod), client.FieldOwner(FieldOwner))
	if err != nil && !apierrors.IsNotFound(err) { // it may be gone by now
		return fmt.Errorf("annotate pod %s: %w", pod.Name, err)
	}
	n.pod.Annotations = pod.Annotations
	return nil
}
