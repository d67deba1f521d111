package controllers

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

const (
	// notReadyGrace is how long a node may take to become ready, again too, or to
	// be gone, before the Hub counts as degraded.
	notReadyGrace = time.Minute
	// outOfMemoryShown is how long a node that was killed for its memory, and runs
	// again, is shown.
	outOfMemoryShown = 10 * time.Minute
)

// trouble is one thing that is wrong, and what to do about it.
type trouble struct{ reason, message string }

// degradedCondition names all that is wrong, the worst first.
func degradedCondition(seen *observed) metav1.Condition {
	c := metav1.Condition{Type: switchboardv1alpha1.ConditionDegraded, Status: metav1.ConditionTrue}
	if seen.err != nil {
		c.Reason = reasonOf(seen.err)
		c.Message = seen.err.Error()
		return c
	}
	var messages []string
	for _, t := range seen.troubles() {
		if t.message != "" {
			c.Reason = cmp.Or(c.Reason, t.reason)
			messages = append(messages, t.message)
		}
	}
	if len(messages) > 0 {
		c.Message = strings.Join(messages, ". ")
		return c
	}
	c.Status = metav1.ConditionFalse
	c.Reason = switchboardv1alpha1.ReasonAsExpected
	c.Message = "nothing is known to be wrong"
	return c
}

// troubles are all that is wrong with the Hub's nodes, the worst first; of what is
// not wrong the message is empty. What they say is the same for as long as the
// cause is.
func (o *observed) troubles() []trouble {
	var failing, full, short []string
	for i := range o.nodes {
		n := &o.nodes[i]
		why := whyFailing(&n.pod, o.now)
		if n.away != "" {
			why = strings.TrimPrefix(why+"; it is without its shards, for its disk can't be opened: "+n.away, "; ")
		}
		if why != "" {
			failing = append(failing, n.pod.Name+": "+why)
		}
		if disk := n.report.Disk; n.err == nil && disk != nil && disk.FullSince != nil {
			full = append(full, fmt.Sprintf("%s since %s", n.pod.Name, disk.FullSince.UTC().Format(time.RFC3339)))
		}
		if since := n.report.Memory.ShortSince; n.err == nil && since != nil {
			short = append(short, fmt.Sprintf("%s since %s", n.pod.Name, since.UTC().Format(time.RFC3339)))
		}
	}
	for i := range o.leaving {
		if why := whyNotGone(&o.leaving[i], o.now); why != "" {
			failing = append(failing, o.leaving[i].Name+": "+why)
		}
	}
	lost, withoutLeader := o.quorumLost(len(failing)+len(o.lasts.missing) > 0), o.withoutLeader()
	if lost != "" {
		withoutLeader = "" // it is why
	}
	return []trouble{
		{switchboardv1alpha1.ReasonVolumesNotGrown, o.volumes.trouble()},
		{switchboardv1alpha1.ReasonQuorumLost, lost},
		{switchboardv1alpha1.ReasonShardsWithoutLeader, withoutLeader},
		{switchboardv1alpha1.ReasonNodesFailing, enumerate(failing)},
		{switchboardv1alpha1.ReasonNodesFailing, o.withoutPod()},
		{switchboardv1alpha1.ReasonCertificatesNotReady, o.certificates.wrong("certificates")},
		{switchboardv1alpha1.ReasonCertificatesNotReady, o.cluster.wrong("certificates for links between nodes")},
		{switchboardv1alpha1.ReasonAuthenticationNotReady, o.authentication.wrong()},
		{switchboardv1alpha1.ReasonDiskFull, said(full, "disks are nearly full, and publishes to what these nodes lead are refused; raise spec.storage.size, or keep less by maxBytes or maxAge: %s")},
		{switchboardv1alpha1.ReasonMemoryShort, said(short, "nodes are short of memory, and refuse new clients; raise spec.resources.limits.memory or spec.replicas, or lower spec.limits.maxPendingBytes: %s")},
	}
}

// said puts the items into a text, if there are any.
func said(items []string, text string) string {
	if len(items) == 0 {
		return ""
	}
	return fmt.Sprintf(text, enumerate(items))
}

// quorumLost says how many shards have no leader while nodes fail. Without that, a
// leader is just being elected, or has not been for long: see withoutLeader.
func (o *observed) quorumLost(failing bool) string {
	h := o.history()
	if !failing || h.Led >= h.Shards {
		return ""
	}
	return fmt.Sprintf("%d of %d shards have lost the majority of their nodes, and refuse what is published; bring these nodes back, with their disks", h.Shards-h.Led, h.Shards)
}

// reasonOf sorts the errors that stop applying.
func reasonOf(err error) string {
	var taken *NameTakenError
	var invalid *InvalidSpecError
	var secret *InvalidSecretError
	switch {
	case missingPermission(err):
		return switchboardv1alpha1.ReasonMissingPermission
	case errors.As(err, &taken):
		return switchboardv1alpha1.ReasonNameTaken
	case errors.As(err, &invalid):
		return switchboardv1alpha1.ReasonInvalidSpec
	case errors.As(err, &secret):
		return switchboardv1alpha1.ReasonInvalidSecret
	}
	return switchboardv1alpha1.ReasonApplyFailed
}

// missingPermission reports whether the API server refused a right. A quota or
// a policy refuses with the same status and says something else.
func missingPermission(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), " cannot ")
}

// whyFailing says why a pod does not work, or nothing when it works or may yet
// be starting.
func whyFailing(pod *corev1.Pod, now time.Time) string {
	if why := whyDead(pod); why != "" {
		return why
	}
	if why := whyNotReady(pod, now); why != "" {
		return why
	}
	for _, cs := range pod.Status.ContainerStatuses {
		if t := cs.LastTerminationState.Terminated; t != nil && t.Reason == outOfMemory && now.Sub(t.FinishedAt.Time) < outOfMemoryShown {
			return "was killed for its memory at " + t.FinishedAt.UTC().Format(time.RFC3339) + ": raise spec.resources.limits.memory"
		}
	}
	return ""
}

// whyNotReady says that a pod has not been ready for long, or nothing.
func whyNotReady(pod *corev1.Pod, now time.Time) string {
	c := podCondition(pod, corev1.PodReady)
	if c == nil || c.Status == corev1.ConditionTrue || now.Sub(c.LastTransitionTime.Time) <= notReadyGrace {
		return ""
	}
	why := "not ready for more than " + notReadyGrace.String()
	if unheard(pod) {
		why += "; " + machineLost(pod)
	}
	return why
}

// whyNotGone says why a pod that was deleted is still there, or nothing when it may
// yet be ending. One whose machine was lost before will not end.
func whyNotGone(pod *corev1.Pod, now time.Time) string {
	switch {
	case pod.DeletionTimestamp == nil:
		return ""
	case now.Sub(pod.DeletionTimestamp.Time) >= notReadyGrace: // the timestamp is when its grace ends
		return "does not end; " + machineLost(pod)
	case unheard(pod):
		return whyNotReady(pod, now)
	}
	return ""
}

// unheard says whether Kubernetes took a pod for not ready because it does not hear of the
// pod's machine: the kubelet says of no pod that it is not ready while its containers are, but
// for one that waits for the word of somebody else.
func unheard(pod *corev1.Pod) bool {
	for _, gate := range pod.Spec.ReadinessGates {
		if c := podCondition(pod, gate.ConditionType); c == nil || c.Status != corev1.ConditionTrue {
			return false
		}
	}
	c := podCondition(pod, corev1.ContainersReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// machineLost says what to do about the machine of a pod that nothing is heard of. Neither is
// done by the operator: whether a machine is off, Kubernetes can't know.
func machineLost(pod *corev1.Pod) string {
	return fmt.Sprintf("its machine %[1]s seems to be lost. Once that is certainly off: kubectl taint node %[1]s %[2]s=nodeshutdown:NoExecute, until it is back; when it never will be: kubectl delete node %[1]s", pod.Spec.NodeName, corev1.TaintNodeOutOfService)
}

const outOfMemory = "OOMKilled" // the kubelet's word

// whyDead says why a pod's containers don't run, or nothing when they do or may
// yet be starting.
func whyDead(pod *corev1.Pod) string {
	if pod.Status.Phase == corev1.PodFailed { // by the kubelet; the StatefulSet makes another
		return strings.TrimSpace(fmt.Sprintf("ended by the kubelet: %s %s", pod.Status.Reason, lastWords(pod.Status.Message)))
	}
	for _, cs := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		w := cs.State.Waiting
		if w == nil || w.Reason == "ContainerCreating" || w.Reason == "PodInitializing" {
			continue
		}
		t := cs.LastTerminationState.Terminated
		switch {
		case strings.Contains(w.Reason, "Image"):
			return fmt.Sprintf("%s: %s; correct spec.image or spec.imagePullSecrets", w.Reason, lastWords(w.Message))
		case t == nil && w.Message != "":
			return w.Reason + ": " + lastWords(w.Message)
		case t == nil:
			return w.Reason
		case t.Reason == outOfMemory:
			return w.Reason + " after it was killed for its memory: raise spec.resources.limits.memory"
		case t.Message != "":
			return fmt.Sprintf("%s after exit status %d: %s", w.Reason, t.ExitCode, lastWords(t.Message))
		}
		return fmt.Sprintf("%s after exit status %d", w.Reason, t.ExitCode)
	}
	if c := podCondition(pod, corev1.PodScheduled); c != nil && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
		return "can't be scheduled: " + c.Message + volumeAway(pod, c.Message)
	}
	return ""
}

// volumeAway says what to do when the scheduler, by its own words, has no machine for a pod
// because the pod's volume is on one of the others.
func volumeAway(pod *corev1.Pod, why string) string {
	if !strings.Contains(why, "PersistentVolume's node affinity") && !strings.Contains(why, "volume node affinity conflict") { // the latter before Kubernetes 1.34
		return ""
	}
	for _, v := range pod.Spec.Volumes {
		if v.PersistentVolumeClaim != nil && !v.PersistentVolumeClaim.ReadOnly { // those of the spec are read only
			return fmt.Sprintf(" Its volume is tied to a machine that takes no pods: bring that back; only when its disk is lost for good: kubectl delete pvc %[1]s -n %[2]s --wait=false, then kubectl delete pod %[3]s -n %[2]s", v.PersistentVolumeClaim.ClaimName, pod.Namespace, pod.Name)
		}
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
