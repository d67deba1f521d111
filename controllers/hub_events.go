package controllers

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// noticeBytes is what the API server takes as an event's text.
const noticeBytes = 1024

// notice is an event about a Hub, a Topic or a Grant.
type notice struct {
	kind, reason, text string
}

// noticesOf says what is worth an event between two statuses of a Hub: bad news
// when it is new, and the end of it.
func noticesOf(before, after *switchboardv1alpha1.Hub) []notice {
	var ns []notice
	turned := func(t string) (c *metav1.Condition, changed bool) {
		old := meta.FindStatusCondition(before.Status.Conditions, t)
		c = meta.FindStatusCondition(after.Status.Conditions, t)
		changed = c != nil && (old == nil || old.Status != c.Status || old.Reason != c.Reason)
		return c, changed
	}
	if c, changed := turned(switchboardv1alpha1.ConditionDegraded); changed {
		if c.Status == metav1.ConditionTrue {
			ns = append(ns, notice{corev1.EventTypeWarning, c.Reason, c.Message})
		} else if meta.IsStatusConditionTrue(before.Status.Conditions, switchboardv1alpha1.ConditionDegraded) {
			ns = append(ns, notice{corev1.EventTypeNormal, "Recovered", c.Message})
		}
	}
	if c, changed := turned(switchboardv1alpha1.ConditionAvailable); changed {
		switch {
		case c.Status == metav1.ConditionTrue:
			ns = append(ns, notice{corev1.EventTypeNormal, switchboardv1alpha1.ConditionAvailable, c.Message + "; clients connect to " + after.Status.Address})
		case meta.IsStatusConditionTrue(before.Status.Conditions, switchboardv1alpha1.ConditionAvailable):
			ns = append(ns, notice{corev1.EventTypeWarning, c.Reason, c.Message})
		}
	}
	if c, changed := turned(switchboardv1alpha1.ConditionConfigApplied); changed {
		switch c.Reason {
		case switchboardv1alpha1.ReasonRejected:
			ns = append(ns, notice{corev1.EventTypeWarning, c.Reason, c.Message})
		case switchboardv1alpha1.ReasonApplied:
			ns = append(ns, notice{corev1.EventTypeNormal, c.Reason, c.Message})
		}
	}
	for _, t := range []string{switchboardv1alpha1.ConditionCertificatesReady, switchboardv1alpha1.ConditionAuthenticationReady} {
		c, changed := turned(t)
		switch {
		case !changed:
		case c.Status != metav1.ConditionTrue:
			ns = append(ns, notice{corev1.EventTypeWarning, c.Reason, c.Message})
		case meta.IsStatusConditionFalse(before.Status.Conditions, t):
			ns = append(ns, notice{corev1.EventTypeNormal, t, c.Message})
		}
	}
	return ns
}

func (r *HubReconciler) tell(about runtime.Object, n notice) {
	if len(n.text) > noticeBytes {
		n.text = strings.ToValidUTF8(n.text[:noticeBytes], "")
	}
	r.Recorder.Eventf(about, nil, n.kind, n.reason, "Reconcile", "%s", n.text)
}
