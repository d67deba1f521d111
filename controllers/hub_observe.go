package controllers

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

// askAtOnce bounds how many nodes are asked at the same time.
const askAtOnce = 16

// observed is what a pass saw of a Hub; all that its status is computed from.
type observed struct {
	now time.Time
	// blind says that what there is could not be seen; err says why.
	blind bool
	// err is why the pass stopped; nil when all is applied.
	err error
	// configHash is the hash of the settings that nodes should run; empty when
	// there are none.
	configHash string
	// servesTLS: the settings that were written before this pass turn TLS on.
	servesTLS bool
	// scale is what the pass aims at.
	scale scale
	// rollout is what replacing nodes is at.
	rollout rollout
	// volumes is what there is of claims for history.
	volumes volumes
	// requiresClusterTLS: those settings let nodes link by TLS only.
	requiresClusterTLS bool
	// certificates is what there is of the nodes' certificate for clients.
	certificates certificates
	// authentication is what there is of what nodes know clients by.
	authentication authentication
	// cluster is what there is of the one that they know each other by.
	cluster clusterTLS
	// gossip is what there is of the gossip's keys.
	gossip gossip
	// update is what a change of the Hub would bring from this operator.
	update update
	// lasts is what has been wrong for long, of what is nothing when it passes.
	lasts lasting
	// workload is the StatefulSet, nil when there is none.
	workload *appsv1.StatefulSet
	// nodes are the pods that are not being deleted, by name.
	nodes []observedNode
	// leaving are the pods that are being deleted.
	leaving []corev1.Pod
	// topics are the Topics that refer to the Hub, the oldest first.
	topics []*claim
	// grants are the Grants that refer to the Hub, the oldest first.
	grants []*grantClaim
}

// observedNode is one pod, and what the node in it says when the pod is ready.
type observedNode struct {
	pod    corev1.Pod
	ready  bool
	report NodeReport
	// err is why there is no report of a ready node.
	err error
	// away is why the node, ready or not, is without what is on its disk, as far as it says.
	away string
	// asked says that the node was asked in this pass.
	asked bool
}

// answers reports whether the node is ready and has said how it is.
func (n *observedNode) answers() bool { return n.ready && n.err == nil && n.report.Hub != "" }

// lackCertificates reports whether some node's pod was made before there were
// certificates for it.
func (o *observed) lackCertificates() bool {
	return slices.ContainsFunc(o.nodes, func(n observedNode) bool { return !manifests.HasCertificates(&n.pod) })
}

// history adds up what the nodes that answer say of the shards that they lead.
func (o *observed) history() (sum HistoryReport) {
	for i := range o.nodes {
		if n := &o.nodes[i]; n.answers() {
			sum.Shards = max(sum.Shards, n.report.History.Shards)
			sum.Led += n.report.History.Led
			sum.Whole += n.report.History.Whole
		}
	}
	return sum
}

// remember takes over what the node said earlier in the pass.
func (n *observedNode) remember(before []observedNode) {
	for i := range before {
		if b := &before[i]; b.asked && b.pod.UID == n.pod.UID {
			n.report, n.err, n.away, n.asked = b.report, b.err, b.away, true
		}
	}
}

// configHash is how operator and nodes name a version of the settings.
func configHash(rendered []byte) string {
	sum := sha256.Sum256(rendered)
	return hex.EncodeToString(sum[:])
}

// observeSettings finds out which settings the nodes should run, of a Hub whose
// settings are left as they are.
func (r *HubReconciler) observeSettings(ctx context.Context, p *pass) error {
	settings, exist, err := r.writtenSettings(ctx, p.hub)
	if exist {
		p.seen.configHash = configHash(settings)
	}
	return err
}

// writtenSettings returns the settings that the Hub's ConfigMap holds, if there is one.
func (r *HubReconciler) writtenSettings(ctx context.Context, hub *switchboardv1alpha1.Hub) (settings []byte, exist bool, err error) {
	live := &corev1.ConfigMap{}
	err = r.Get(ctx, client.ObjectKey{Namespace: hub.Namespace, Name: manifests.ConfigMapName(hub)}, live)
	if client.IgnoreNotFound(err) != nil {
		return nil, false, fmt.Errorf("read the ConfigMap: %w", err)
	}
	text, exist := live.Data[manifests.ConfigKey]
	return []byte(text), exist, nil
}

// observe looks at the workload and its pods and asks the ready nodes. Pods that
// nobody controls are the Hub's, too, while its workload is made again.
func (r *HubReconciler) observe(ctx context.Context, p *pass) error {
	workload := &appsv1.StatefulSet{}
	err := r.Get(ctx, client.ObjectKey{Namespace: p.hub.Namespace, Name: manifests.NodeName(p.hub)}, workload)
	switch {
	case apierrors.IsNotFound(err):
		workload = nil
	case err != nil:
		return fmt.Errorf("read the StatefulSet: %w", err)
	case !metav1.IsControlledBy(workload, p.hub):
		return nil // somebody else's; applying it has said so
	}
	p.seen.workload = workload

	pods := &corev1.PodList{}
	err = r.List(ctx, pods, ofHub(p.hub)...)
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	before := p.seen.nodes
	p.seen.nodes, p.seen.leaving = nil, nil
	for _, pod := range pods.Items {
		owner := metav1.GetControllerOf(&pod)
		ours := workload != nil && owner != nil && owner.UID == workload.UID
		orphaned := owner == nil && strings.HasPrefix(pod.Name, manifests.NodeName(p.hub)+"-")
		switch {
		case !ours && !orphaned:
		case !pod.DeletionTimestamp.IsZero():
			p.seen.leaving = append(p.seen.leaving, pod)
		default:
			n := observedNode{pod: pod, ready: podReady(&pod)}
			n.remember(before)
			p.seen.nodes = append(p.seen.nodes, n)
		}
	}
	slices.SortFunc(p.seen.nodes, func(a, b observedNode) int { return cmp.Compare(a.pod.Name, b.pod.Name) })
	r.askNodes(ctx, manifests.Identity(p.hub), p.seen.nodes, p.seen.now)
	if err := ctx.Err(); err != nil { // those who were still asked might have answered
		return fmt.Errorf("ask the nodes: %w", err)
	}
	return nil
}

// askNodes fills in the ready nodes' reports. That one does not answer is an
// observation, not an error. A node that has not been ready for long is asked for the
// reason only, and need not answer.
func (r *HubReconciler) askNodes(ctx context.Context, identity string, nodes []observedNode, now time.Time) {
	var g errgroup.Group
	g.SetLimit(askAtOnce)
	for i := range nodes {
		node := &nodes[i]
		late := whyNotReady(&node.pod, now) != "" && whyDead(&node.pod) == "" && !unheard(&node.pod)
		if !node.ready && !late || node.asked || node.pod.Status.PodIP == "" {
			continue
		}
		node.asked = true
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
			defer cancel()
			report, err := r.Nodes.Status(ctx, node.pod.Status.PodIP)
			if err == nil && report.Hub != identity {
				// A pod's address is used again by others once the pod is gone.
				err = fmt.Errorf("%s answers for hub %q", node.pod.Status.PodIP, report.Hub)
			}
			if err != nil {
				log.FromContext(ctx).V(1).Info("No answer from a node", "pod", node.pod.Name, "error", err.Error())
			}
			if err == nil && report.Disk != nil {
				node.away = report.Disk.Away
			}
			if node.ready {
				node.report, node.err = report, err
			}
			return nil
		})
	}
	_ = g.Wait() // no goroutine returns an error
}

func podReady(pod *corev1.Pod) bool {
	c := podCondition(pod, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

func podCondition(pod *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == t {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}
