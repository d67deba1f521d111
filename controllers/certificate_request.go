package controllers

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

// refusedRequest says why the rotation that the Hub's annotation asks for can't be, or
// not of the certificate for clients, or nothing when it can or nobody asks.
func refusedRequest(hub *switchboardv1alpha1.Hub) string {
	switch asked := hub.Annotations[manifests.AnnotationRotate]; {
	case asked == "":
		return ""
	case asked != manifests.RotateAuthority && asked != manifests.RotateCertificates && asked != manifests.RotateGossip:
		return fmt.Sprintf("%q is nothing to rotate: set the annotation %s to %s, %s or %s", asked, manifests.AnnotationRotate, manifests.RotateAuthority, manifests.RotateCertificates, manifests.RotateGossip)
	case !manifests.ServesTLS(hub):
		return "" // there is that of the cluster port
	case hub.Spec.TLS.SecretName != "":
		return fmt.Sprintf("the certificate for clients is that of your Secret %q: put another one into it. That of the cluster port is rotated", hub.Spec.TLS.SecretName)
	case hub.Spec.TLS.IssuerRef != nil:
		return fmt.Sprintf("cert-manager issues the certificate for clients: cmctl renew %s -n %s. That of the cluster port is rotated", manifests.NodeName(hub), hub.Namespace)
	}
	return ""
}

// endRequest takes the annotation that asks for a rotation from the Hub: it has begun,
// or refused says why it can't. That it has begun is in the Secrets by then, so that
// an operator that comes between does not begin another one.
func (r *HubReconciler) endRequest(ctx context.Context, hub *switchboardv1alpha1.Hub, refused string) error {
	asked, isAsked := hub.Annotations[manifests.AnnotationRotate]
	if !isAsked {
		return nil
	}
	changed := hub.DeepCopy()
	delete(changed.Annotations, manifests.AnnotationRotate)
	// What somebody has written into it meanwhile must not be lost.
	patch := client.MergeFromWithOptions(hub, client.MergeFromWithOptimisticLock{})
	err := r.Patch(ctx, changed, patch, client.FieldOwner(FieldOwner))
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return nil // the next pass sees what changed
	case err != nil:
		return fmt.Errorf("take the annotation %s from the Hub: %w", manifests.AnnotationRotate, err)
	}
	hub.Annotations, hub.ResourceVersion = changed.Annotations, changed.ResourceVersion
	if refused != "" {
		r.tell(hub, notice{corev1.EventTypeWarning, switchboardv1alpha1.ReasonRotationRefused, refused})
	}
	log.FromContext(ctx).Info("Rotation asked for", "what", asked, "refused", refused)
	return nil
}
