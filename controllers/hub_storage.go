package controllers

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/switchboardhub/switchboard/controllers/manifests"
)

// volumes is what a pass saw of the claims for history.
type volumes struct {
	listed  bool
	largest *resource.Quantity // that was asked for
	refused []string           // claims that may not grow, and why
	growing []string           // claims of nodes whose volumes are not yet as large as asked for
}

// growVolumes asks for larger volumes where the spec does. What the API server
// refuses is an observation: it knows whether the storage class lets volumes
// grow, and the quota.
func (r *HubReconciler) growVolumes(ctx context.Context, p *pass) error {
	claims := &corev1.PersistentVolumeClaimList{}
	if err := r.List(ctx, claims, ofHub(p.hub)...); err != nil {
		return fmt.Errorf("list claims: %w", err)
	}
	p.seen.volumes = volumes{listed: true}
	want := manifests.VolumeSize(p.hub)
	for i := range claims.Items {
		claim := &claims.Items[i]
		if want != nil && claim.DeletionTimestamp.IsZero() && requested(claim).Cmp(*want) < 0 {
			if err := r.grow(ctx, p, claim, *want); err != nil {
				return err
			}
		}
		p.seen.volumes.add(claim, p.seen.mounts(claim.Name))
	}
	return nil
}

// mounts says whether a pod of the Hub has the claim, which only claims of nodes that
// were scaled away are without.
func (o *observed) mounts(claim string) bool {
	uses := func(pod *corev1.Pod) bool {
		return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
			return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim
		})
	}
	return slices.ContainsFunc(o.nodes, func(n observedNode) bool { return uses(&n.pod) }) ||
		slices.ContainsFunc(o.leaving, func(pod corev1.Pod) bool { return uses(&pod) })
}

func (r *HubReconciler) grow(ctx context.Context, p *pass, claim *corev1.PersistentVolumeClaim, size resource.Quantity) error {
	grown := claim.DeepCopy()
	grown.Spec.Resources.Requests[corev1.ResourceStorage] = size
	err := r.Patch(ctx, grown, client.MergeFrom(claim), client.FieldOwner(FieldOwner))
	switch {
	case missingPermission(err):
		return fmt.Errorf("grow claim %s: %w", claim.Name, err)
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
		p.seen.volumes.refused = append(p.seen.volumes.refused, claim.Name+": "+err.Error())
	case apierrors.IsNotFound(err): // it went meanwhile
	case err != nil:
		return fmt.Errorf("grow claim %s: %w", claim.Name, err)
	default:
		log.FromContext(ctx).Info("Grown", "claim", claim.Name, "from", requested(claim).String(), "to", size.String())
		*claim = *grown
	}
	return nil
}

// add takes a claim into account. A volume grows to its end only where it is mounted.
func (v *volumes) add(claim *corev1.PersistentVolumeClaim, mounted bool) {
	asked := requested(claim)
	if v.largest == nil || asked.Cmp(*v.largest) > 0 {
		v.largest = asked
	}
	has, known := claim.Status.Capacity[corev1.ResourceStorage]
	if !mounted || !known || has.Cmp(*asked) >= 0 {
		return
	}
	said := claim.Name
	if slices.ContainsFunc(claim.Status.Conditions, func(c corev1.PersistentVolumeClaimCondition) bool {
		return c.Type == corev1.PersistentVolumeClaimFileSystemResizePending && c.Status == corev1.ConditionTrue
	}) {
		said += " grows when its pod is replaced"
	}
	v.growing = append(v.growing, said)
}

func requested(claim *corev1.PersistentVolumeClaim) *resource.Quantity {
	q := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	return &q
}

// trouble says what is wrong with the claims, or nothing.
func (v *volumes) trouble() string {
	return said(v.refused, "volumes can't grow; all else is applied. Set spec.storage.size back to "+v.size()+", or let the storage class expand volumes (allowVolumeExpansion): %s")
}

func (v *volumes) size() string {
	if v.largest == nil {
		return "what it was"
	}
	return v.largest.String()
}
