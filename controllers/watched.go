package controllers

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// Watched returns the kinds of which the operator lists and watches what there is:
// those for which its role has the right to. The others it reads by name.
func Watched() []client.Object {
	return []client.Object{
		&switchboardv1alpha1.Hub{}, &switchboardv1alpha1.Topic{}, &switchboardv1alpha1.Grant{},
		&corev1.ConfigMap{}, &corev1.Service{}, &corev1.ServiceAccount{}, &corev1.Pod{}, &corev1.PersistentVolumeClaim{},
		&appsv1.StatefulSet{}, &policyv1.PodDisruptionBudget{}, &networkingv1.NetworkPolicy{},
	}
}

// ReadAhead makes a cache that has not been started read all that is watched when it
// is. Without it a kind would be read only when a controller begins, which is when the
// operator acts already: one that stands by knows then what there is, and one that can't
// read it never takes the lease.
func ReadAhead(ctx context.Context, c cache.Cache) error {
	for _, kind := range Watched() {
		if _, err := c.GetInformer(ctx, kind); err != nil {
			return fmt.Errorf("watch %T: %w", kind, err)
		}
	}
	return nil
}
