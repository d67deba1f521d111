package manifests

import (
	corev1 "k8s.io/api/core/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// ServiceAccount is who the nodes' pods are. Nodes don't talk to the API server,
// so they get no token, but for those that ask it about clients' tokens: by a volume.
func ServiceAccount(hub *switchboardv1alpha1.Hub) *corev1ac.ServiceAccountApplyConfiguration {
	account := ownedBy(hub, corev1ac.ServiceAccount(NodeName(hub), hub.Namespace)).
		WithAutomountServiceAccountToken(false)
	if want := hub.Spec.ServiceAccount; want != nil && len(want.Annotations) > 0 {
		account.WithAnnotations(want.Annotations)
	}
	return account
}

// KeyPhase is a step on the way from one gossip key to another, an annotation of the
// Secret that has them; empty: none is under way.
type KeyPhase string

// The phases of a rotation, in order. Each ends when all nodes have what is in the
// Secret.
const (
	// KeyAsked: a rotation is to begin once all nodes can follow it.
	KeyAsked KeyPhase = "Asked"
	// KeyAdd: nodes come to accept the new key, and use the old one.
	KeyAdd KeyPhase = "Add"
	// KeyUse: nodes come to use the new key, and accept both.
	KeyUse KeyPhase = "Use"
	// KeyRemove: nodes come to accept the new key alone.
	KeyRemove KeyPhase = "Remove"
)

// KeyPhaseIn reads the phase from the annotations of GossipSecret; one that there is
// not is as if none were under way.
func KeyPhaseIn(annotations map[string]string) KeyPhase {
	switch phase := KeyPhase(annotations[AnnotationRotationPhase]); phase {
	case KeyAsked, KeyAdd, KeyUse, KeyRemove:
		return phase
	}
	return ""
}

// GossipSecret holds the keys of the gossip between the Hub's nodes, in the form of
// config.EncodeGossipKeys. Pass those that exist, if some do: nodes with different
// keys don't hear each other.
func GossipSecret(hub *switchboardv1alpha1.Hub, keys []byte, phase KeyPhase) *corev1ac.SecretApplyConfiguration {
	secret := ownedBy(hub, corev1ac.Secret(GossipSecretName(hub), hub.Namespace)).
		WithType(corev1.SecretTypeOpaque).
		WithData(map[string][]byte{GossipKey: keys})
	if phase != "" {
		secret.WithAnnotations(map[string]string{AnnotationRotationPhase: string(phase)})
	}
	return secret
}
