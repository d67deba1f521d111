package controllers

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

// setCertificates says in the status what certificate nodes have, and whether it is
// what they should. A pass that did not come to look leaves what was said, as far as
// the time has not made it wrong.
func setCertificates(hub *switchboardv1alpha1.Hub, status *switchboardv1alpha1.HubStatus, seen *observed) {
	if !manifests.ServesTLS(hub) {
		status.Certificates = nil
		meta.RemoveStatusCondition(&status.Conditions, switchboardv1alpha1.ConditionCertificatesReady)
		return
	}
	c := &seen.certificates
	if c.have != nil || c.trouble != nil { // else nothing came of it: the error is in Degraded
		status.Certificates = c.status()
		setCondition(&status.Conditions, hub.Generation, seen.now, c.condition(seen.now))
		return
	}
	if had := status.Certificates; had != nil && seen.now.After(had.NotAfter.Time) {
		setCondition(&status.Conditions, hub.Generation, seen.now, expiredCondition(had.NotAfter.Time))
	}
}

func (c *certificates) status() *switchboardv1alpha1.CertificatesStatus {
	if c.have == nil {
		return nil
	}
	s := &switchboardv1alpha1.CertificatesStatus{NotAfter: metav1.NewTime(c.have.Leaf().NotAfter)}
	if c.renews != nil {
		s.RenewalTime = new(metav1.NewTime(*c.renews))
	}
	return s
}

// condition is CertificatesReady. Its message is the same for as long as the cause is.
func (c *certificates) condition(now time.Time) metav1.Condition {
	switch {
	case c.trouble != nil && c.have == nil:
		return noCertificates(c.trouble.reason, c.trouble.message)
	case c.trouble != nil:
		end := "valid until"
		if now.After(c.have.Leaf().NotAfter) {
			end = "which expired at"
		}
		return noCertificates(c.trouble.reason, fmt.Sprintf("%s. Nodes go on with the certificate that they have, %s %s", c.trouble.message, end, date(c.have.Leaf().NotAfter)))
	case now.After(c.have.Leaf().NotAfter):
		return expiredCondition(c.have.Leaf().NotAfter)
	}
	ready := metav1.Condition{Type: switchboardv1alpha1.ConditionCertificatesReady, Status: metav1.ConditionTrue, Reason: switchboardv1alpha1.ReasonRotating}
	until := date(c.rotation.Since.Add(spreadTime))
	switch c.rotation.Phase {
	case manifests.RotationTrust:
		ready.Message = "phase 1 of 3: nodes and clients get the new authority's certificate; from " + until + " on nodes get a certificate of it"
	case manifests.RotationIssue:
		ready.Message = "phase 2 of 3: nodes get a certificate of the new authority; from " + until + " on the old one is no longer trusted (phase 3)"
	default:
		ready.Reason = switchboardv1alpha1.ReasonIssued
		ready.Message = "nodes have a certificate that is valid until " + date(c.have.Leaf().NotAfter)
		if c.renews != nil {
			ready.Message += "; it is renewed at " + date(*c.renews)
		}
		if c.remark != "" {
			ready.Message += "; " + c.remark
		}
	}
	return ready
}

// wrong says what is wrong and does not pass by waiting for an issuer, or nothing.
func (c *certificates) wrong(what string) string {
	if c.trouble == nil || c.trouble.passes {
		return ""
	}
	return what + ": " + c.trouble.message
}

func noCertificates(reason, message string) metav1.Condition {
	return metav1.Condition{Type: switchboardv1alpha1.ConditionCertificatesReady, Status: metav1.ConditionFalse, Reason: reason, Message: message}
}

func expiredCondition(at time.Time) metav1.Condition {
	return noCertificates(switchboardv1alpha1.ReasonExpired, "the nodes' certificate expired at "+date(at)+": clients refuse it")
}
