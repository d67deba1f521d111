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

// noHub stands for the condition ConfigApplied of a Hub that there is not.
var noHub = metav1.Condition{Type: switchboardv1alpha1.ConditionConfigApplied, Status: metav1.ConditionUnknown}

// summarizeTopic says how a Topic stands as a status. hub is nil when there is
// none; configApplied is that condition of the Hub. It reads nothing but its
// arguments, and says nothing of single nodes: with each word about them thousands
// of Topics would be written again.
func summarizeTopic(c *claim, hub *switchboardv1alpha1.Hub, configApplied metav1.Condition, now time.Time) switchboardv1alpha1.TopicStatus {
	topic := c.topic
	status := *topic.Status.DeepCopy()
	status.ObservedGeneration = topic.Generation
	status.Pattern = topic.Pattern()

	accepted, applied := acceptedCondition(c, hub), topicAppliedCondition(c, hub, configApplied)
	set := func(c metav1.Condition) { setCondition(&status.Conditions, topic.Generation, now, c) }
	set(accepted)
	set(applied)
	if c.rivals.n > 0 {
		set(metav1.Condition{
			Type: switchboardv1alpha1.ConditionConflicted, Status: metav1.ConditionTrue, Reason: switchboardv1alpha1.ReasonTopicsRefused,
			Message: fmt.Sprintf("this Topic wins, as it is older; refused: %s", c.rivals.String()),
		})
	} else {
		meta.RemoveStatusCondition(&status.Conditions, switchboardv1alpha1.ConditionConflicted)
	}

	waiting, stalled := applied, false
	var waits bool
	switch {
	case c.reason == switchboardv1alpha1.ReasonHubNotFound: // it may come yet
		waiting, waits = accepted, true
	case c.reason != "":
		stalled = true
	default: // of a Hub without nodes there is nothing to wait for
		waits = applied.Status != metav1.ConditionTrue && !hub.Spec.Paused && manifests.Replicas(hub) > 0
	}
	mirror(&status.Conditions, topic.Generation, now, switchboardv1alpha1.ConditionReconciling, waiting, waits)
	mirror(&status.Conditions, topic.Generation, now, switchboardv1alpha1.ConditionStalled, accepted, stalled)
	return status
}

func acceptedCondition(c *claim, hub *switchboardv1alpha1.Hub) metav1.Condition {
	if c.reason != "" {
		return metav1.Condition{Type: switchboardv1alpha1.ConditionAccepted, Status: metav1.ConditionFalse, Reason: c.reason, Message: c.message}
	}
	return metav1.Condition{
		Type: switchboardv1alpha1.ConditionAccepted, Status: metav1.ConditionTrue, Reason: switchboardv1alpha1.ReasonAccepted,
		Message: fmt.Sprintf("Hub %s/%s takes this Topic", hub.Namespace, hub.Name),
	}
}

// topicAppliedCondition says whether nodes run the Topic as it is. Once all do they
// go on doing so while the hub's settings change in other places.
func topicAppliedCondition(c *claim, hub *switchboardv1alpha1.Hub, configApplied metav1.Condition) metav1.Condition {
	condition := metav1.Condition{Type: switchboardv1alpha1.ConditionApplied, Status: metav1.ConditionFalse}
	before := meta.FindStatusCondition(c.topic.Status.Conditions, switchboardv1alpha1.ConditionApplied)
	switch {
	case c.reason != "":
		condition.Reason = switchboardv1alpha1.ReasonNotAccepted
		condition.Message = "see the condition Accepted"
	case configApplied.Status == metav1.ConditionTrue && !hub.Spec.Paused,
		before != nil && before.Status == metav1.ConditionTrue && before.ObservedGeneration == c.topic.Generation &&
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

// setTopicsAccepted says on the Hub's side what came of its Topics.
func setTopicsAccepted(conditions *[]metav1.Condition, generation int64, seen *observed) {
	if len(seen.topics) == 0 {
		meta.RemoveStatusCondition(conditions, switchboardv1alpha1.ConditionTopicsAccepted)
		return
	}
	var refused few
	for _, c := range seen.topics {
		if c.reason != "" {
			refused.add(fmt.Sprintf("%s (%s)", topicName(c.topic), c.reason))
		}
	}
	condition := metav1.Condition{
		Type: switchboardv1alpha1.ConditionTopicsAccepted, Status: metav1.ConditionTrue, Reason: switchboardv1alpha1.ReasonAllAccepted,
		Message: fmt.Sprintf("the hub takes all %d Topics that refer to it", len(seen.topics)),
	}
	if refused.n > 0 {
		condition.Status, condition.Reason = metav1.ConditionFalse, switchboardv1alpha1.ReasonSomeRefused
		condition.Message = fmt.Sprintf("%d of %d Topics are refused: %s", refused.n, len(seen.topics), refused.String())
	}
	setCondition(conditions, generation, seen.now, condition)
}

// topicNotices says what is worth an event between two statuses of a Topic.
func topicNotices(before, after *switchboardv1alpha1.Topic) []notice {
	var ns []notice
	for _, t := range []string{switchboardv1alpha1.ConditionAccepted, switchboardv1alpha1.ConditionConflicted, switchboardv1alpha1.ConditionApplied} {
		old, c := meta.FindStatusCondition(before.Status.Conditions, t), meta.FindStatusCondition(after.Status.Conditions, t)
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
