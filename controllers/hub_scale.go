package controllers

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
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
	want    int32  // by the spec
	exists  bool   // there is a StatefulSet, or what it left on volumes, and settings
	disk    bool   // the nodes keep what they have while they are stopped
	running int32  // what the StatefulSet is asked for
	homes   int32  // what the settings say
	ready   int32  // ready pods among those with ordinals below want
	applied bool   // every ready node runs the settings for want
	moving  int    // shards that some node knows to be not where the settings want them
	volumes string // the pod that lacks its volume; empty: none
	unknown string // why it is not known where all topics are; empty: it is
}

// planScale returns the next step from what is to what is wanted.
func planScale(v scaleView) scale {
	switch {
	case !v.exists, v.homes == 0, !v.disk && (v.want == 0 || v.running == 0): // nobody to wait for, or to move to
		return scale{settings: v.want, workload: v.want}
	case v.want == 0: // who starts it again has to know whose volumes topics are on, also in the middle of a step
		return scale{settings: max(v.homes, v.running), workload: 0}
	case v.disk && v.want < v.homes && v.running < v.homes:
		return scale{
			settings: v.homes, workload: v.homes,
			waiting: fmt.Sprintf("topics are on the volumes of %d nodes: all of these start before topics move to the %d that remain", v.homes, v.want),
		}
	case v.volumes != "": // until it has, Kubernetes neither makes pods with higher ordinals nor takes any away
		return scale{
			settings: v.homes, workload: max(v.running, v.homes),
			waiting: waitsFor(v, v.volumes+" and those after it get their volumes first"),
		}
	case v.want > v.homes && v.ready < v.want:
		workload := v.want
		if !v.applied || v.moving > 0 || v.unknown != "" { // of a shrink that was under way, more may run
			workload = max(v.want, v.running)
		}
		return scale{
			settings: v.homes, workload: workload,
			waiting: fmt.Sprintf("%d of %d nodes are ready; topics move to the new ones when all are", v.ready, v.want),
		}
	case v.running > v.want && v.unknown != "":
		return scale{settings: v.homes, workload: v.running, waiting: v.unknown}
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

// waitsFor says what a change of the scale waits for, if there is one to come.
func waitsFor(v scaleView, what string) string {
	if v.homes == v.want && v.running == v.want {
		return ""
	}
	return fmt.Sprintf("of %d nodes %d are to be: %s", v.running, v.want, what)
}

// decideScale plans the pass's scale by what was seen.
func (r *HubReconciler) decideScale(ctx context.Context, p *pass) error {
	v := scaleView{want: manifests.Replicas(p.hub), disk: manifests.VolumeSize(p.hub) != nil}
	written, exist, err := r.writtenSettings(ctx, p.hub)
	if err != nil {
		return err
	}
	settings, parseErr := config.Parse(written)
	if running, exists := p.seen.asked(); exist && parseErr == nil && (exists || v.disk) {
		v.exists = true
		p.seen.servesTLS = settings.TLS.Clients != config.TLSDisabled
		p.seen.requiresClusterTLS = settings.TLS.Cluster == config.TLSRequired
		v.running = running
		v.homes = int32(settings.Replicas)
		v.ready, v.applied, v.moving = p.seen.progress(v.want, configHash(written))
		v.volumes = p.seen.lacksVolume(p.hub)
	}
	forgotten := v.disk && v.homes == 0 && v.running == 0
	if forgotten || v.running > v.want {
		claims := &corev1.PersistentVolumeClaimList{}
		if err := r.List(ctx, claims, ofHub(p.hub)...); err != nil {
			return fmt.Errorf("list claims: %w", err)
		}
		if forgotten {
			v.homes = homesByClaims(manifests.NodeName(p.hub), claims.Items)
			v.exists = v.homes > 0
		} else {
			v.unknown = p.seen.whereabouts(manifests.NodeName(p.hub), max(v.running, v.homes), claims.Items)
		}
	}
	p.seen.scale = planScale(v)
	return nil
}

// homesByClaims says of how many nodes there are volumes. Topics may be on all of them
// where no settings tell: the Hub was deleted and is made again, or it was stopped by an
// operator that did not keep the number.
func homesByClaims(prefix string, claims []corev1.PersistentVolumeClaim) int32 {
	for n := int32(config.MaxReplicas); n > 0; n-- {
		c := claimOf(claims, fmt.Sprintf("%s-%d", prefix, n-1))
		if c != nil && c.Status.Phase == corev1.ClaimBound && c.DeletionTimestamp.IsZero() {
			return n
		}
	}
	return 0
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

// whereabouts says why it is not known where all topics of so many nodes are, or
// nothing: where nobody is asked, "no shard is on its way" is true for lack of evidence.
// It asks for the word of each shard's leader, which alone knows the members
// for certain. Where shards have none, as those that never began, every node has to
// answer that may hold something.
func (o *observed) whereabouts(prefix string, nodes int32, claims []corev1.PersistentVolumeClaim) string {
	answering := slices.ContainsFunc(o.nodes, func(n observedNode) bool { return n.answers() })
	h := o.history()
	if answering && h.Led >= h.Shards {
		return ""
	}
	disk := templateSize(o.workload) != nil
	var silent []string
	for i := range nodes {
		name := fmt.Sprintf("%s-%d", prefix, i)
		if n := o.node(name); n == nil || !n.answers() {
			if mayHold(n, claimOf(claims, name), disk, o.now) {
				silent = append(silent, name)
			}
		}
	}
	if len(silent) == 0 {
		return ""
	}
	why := "no node answers"
	if answering {
		why = fmt.Sprintf("%d of %d shards have no leader that answers", h.Shards-h.Led, h.Shards)
	}
	giveUp := "stop the Hub with replicas: 0 before it starts with fewer, which gives up what they have in memory"
	if disk {
		giveUp = "if their disks are lost for good, delete their claims and pods, one after the other"
	}
	return fmt.Sprintf("no node goes before it is known where all topics are: %s. They may be on %s: bring these back (see the condition Degraded); or %s", why, enumerate(silent), giveUp)
}

// node returns the pod with the name, nil when there is none.
func (o *observed) node(name string) *observedNode {
	for i := range o.nodes {
		if o.nodes[i].pod.Name == name {
			return &o.nodes[i]
		}
	}
	return nil
}

// mayHold reports whether a node may hold artifacts that others lack: in the memory of
// a pod that may run, or on a volume. n is nil while there is no pod, claim when
// none is known; disk says that new pods have one.
func mayHold(n *observedNode, claim *corev1.PersistentVolumeClaim, disk bool, now time.Time) bool {
	bound := claim != nil && claim.Status.Phase == corev1.ClaimBound
	switch {
	case n == nil:
		return disk && bound
	case !manifests.HasVolume(&n.pod):
		return !dead(&n.pod, now)
	case claim == nil:
		return true // it is somebody's own, with whatever is on it
	case !bound:
		return false
	}
	return !dead(&n.pod, now) || hasRun(&n.pod) || !madeFor(claim, &n.pod)
}

func claimOf(claims []corev1.PersistentVolumeClaim, pod string) *corev1.PersistentVolumeClaim {
	for i := range claims {
		if claims[i].Name == manifests.HistoryClaimName(pod) {
			return &claims[i]
		}
	}
	return nil
}

// madeFor reports whether a pod is the first one with its claim: a StatefulSet makes
// the claim and then, at once, the pod.
func madeFor(claim *corev1.PersistentVolumeClaim, pod *corev1.Pod) bool {
	const atOnce = 2 * time.Second // timestamps are whole seconds
	age := pod.CreationTimestamp.Sub(claim.CreationTimestamp.Time)
	return age >= 0 && age <= atOnce
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
