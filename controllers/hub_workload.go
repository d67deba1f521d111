package controllers

import (
	"context"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

// applyStatefulSet applies the workload. Where that changes what a StatefulSet
// can't change, it is made again around its pods.
func (r *HubReconciler) applyStatefulSet(ctx context.Context, p *pass) error {
	live := p.seen.workload
	if live != nil && !live.DeletionTimestamp.IsZero() {
		return nil // it goes, and its pods stay; then a new one is made
	}
	hub := p.hub
	if size := templateSize(live); size != nil && len(p.seen.volumes.refused) > 0 {
		hub = hub.DeepCopy()
		hub.Spec.Storage.Size = size // new nodes are like those that can't grow
	}
	desired := manifests.StatefulSet(hub, r.NodeImage)
	desired.Spec.WithReplicas(p.seen.scale.workload)
	if live == nil {
		kept, err := r.keepRevision(ctx, p, desired)
		if err != nil {
			return err
		}
		if at := p.seen.restartedByKubectl(); !kept && at != "" {
			return r.createRestarted(ctx, desired, at)
		}
	}
	known := r.memory.of(client.ObjectKeyFromObject(p.hub))
	var now agreement
	if live != nil {
		var err error
		if now, err = agreementOn(live.ResourceVersion, desired); err != nil {
			return fmt.Errorf("encode StatefulSet %s: %w", live.Name, err)
		}
		if known.workload == now {
			p.seen.update = known.update
			return nil
		}
		owned, err := appsv1ac.ExtractStatefulSet(live, FieldOwner)
		if err != nil {
			return fmt.Errorf("find what we own of StatefulSet %s: %w", live.Name, err)
		}
		would := imageOf(desired)
		if manifests.KeepTemplate(desired, owned) {
			p.seen.update = update{available: true, from: imageOf(desired), to: would}
		}
	}
	err := apply(ctx, r, hub, &appsv1.StatefulSet{}, desired, appsv1ac.ExtractStatefulSet)
	if live != nil && err == nil {
		known.workload, known.update = now, p.seen.update
	}
	if live == nil || !changesWhatCannot(err) {
		return err
	}
	return r.makeAgain(ctx, p, live, desired)
}

// keepRevision leaves the pod template of a StatefulSet that is made again as an earlier
// operator made it, and reports whether it does. What the StatefulSet was can only be
// known from what Kubernetes keeps of it: this operator may have been started since it
// was deleted.
func (r *HubReconciler) keepRevision(ctx context.Context, p *pass, desired *appsv1ac.StatefulSetApplyConfiguration) (bool, error) {
	if len(p.seen.nodes) == 0 && len(p.seen.leaving) == 0 {
		return false, nil // nobody is restarted
	}
	newest, err := r.newestRevision(ctx, p.hub)
	if newest == nil || err != nil {
		return false, err
	}
	would := imageOf(desired)
	kept, err := manifests.KeepRevision(desired, newest)
	if kept {
		p.seen.update = update{available: true, from: imageOf(desired), to: would}
	}
	return kept, err
}

// newestRevision returns the newest pod template that the Hub's StatefulSet has or had,
// nil when there is none.
func (r *HubReconciler) newestRevision(ctx context.Context, hub *switchboardv1alpha1.Hub) (newest *appsv1.ControllerRevision, err error) {
	revisions := &appsv1.ControllerRevisionList{}
	if err := r.Live.List(ctx, revisions, client.InNamespace(hub.Namespace), client.MatchingLabels(manifests.Selector(hub))); err != nil {
		return nil, fmt.Errorf("list the revisions of the StatefulSet: %w", err)
	}
	for i := range revisions.Items {
		one := &revisions.Items[i]
		owner := metav1.GetControllerOf(one)
		if (owner == nil || owner.Name == manifests.NodeName(hub)) && (newest == nil || one.Revision > newest.Revision) {
			newest = one
		}
	}
	return newest, nil
}

// restartedAnnotation is what kubectl rollout restart writes into a pod template.
const restartedAnnotation = "kubectl.kubernetes.io/restartedAt"

// restartedByKubectl is when somebody last restarted the nodes by it, as their pods
// say, or nothing.
func (o *observed) restartedByKubectl() (at string) {
	for i := range o.nodes {
		at = max(at, o.nodes[i].pod.Annotations[restartedAnnotation])
	}
	return at
}

// createRestarted makes a StatefulSet again whose pods were restarted by kubectl. With
// another template than theirs they would be replaced for nothing.
func (r *HubReconciler) createRestarted(ctx context.Context, desired *appsv1ac.StatefulSetApplyConfiguration, at string) error {
	set, err := asObject(desired, &appsv1.StatefulSet{})
	if err != nil {
		return err
	}
	if set.Spec.Template.Annotations == nil {
		set.Spec.Template.Annotations = make(map[string]string)
	}
	set.Spec.Template.Annotations[restartedAnnotation] = at
	if err := r.Create(ctx, set, client.FieldOwner(FieldOwner)); err != nil {
		return fmt.Errorf("make StatefulSet %s again: %w", set.Name, err)
	}
	return nil
}

// update is what this operator would change of nodes that an earlier one has
// started.
type update struct {
	available bool
	from, to  string // images, which may be the same
}

func imageOf(set *appsv1ac.StatefulSetApplyConfiguration) string {
	for _, c := range set.Spec.Template.Spec.Containers {
		if c.Image != nil {
			return *c.Image
		}
	}
	return ""
}

// templateSize is what a StatefulSet asks for as the size of new volumes, nil
// when it asks for none.
func templateSize(set *appsv1.StatefulSet) *resource.Quantity {
	if set == nil || len(set.Spec.VolumeClaimTemplates) == 0 {
		return nil
	}
	size := set.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests[corev1.ResourceStorage]
	return &size
}

// changesWhatCannot reports whether the API server refused a change because it is of
// a field that stays as it was made. Only the text tells it from other faults;
// Kubernetes before 1.37 has the second one.
func changesWhatCannot(err error) bool {
	return apierrors.IsInvalid(err) && (strings.Contains(err.Error(), "field is immutable") || strings.Contains(err.Error(), "updates to statefulset spec for fields other than"))
}

// makeAgain deletes a StatefulSet, without its pods, for which the next pass makes
// a new one that adopts them; after the API server has said that it will take it.
func (r *HubReconciler) makeAgain(ctx context.Context, p *pass, live *appsv1.StatefulSet, desired *appsv1ac.StatefulSetApplyConfiguration) error {
	trial, err := asObject(desired, &appsv1.StatefulSet{})
	if err != nil {
		return err
	}
	trial.Name, trial.GenerateName = "", trial.Name+"-"
	if err := r.Create(ctx, trial, client.DryRunAll, client.FieldOwner(FieldOwner), client.DisableReadYourWritesConsistency); err != nil {
		return fmt.Errorf("see whether StatefulSet %s can be made again: %w", live.Name, err)
	}
	if _, err := r.newestRevision(ctx, p.hub); err != nil {
		return err // rather than when there is no StatefulSet any more
	}
	err = r.Delete(ctx, live, client.PropagationPolicy(metav1.DeletePropagationOrphan), client.Preconditions{UID: &live.UID})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // somebody was faster
	}
	if err != nil {
		return fmt.Errorf("make StatefulSet %s again: %w", live.Name, err)
	}
	log.FromContext(ctx).Info("Deleted to be made again; its pods stay", "kind", "StatefulSet", "name", live.Name)
	r.tell(p.hub, notice{corev1.EventTypeNormal, switchboardv1alpha1.ReasonReplacingWorkload, "StatefulSet " + live.Name + " is made again, for it can't be changed so far; its pods go on meanwhile"})
	return nil
}
