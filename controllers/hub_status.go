package controllers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

// namedAtMost bounds how many nodes a message names: it must fit a condition.
const namedAtMost = 5

// summarize says what was seen as a status. It reads nothing but its arguments.
func summarize(hub *switchboardv1alpha1.Hub, seen *observed) switchboardv1alpha1.HubStatus {
	status := *hub.Status.DeepCopy()
	if seen.blind { // the rest is as it was when somebody last could
		degraded := degradedCondition(seen)
		setCondition(&status.Conditions, hub.Generation, seen.now, degraded)
		mirror(&status.Conditions, hub.Generation, seen.now, switchboardv1alpha1.ConditionStalled, degraded, switchboardv1alpha1.NeedsPerson(degraded.Reason))
		return status
	}
	status.ObservedGeneration = hub.Generation
	status.Selector = manifests.Selector(hub).String()
	status.Address = manifests.Address(hub)
	status.Replicas, status.ReadyReplicas = seen.counts()
	if seen.volumes.listed {
		status.StorageSize = seen.volumes.largest
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
	} {
		setCondition(&status.Conditions, hub.Generation, seen.now, c)
	}
	if !seen.settingsUnknown() || meta.FindStatusCondition(status.Conditions, switchboardv1alpha1.ConditionConfigApplied) == nil {
		setCondition(&status.Conditions, hub.Generation, seen.now, configAppliedCondition(hub, seen))
	}
	setTopicsAccepted(&status.Conditions, hub.Generation, seen)
	setGrantsAccepted(&status.Conditions, hub.Generation, seen)
	setCertificates(hub, &status, seen)
	setAuthentication(hub, &status, seen)
	setLinksEncrypted(hub, &status, seen)
	setGossipKeyRotated(hub, &status, seen)
	if seen.err == nil && !hub.Spec.Paused { // else nobody has looked
		mirror(&status.Conditions, hub.Generation, seen.now, switchboardv1alpha1.ConditionUpdateAvailable, updateCondition(hub, seen.update), seen.update.available)
	}
	mirror(&status.Conditions, hub.Generation, seen.now, switchboardv1alpha1.ConditionReconciling, progressing, progressing.Status == metav1.ConditionTrue)
	mirror(&status.Conditions, hub.Generation, seen.now, switchboardv1alpha1.ConditionStalled, degraded, switchboardv1alpha1.NeedsPerson(degraded.Reason))
	return status
}

// counts is how many nodes exist and are ready. A StatefulSet that was just made
// does not know its pods yet.
func (o *observed) counts() (nodes, ready int32) {
	if o.workload != nil && o.workload.Status.ObservedGeneration > 0 {
		return o.workload.Status.Replicas, o.workload.Status.ReadyReplicas
	}
	for i := range o.nodes {
		nodes++
		if o.nodes[i].ready {
			ready++
		}
	}
	return nodes, ready
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
	case switchboardv1alpha1.NeedsPerson(degraded):
		c.Status = metav1.ConditionFalse
		c.Reason = switchboardv1alpha1.ReasonBlocked
		c.Message = "see the condition Degraded"
	case seen.err != nil:
		c.Reason = switchboardv1alpha1.ReasonApplyFailed
		c.Message = "trying again; see the condition Degraded"
	case seen.certificates.held():
		c.Reason = switchboardv1alpha1.ReasonAwaitingCertificates
		c.Message = "no node is started or changed before there is a certificate; see the condition CertificatesReady"
	case seen.authentication.held():
		c.Reason = switchboardv1alpha1.ReasonAwaitingKeys
		c.Message = "no node is started or changed before it is known by which keys clients are; see the condition AuthenticationReady"
	case seen.cluster.held():
		c.Reason = switchboardv1alpha1.ReasonAwaitingCertificates
		c.Message = "no node is started or changed before there is a certificate for links between nodes; see the condition LinksEncrypted"
	case sts == nil || sts.Status.ObservedGeneration < sts.Generation:
		c.Reason = switchboardv1alpha1.ReasonRollingOut
		c.Message = "waiting for Kubernetes to act on the StatefulSet"
	case seen.rollout.blocked:
		c.Status = metav1.ConditionFalse
		c.Reason = switchboardv1alpha1.ReasonRolloutStuck
		c.Message = fmt.Sprintf("%d of %d nodes run an earlier pod template, and no further one is replaced: %s", seen.rollout.outdated, want, seen.rollout.stuck)
	case seen.scale.waiting != "":
		c.Reason = switchboardv1alpha1.ReasonScaling
		c.Message = seen.scale.waiting
	case len(seen.volumes.growing) > 0:
		c.Reason = switchboardv1alpha1.ReasonVolumesGrowing
		c.Message = "volumes grow: " + enumerate(seen.volumes.growing)
	case len(seen.lasts.missing) > 0 && seen.rollout.outdated > 0 && hub.Spec.Updates.Strategy != switchboardv1alpha1.UpdateOnDelete:
		c.Status = metav1.ConditionFalse
		c.Reason = switchboardv1alpha1.ReasonRolloutStuck
		c.Message = stuckMessage(seen.rollout.outdated, want, seen.withoutPod())
	case sts.Status.Replicas != want:
		c.Reason = switchboardv1alpha1.ReasonScaling
		c.Message = fmt.Sprintf("%d nodes exist, %d are wanted", sts.Status.Replicas, want)
	case seen.rollout.stuck != "":
		c.Status = metav1.ConditionFalse
		c.Reason = switchboardv1alpha1.ReasonRolloutStuck
		c.Message = stuckMessage(seen.rollout.outdated, want, seen.rollout.stuck)
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

func stuckMessage(outdated int, want int32, why string) string {
	return fmt.Sprintf("%d of %d nodes run an earlier pod template, and no further one is replaced: %s. Correct the spec, or set it back", outdated, want, why)
}

// updateCondition says what this operator would change of nodes that an earlier one
// has started.
func updateCondition(hub *switchboardv1alpha1.Hub, u update) metav1.Condition {
	what := "this operator would start nodes by another pod template"
	if u.from != u.to {
		what = fmt.Sprintf("nodes run %s, this operator would run %s", u.from, u.to)
	}
	return metav1.Condition{
		Reason: switchboardv1alpha1.ReasonOperatorUpdated,
		Message: fmt.Sprintf("%s. They take it over with the next change of the spec that replaces nodes, or when asked to restart: kubectl annotate hub %s -n %s --overwrite %s=$(date +%%FT%%TZ)",
			what, hub.Name, hub.Namespace, manifests.AnnotationRestartedAt),
	}
}

// settingsUnknown reports whether the pass ended before it knew which settings nodes should
// run, for something that says nothing of them: what was said of them goes on.
func (o *observed) settingsUnknown() bool {
	_, invalid := errors.AsType[*InvalidSpecError](o.err)
	return o.err != nil && o.configHash == "" && !invalid
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
	var some few
	for _, item := range items {
		some.add(item)
	}
	return some.String()
}

// few names some of many things: what fits a message.
type few struct {
	named []string
	n     int
}

func (f *few) add(name string) {
	if f.n++; len(f.named) < namedAtMost {
		f.named = append(f.named, name)
	}
}

func (f *few) String() string {
	text := strings.Join(f.named, ", ")
	if n := f.n - len(f.named); n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
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

// pollAfter says when to look again although nothing happened in the cluster, in
// which all Hubs together have so many nodes.
func pollAfter(status switchboardv1alpha1.HubStatus, allNodes int) time.Duration {
	is := func(condition string, want metav1.ConditionStatus) bool {
		return meta.IsStatusConditionPresentAndEqual(status.Conditions, condition, want)
	}
	applied := meta.FindStatusCondition(status.Conditions, switchboardv1alpha1.ConditionConfigApplied)
	applying := applied != nil && applied.Reason == switchboardv1alpha1.ReasonApplying
	atRest := status.SafeToRestart && is(switchboardv1alpha1.ConditionConfigApplied, metav1.ConditionTrue) && is(switchboardv1alpha1.ConditionDegraded, metav1.ConditionFalse)
	switch {
	case applying || is(switchboardv1alpha1.ConditionProgressing, metav1.ConditionTrue) || is(switchboardv1alpha1.ConditionGossipKeyRotated, metav1.ConditionFalse):
		return pollChanging
	case atRest:
		return max(pollSettled, time.Duration(allNodes)*time.Second/asksInASecond)
	default:
		return pollSettled
	}
}

// writeStatus writes the status if it is another one, and tells what changed.
func (r *HubReconciler) writeStatus(ctx context.Context, hub *switchboardv1alpha1.Hub, status switchboardv1alpha1.HubStatus) error {
	if equality.Semantic.DeepEqual(hub.Status, status) {
		return nil
	}
	before := hub.DeepCopy()
	hub.Status = status
	if err := r.patchStatus(ctx, hub, before); err != nil {
		return err
	}
	for _, n := range noticesOf(before, hub) {
		r.tell(hub, n)
	}
	return nil
}

// patchStatus writes the status that a Hub or Topic has now; before is how it was.
func (r *HubReconciler) patchStatus(ctx context.Context, now, before client.Object) error {
	err := r.Status().Patch(ctx, now, client.MergeFrom(before), client.FieldOwner(FieldOwner))
	if missingPermission(err) { // so there is no condition to tell it
		r.tell(now, notice{corev1.EventTypeWarning, switchboardv1alpha1.ReasonMissingPermission, err.Error()})
	}
	if err := client.IgnoreNotFound(err); err != nil { // not found: deleted meanwhile
		return fmt.Errorf("write the status of %s/%s: %w", now.GetNamespace(), now.GetName(), err)
	}
	return nil
}
