package manifests

import (
	corev1 "k8s.io/api/core/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// ServiceAccount is who the nodes' pods are. Nodes don't talk to the API server,
// so they get no token.
func ServiceAccount(hub *switchboardv1alpha1.Hub) *corev1ac.ServiceAccountApplyConfiguration {
	account := ownedBy(hub, corev1ac.ServiceAccount(NodeName(hub), hub.Namespace)).
		WithAutomountServiceAccountToken(false)
	if want := hub.Spec.ServiceAccount; want != nil && len(want.Annotations) > 0 {
		account.WithAnnotations(want.Annotations)
	}
	return account
}

// GossipSecret holds the key that encrypts gossip between the Hub's nodes: key
// is base64 of 32 bytes. Pass the key that exists, if one does: nodes with
// different keys don't hear each other.
func GossipSecret(hub *switchboardv1alpha1.Hub, key []byte) *corev1ac.SecretApplyConfiguration {
	return ownedBy(hub, corev1ac.Secret(GossipSecretName(hub), hub.Namespace)).
		WithType(corev1.SecretTypeOpaque).
		WithData(map[string][]byte{GossipKey: key})
}
