package controllers

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

// guest is a resource that becomes part of a Hub's settings: a Topic or a Grant.
type guest struct {
	kind       string
	generation int64
	before     []metav1.Condition
	// reason and message say why the hub does not take it as it is; empty when it does.
	reason, message string
}

// summarize sets the conditions that all guests have. hub is nil when there is none;
// configApplied is that condition of the Hub. It says nothing of single nodes: with each
// word about them thousands of guests would be written again.
func (g *guest) summarize(conditions *[]metav1.Condition, hub *switchboardv1alpha1.Hub, configApplied metav1.Condition, now time.Time) {
	accepted, applied := g.accepted(hub), g.applied(hub, configApplied)
	setCondition(conditions, g.generation, now, accepted)
	setCondition(conditions, g.generation, now, applied)

	waiting, stalled := applied, false
	var waits bool
	switch {
	case g.reason == switchboardv1alpha1.ReasonHubNotFound: // it may come yet
		waiting, waits = accepted, true
	case g.reason != "":
		stalled = true
	default: // of a Hub without nodes there is nothing to wait for
		waits = applied.Status != metav1.ConditionTrue && !hub.Spec.Paused && manifests.Replicas(hub) > 0
	}
	mirror(conditions, g.generation, now, switchboardv1alpha1.ConditionReconciling, waiting, waits)
	mirror(conditions, g.generation, now, switchboardv1alpha1.ConditionStalled, accepted, stalled)
}

func (g *guest) accepted(hub *switchboardv1alpha1.Hub) metav1.Condition {
	if g.reason != "" {
		return metav1.Condition{Type: switchboardv1alpha1.ConditionAccepted, Status: metav1.ConditionFalse, Reason: g.reason, Message: g.message}
	}
	return metav1.Condition{
		Type: switchboardv1alpha1.ConditionAccepted, Status: metav1.ConditionTrue, Reason: switchboardv1alpha1.ReasonAccepted,
		Message: fmt.Sprintf("Hub %s/%s takes this %s", hub.Namespace, hub.Name, g.kind),
	}
}

// applied says whether nodes run the guest as it is. Once all do they go on doing so
// while the hub's settings change in other places.
func (g *guest) applied(hub *switchboardv1alpha1.Hub, configApplied metav1.Condition) metav1.Condition {
	condition := metav1.Condition{Type: switchboardv1alpha1.ConditionApplied, Status: metav1.ConditionFalse}
	before := meta.FindStatusCondition(g.before, switchboardv1alpha1.ConditionApplied)
	switch {
	case g.reason != "":
		condition.Reason = switchboardv1alpha1.ReasonNotAccepted
		condition.Message = "see the condition Accepted"
	case configApplied.Status == metav1.ConditionTrue && !hub.Spec.Paused,
		before != nil && before.Status == metav1.ConditionTrue && before.ObservedGeneration == g.generation &&
			!before.LastTransitionTime.Before(&hub.CreationTimestamp): // or it is of an earlier Hub of this name
		condition.Status = metav1.ConditionTrue
		condition.Reason = switchboardv1alpha1.ReasonApplied
		condition.Message = "all ready nodes of the hub run these settings"
	case hub.Spec.Paused:
		condition.Reason = switchboardv1alpha1.ReasonPaused
		condition.Message = "the operator changes nothing of the Hub while its spec.paused is true"
	default:
		condition.Status, condition.Reason = configApplied.Status, configApplied.Reason
		condition.Message = fmt.Sprintf("see the condition ConfigApplied of Hub %s/%s", hub.Namespace, hub.Name)
	}
	return condition
}

// guestNotices says what is worth an event between the conditions of two statuses.
func guestNotices(before, after []metav1.Condition) []notice {
	var ns []notice
	for _, t := range []string{switchboardv1alpha1.ConditionAccepted, switchboardv1alpha1.ConditionConflicted, switchboardv1alpha1.ConditionApplied} {
		old, c := meta.FindStatusCondition(before, t), meta.FindStatusCondition(after, t)
		if c == nil || old != nil && old.Status == c.Status && old.Reason == c.Reason {
			continue
		}
		switch good := c.Status == metav1.ConditionTrue; {
		case t == switchboardv1alpha1.ConditionConflicted, t == switchboardv1alpha1.ConditionAccepted && !good, c.Reason == switchboardv1alpha1.ReasonRejected:
			ns = append(ns, notice{corev1.EventTypeWarning, c.Reason, c.Message})
		case good:
			ns = append(ns, notice{corev1.EventTypeNormal, c.Reason, c.Message})
		}
	}
	return ns
}

// summarizeGrant says how a Grant stands as a status; see guest.summarize for the rest.
func summarizeGrant(c *grantClaim, hub *switchboardv1alpha1.Hub, configApplied metav1.Condition, now time.Time) switchboardv1alpha1.GrantStatus {
	status := *c.grant.Status.DeepCopy()
	status.ObservedGeneration = c.grant.Generation
	g := &guest{kind: "Grant", generation: c.grant.Generation, before: c.grant.Status.Conditions, reason: c.reason, message: c.message}
	g.summarize(&status.Conditions, hub, configApplied, now)
	return status
}

// setAllAccepted says on the Hub's side what came of its Topics or Grants: a condition,
// which is there while there are any.
func setAllAccepted(conditions *[]metav1.Condition, generation int64, now time.Time, condition, kind string, n int, refused few) {
	if n == 0 {
		meta.RemoveStatusCondition(conditions, condition)
		return
	}
	c := metav1.Condition{
		Type: condition, Status: metav1.ConditionTrue, Reason: switchboardv1alpha1.ReasonAllAccepted,
		Message: fmt.Sprintf("the hub takes all %d %ss that refer to it", n, kind),
	}
	if refused.n > 0 {
		c.Status, c.Reason = metav1.ConditionFalse, switchboardv1alpha1.ReasonSomeRefused
		c.Message = fmt.Sprintf("%d of %d %ss are refused: %s", refused.n, n, kind, refused.String())
	}
	setCondition(conditions, generation, now, c)
}

func setGrantsAccepted(conditions *[]metav1.Condition, generation int64, seen *observed) {
	var refused few
	for _, c := range seen.grants {
		if c.reason != "" {
			refused.add(fmt.Sprintf("%s (%s)", grantName(c.grant), c.reason))
		}
	}
	setAllAccepted(conditions, generation, seen.now, switchboardv1alpha1.ConditionGrantsAccepted, "Grant", len(seen.grants), refused)
}
