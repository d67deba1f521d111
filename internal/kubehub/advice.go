package kubehub

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

func newCondition(hub *switchboardv1alpha1.Hub, c metav1.Condition) Condition {
	r := Condition{
		Type: c.Type, Status: string(c.Status), Reason: c.Reason, Message: c.Message, Since: c.LastTransitionTime.Time,
		Bad: bad(hub, c),
	}
	if r.Bad || meant(c.Reason) {
		r.Next = adviceFor(hub.Name, c.Reason)
	}
	return r
}

// meant reports whether a person has brought about a reason on purpose, who may have
// forgotten.
func meant(reason string) bool {
	switch reason {
	case switchboardv1alpha1.ReasonAwaitingDeletion, switchboardv1alpha1.ReasonPaused, switchboardv1alpha1.ReasonScaledToZero,
		switchboardv1alpha1.ReasonOperatorUpdated:
		return true
	}
	return false
}

// bad reports whether a condition is none that one wishes for.
func bad(hub *switchboardv1alpha1.Hub, c metav1.Condition) bool {
	switch c.Type {
	case switchboardv1alpha1.ConditionAvailable:
		return c.Status != metav1.ConditionTrue && c.Reason != switchboardv1alpha1.ReasonScaledToZero
	case switchboardv1alpha1.ConditionConfigApplied:
		unasked := c.Reason == switchboardv1alpha1.ReasonNoNodesReady && manifests.Replicas(hub) == 0
		return c.Status != metav1.ConditionTrue && c.Reason != switchboardv1alpha1.ReasonApplying && !unasked
	case switchboardv1alpha1.ConditionCertificatesReady, switchboardv1alpha1.ConditionAuthenticationReady:
		return c.Status != metav1.ConditionTrue
	case switchboardv1alpha1.ConditionDegraded:
		return c.Status == metav1.ConditionTrue
	}
	return needsPerson(c.Reason)
}

// needsPerson reports whether a reason lasts until somebody acts.
func needsPerson(reason string) bool {
	switch reason {
	case switchboardv1alpha1.ReasonRolloutStuck, switchboardv1alpha1.ReasonBlocked, switchboardv1alpha1.ReasonRejected:
		return true
	}
	return switchboardv1alpha1.NeedsPerson(reason)
}

// adviceFor says what to do about a reason, or nothing when there is nothing to do.
func adviceFor(hub, reason string) string {
	switch reason {
	case switchboardv1alpha1.ReasonTooFewNodesReady:
		return "see why nodes are not ready: the table below, and kubectl hub logs " + hub
	case switchboardv1alpha1.ReasonScaledToZero:
		return "kubectl scale hub/" + hub + " --replicas=3"
	case switchboardv1alpha1.ReasonNodesFailing:
		return "kubectl hub logs " + hub + " NODE --previous; kubectl describe pod NODE says more; of a pod that is missing: kubectl events --for statefulset/" + hub + "-node"
	case switchboardv1alpha1.ReasonQuorumLost:
		return "bring the failing nodes back with their disks: without them the shards can't be published to; live topics go on"
	case switchboardv1alpha1.ReasonShardsWithoutLeader:
		return "see whether the nodes reach each other on port 7401, and have the disk and CPU that elections need: kubectl hub logs " + hub + "; live topics go on"
	case switchboardv1alpha1.ReasonDiskFull:
		return "raise spec.storage.size, or keep less (spec.history, spec.topics); publishes are taken again once there is room"
	case switchboardv1alpha1.ReasonMemoryShort:
		return "raise spec.resources.limits.memory or spec.replicas, or let less wait for each client (spec.limits.maxPendingBytes); clients are taken again once there is room"
	case switchboardv1alpha1.ReasonVolumesNotGrown:
		return "set spec.storage.size back to what the message says, or let the storage class expand volumes"
	case switchboardv1alpha1.ReasonOperatorUpdated:
		return "kubectl hub restart " + hub + " when it suits; until then nodes go on as they are"
	case switchboardv1alpha1.ReasonRolloutStuck:
		return "correct the spec or set it back; nodes that the rollout has not come to are left alone"
	case switchboardv1alpha1.ReasonMissingPermission:
		return "upgrade the chart, or grant the operator's role what the message names; it tries again within 30 s"
	case switchboardv1alpha1.ReasonNameTaken:
		return "remove the object that the message names, or give the Hub another name"
	case switchboardv1alpha1.ReasonInvalidSpec:
		return "correct the spec: kubectl edit hub " + hub
	case switchboardv1alpha1.ReasonInvalidSecret:
		return "set the Secret right as the message says, or delete it: the operator makes a new one"
	case switchboardv1alpha1.ReasonIssuerNotReady:
		return "kubectl describe certificate " + hub + "-node says more, if cert-manager is installed"
	case switchboardv1alpha1.ReasonSecretNotFound:
		return "make the Secret, or set spec.tls.secretName right"
	case switchboardv1alpha1.ReasonSecretInvalid:
		return "set the Secret right as the message says; nodes take it without a restart"
	case switchboardv1alpha1.ReasonExpired:
		return "renew what is in the Secret of spec.tls.secretName, or end spec.paused: the operator renews its own"
	case switchboardv1alpha1.ReasonCertificatesNotReady:
		return "see the condition CertificatesReady"
	case switchboardv1alpha1.ReasonKeysNotRead:
		return "the API server's answer is in the message; where it refuses, upgrade the chart, which has the right to get both paths"
	case switchboardv1alpha1.ReasonSourceNotFound:
		return "make what the message names, or set the field right that names it; nodes take it without a restart"
	case switchboardv1alpha1.ReasonSourceInvalid:
		return "set it right as the message says; nodes take it without a restart"
	case switchboardv1alpha1.ReasonAuthenticationNotReady:
		return "see the condition AuthenticationReady"
	case switchboardv1alpha1.ReasonApplyFailed:
		return "the operator tries again by itself; if it lasts: the API server's answer is in the message"
	case switchboardv1alpha1.ReasonRejected:
		return "correct the spec: the message has the nodes' own words; they go on with their last good settings"
	case switchboardv1alpha1.ReasonNodesUnreachable:
		return "look for a network policy between the operator and port 7480 of the nodes"
	case switchboardv1alpha1.ReasonAwaitingDeletion:
		return "kubectl hub drain " + hub + " NODE, one after the other"
	case switchboardv1alpha1.ReasonPaused:
		return "set spec.paused to false when you are done"
	}
	return ""
}
