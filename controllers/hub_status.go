package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

// notReadyGrace is how long a node may take to become ready, again too, before
// the Hub counts as degraded.
const notReadyGrace = time.Minute

// namedAtMost bounds how many nodes a message names: it must fit a condition.
const namedAtMost = 5

// summarize says what was seen as a status. It reads nothing but its arguments.
func summarize(hub *switchboardv1alpha1.Hub, seen *observed) switchboardv1alpha1.HubStatus {
	status := *hub.Status.DeepCopy()
	status.ObservedGeneration = hub.Generation
	status.Selector = manifests.Selector(hub).String()
	status.Address = manifests.Address(hub)
	status.Replicas, status.ReadyReplicas = 0, 0
	if seen.workload != nil {
		status.Replicas = seen.workload.Status.Replicas
		status.ReadyReplicas = seen.workload.Status.ReadyReplicas
	}
	status.SafeToRestart = seen.workload != nil && seen.unsettled(manifests.Replicas(hub)) == ""
	status.Ready = fmt.Sprintf("%d/%d", status.ReadyReplicas, manifests.Replicas(hub))
	status.Clients = 0
	for _, n := range seen.nodes {
		if n.ready && n.err == nil {
			status.Clients += n.report.Clients
		}
	}

	degraded := degradedCondition(seen)
	progressing := progressingCondition(hub, seen, degraded.Reason)
	for _, c := range []metav1.Condition{
		availableCondition(hub, status.ReadyReplicas),
		progressing,
		degraded,
		configAppliedCondition(hub, seen),
	} {
		setCondition(&status.Conditions, hub.Generation, seen.now, c)
	}
	setTopicsAccepted(&status.Conditions, hub.Generation, seen)
	mirror(&status.Conditions, hub.Generation, seen.now, switchboardv1alpha1.ConditionReconciling, progressing, progressing.Status == metav1.ConditionTrue)
	mirror(&status.Conditions, hub.Generation, seen.now, switchboardv1alpha1.ConditionStalled, degraded, needsPerson(degraded.Reason))
	return status
}

func availableCondition(hub *switchboardv1alpha1.Hub, ready int32) metav1.Condition {
	c := metav1.Condition{Type: switchboardv1alpha1.ConditionAvailable, Status: metav1.ConditionFalse}
	want := manifests.Replicas(hub)
	c.Message = fmt.Sprintf("%d of %d nodes are ready", ready, want)
	switch {
	case want == 0:
		c.Reason = switchboardv1alpha1.ReasonScaledToZero
		c.Message = "the spec asks for no nodes"
	case ready > want/2:
		c.Status = metav1.ConditionTrue
		c.Reason = switchboardv1alpha1.ReasonMajorityReady
	default:
		c.Reason = switchboardv1alpha1.ReasonTooFewNodesReady
	}
	return c
}

// progressingCondition compares what exists with what is wanted. degraded is
// the reason of the condition Degraded.
func progressingCondition(hub *switchboardv1alpha1.Hub, seen *observed, degraded string) metav1.Condition {
	c := metav1.Condition{Type: switchboardv1alpha1.ConditionProgressing, Status: metav1.ConditionTrue}
	want := manifests.Replicas(hub)
	sts := seen.workload
	switch {
	case hub.Spec.Paused:
		c.Status = metav1.ConditionFalse
		c.Reason = switchboardv1alpha1.ReasonPaused
		c.Message = "the operator changes nothing while spec.paused is true"
	case needsPerson(degraded):
		c.Status = metav1.ConditionFalse
		c.Reason = switchboardv1alpha1.ReasonBlocked
		c.Message = "see the condition Degraded"
	case seen.err != nil:
		c.Reason = switchboardv1alpha1.ReasonApplyFailed
		c.Message = "trying again; see the condition Degraded"
	case sts == nil || sts.Status.ObservedGeneration < sts.Generation:
		c.Reason = switchboardv1alpha1.ReasonRollingOut
		c.Message = "waiting for Kubernetes to act on the StatefulSet"
	case seen.scale.waiting != "":
		c.Reason = switchboardv1alpha1.ReasonScaling
		c.Message = seen.scale.waiting
	case sts.Status.Replicas != want:
		c.Reason = switchboardv1alpha1.ReasonScaling
		c.Message = fmt.Sprintf("%d nodes exist, %d are wanted", sts.Status.Replicas, want)
	case seen.rollout.stuck != "":
		c.Status = metav1.ConditionFalse
		c.Reason = switchboardv1alpha1.ReasonRolloutStuck
		c.Message = fmt.Sprintf("%d of %d nodes run an earlier pod template, and no further one is replaced: %s. Correct the spec, or set it back", seen.rollout.outdated, want, seen.rollout.stuck)
	case seen.rollout.outdated > 0 && hub.Spec.Updates.Strategy == switchboardv1alpha1.UpdateOnDelete:
		c.Reason = switchboardv1alpha1.ReasonAwaitingDeletion
		c.Message = seen.rollout.waiting
	case seen.rollout.outdated > 0:
		c.Reason = switchboardv1alpha1.ReasonRollingOut
		c.Message = fmt.Sprintf("%d of %d nodes are updated", want-int32(seen.rollout.outdated), want)
		if seen.rollout.waiting != "" {
			c.Message += "; " + seen.rollout.waiting
		}
	case sts.Status.ReadyReplicas < want:
		c.Reason = switchboardv1alpha1.ReasonNodesStarting
		c.Message = fmt.Sprintf("%d of %d nodes are ready", sts.Status.ReadyReplicas, want)
	default:
		c.Status = metav1.ConditionFalse
		c.Reason = switchboardv1alpha1.ReasonComplete
		c.Message = fmt.Sprintf("all %d nodes are up to date", want)
	}
	return c
}

func degradedCondition(seen *observed) metav1.Condition {
	c := metav1.Condition{Type: switchboardv1alpha1.ConditionDegraded, Status: metav1.ConditionTrue}
	if seen.err != nil {
		c.Reason = reasonOf(seen.err)
		c.Message = seen.err.Error()
		return c
	}
	var failing []string
	for i := range seen.nodes {
		if why := whyFailing(&seen.nodes[i].pod, seen.now); why != "" {
			failing = append(failing, seen.nodes[i].pod.Name+": "+why)
		}
	}
	if len(failing) > 0 {
		c.Reason = switchboardv1alpha1.ReasonNodesFailing
		c.Message = enumerate(failing)
		return c
	}
	c.Status = metav1.ConditionFalse
	c.Reason = switchboardv1alpha1.ReasonAsExpected
	c.Message = "nothing is known to be wrong"
	return c
}

// reasonOf sorts the errors that stop applying.
func reasonOf(err error) string {
	var taken *NameTakenError
	var invalid *InvalidSpecError
	switch {
	case missingPermission(err):
		return switchboardv1alpha1.ReasonMissingPermission
	case errors.As(err, &taken):
		return switchboardv1alpha1.ReasonNameTaken
	case errors.As(err, &invalid):
		return switchboardv1alpha1.ReasonInvalidSpec
	}
	return switchboardv1alpha1.ReasonApplyFailed
}

// missingPermission reports whether the API server refused a right. A quota or
// a policy refuses with the same status and says something else.
func missingPermission(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), " cannot ")
}

// needsPerson reports whether a reason of Degraded lasts until somebody acts.
func needsPerson(reason string) bool {
	switch reason {
	case switchboardv1alpha1.ReasonMissingPermission, switchboardv1alpha1.ReasonNameTaken, switchboardv1alpha1.ReasonInvalidSpec:
		return true
	}
	return false
}

// whyFailing says why a pod does not work, or nothing when it works or may yet
// be starting. What it says is the same as long as the cause is.
func whyFailing(pod *corev1.Pod, now time.Time) string {
	if why := whyDead(pod); why != "" {
		return why
	}
	c := podCondition(pod, corev1.PodReady)
	if c != nil && c.Status != corev1.ConditionTrue && now.Sub(c.LastTransitionTime.Time) > notReadyGrace {
		return "not ready for more than " + notReadyGrace.String()
	}
	return ""
}

// whyDead says why a pod's containers don't run, or nothing when they do or may
// yet be starting.
func whyDead(pod *corev1.Pod) string {
	for _, cs := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		w := cs.State.Waiting
		if w == nil || w.Reason == "ContainerCreating" || w.Reason == "PodInitializing" {
			continue
		}
		t := cs.LastTerminationState.Terminated
		switch {
		case t == nil && w.Message != "":
			return w.Reason + ": " + lastWords(w.Message)
		case t == nil:
			return w.Reason
		case t.Reason == "OOMKilled":
			return w.Reason + " after it was killed for its memory: raise spec.resources.limits.memory"
		case t.Message != "":
			return fmt.Sprintf("%s after exit status %d: %s", w.Reason, t.ExitCode, lastWords(t.Message))
		}
		return fmt.Sprintf("%s after exit status %d", w.Reason, t.ExitCode)
	}
	if c := podCondition(pod, corev1.PodScheduled); c != nil && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
		return "can't be scheduled: " + c.Message
	}
	return ""
}

// lastWords is the end of what a container said before it died, on one line.
func lastWords(message string) string {
	const atMost = 300
	lines := strings.Split(strings.TrimSpace(message), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	if len(last) > atMost {
		last = strings.ToValidUTF8(last[:atMost], "") + "…"
	}
	return last
}

func configAppliedCondition(hub *switchboardv1alpha1.Hub, seen *observed) metav1.Condition {
	c := metav1.Condition{Type: switchboardv1alpha1.ConditionConfigApplied}
	var ready int
	var refused, behind, silent []string
	for _, n := range seen.nodes {
		if !n.ready {
			continue
		}
		ready++
		switch {
		case n.err != nil || n.report.Hub == "":
			silent = append(silent, n.pod.Name)
		case n.report.ConfigError != "":
			refused = append(refused, n.pod.Name+": "+n.report.ConfigError)
		case n.report.ConfigHash != seen.configHash:
			behind = append(behind, n.pod.Name)
		}
	}
	switch {
	case seen.configHash == "":
		c.Status = metav1.ConditionFalse
		c.Reason = switchboardv1alpha1.ReasonBlocked
		c.Message = "there are no settings to apply; see the condition Degraded"
	case ready == 0:
		c.Status = metav1.ConditionUnknown
		c.Reason = switchboardv1alpha1.ReasonNoNodesReady
		c.Message = "no node is ready to be asked"
	case len(refused) > 0:
		c.Status = metav1.ConditionFalse
		c.Reason = switchboardv1alpha1.ReasonRejected
		c.Message = "nodes go on with their last good settings: " + enumerate(refused)
	case len(behind) > 0:
		c.Status = metav1.ConditionFalse
		c.Reason = switchboardv1alpha1.ReasonApplying
		c.Message = "still on other settings: " + enumerate(behind)
	case len(silent) > 0:
		c.Status = metav1.ConditionUnknown
		c.Reason = switchboardv1alpha1.ReasonNodesUnreachable
		c.Message = fmt.Sprintf("no answer to the operator on port %d: %s", manifests.PortHTTP, enumerate(silent))
	default:
		c.Status = metav1.ConditionTrue
		c.Reason = switchboardv1alpha1.ReasonApplied
		c.Message = fmt.Sprintf("all ready nodes run the settings of generation %d", hub.Generation)
	}
	return c
}

// enumerate joins what fits a message.
func enumerate(items []string) string {
	more := ""
	if n := len(items) - namedAtMost; n > 0 {
		items, more = items[:namedAtMost], fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(items, ", ") + more
}

// conditionMessageBytes is what the API server takes.
const conditionMessageBytes = 32 << 10

func setCondition(conditions *[]metav1.Condition, generation int64, now time.Time, c metav1.Condition) {
	if len(c.Message) > conditionMessageBytes {
		c.Message = strings.ToValidUTF8(c.Message[:conditionMessageBytes], "")
	}
	c.ObservedGeneration = generation
	c.LastTransitionTime = metav1.NewTime(now)
	meta.SetStatusCondition(conditions, c)
}

// mirror shows from under another type for as long as it is true.
func mirror(conditions *[]metav1.Condition, generation int64, now time.Time, as string, from metav1.Condition, on bool) {
	if !on {
		meta.RemoveStatusCondition(conditions, as)
		return
	}
	from.Type, from.Status = as, metav1.ConditionTrue
	setCondition(conditions, generation, now, from)
}

// pollAfter says when to look again although nothing happened in the cluster.
func pollAfter(status switchboardv1alpha1.HubStatus) time.Duration {
	applied := meta.FindStatusCondition(status.Conditions, switchboardv1alpha1.ConditionConfigApplied)
	applying := applied != nil && applied.Reason == switchboardv1alpha1.ReasonApplying
	if applying || meta.IsStatusConditionTrue(status.Conditions, switchboardv1alpha1.ConditionProgressing) {
		return pollChanging
	}
	return pollSettled
}

// writeStatus writes the status if it is another one, and tells what changed.
func (r *HubReconciler) writeStatus(ctx context.Context, hub *switchboardv1alpha1.Hub, status switchboardv1alpha1.HubStatus) error {
	if equality.Semantic.DeepEqual(hub.Status, status) {
		return nil
	}
	before := hub.DeepCopy()
	hub.Status = status
	err := r.Status().Patch(ctx, hub, client.MergeFrom(before), client.FieldOwner(FieldOwner))
	if missingPermission(err) { // so there is no condition to tell it
		r.tell(hub, notice{corev1.EventTypeWarning, switchboardv1alpha1.ReasonMissingPermission, err.Error()})
	}
	if err := client.IgnoreNotFound(err); err != nil { // not found: deleted meanwhile
		return fmt.Errorf("write the status: %w", err)
	}
	for _, n := range noticesOf(before, hub) {
		r.tell(hub, n)
	}
	return nil
}
