package controllers

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// noHub stands for the condition ConfigApplied of a Hub that there is not.
var noHub = metav1.Condition{Type: switchboardv1alpha1.ConditionConfigApplied, Status: metav1.ConditionUnknown}

// summarizeTopic says how a Topic stands as a status; see guest.summarize for the rest.
// It reads nothing but its arguments.
func summarizeTopic(c *claim, hub *switchboardv1alpha1.Hub, configApplied metav1.Condition, now time.Time) switchboardv1alpha1.TopicStatus {
	topic := c.topic
	status := *topic.Status.DeepCopy()
	status.ObservedGeneration = topic.Generation
	status.Pattern = c.pattern

	g := &guest{kind: "Topic", generation: topic.Generation, before: topic.Status.Conditions, reason: c.reason, message: c.message}
	g.summarize(&status.Conditions, hub, configApplied, now)
	if c.rivals.n > 0 {
		setCondition(&status.Conditions, topic.Generation, now, metav1.Condition{
			Type: switchboardv1alpha1.ConditionConflicted, Status: metav1.ConditionTrue, Reason: switchboardv1alpha1.ReasonTopicsRefused,
			Message: fmt.Sprintf("this Topic wins, as it is older; refused: %s", c.rivals.String()),
		})
	} else {
		meta.RemoveStatusCondition(&status.Conditions, switchboardv1alpha1.ConditionConflicted)
	}
	return status
}

// setTopicsAccepted says on the Hub's side what came of its Topics.
func setTopicsAccepted(conditions *[]metav1.Condition, generation int64, seen *observed) {
	var refused few
	for _, c := range seen.topics {
		if c.reason != "" {
			refused.add(fmt.Sprintf("%s (%s)", topicName(c.topic), c.reason))
		}
	}
	setAllAccepted(conditions, generation, seen.now, switchboardv1alpha1.ConditionTopicsAccepted, "Topic", len(seen.topics), refused)
}
