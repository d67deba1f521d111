package controllers

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/controllers/pki"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

// clusterTLS is what a pass saw of how nodes link to each other, and made of it.
type clusterTLS struct {
	certificates // by which they know each other
	// required: the settings of this pass let them link by TLS only.
	required bool
}

// applyClusterCertificates sees to it that nodes have a certificate that they know each
// other by, whatever the spec says of clients. It says why a rotation that is asked for
// can't be.
func (r *HubReconciler) applyClusterCertificates(ctx context.Context, p *pass) (refused string, err error) {
	hub := p.hub
	secret, err := r.nodeSecret(ctx, hub, manifests.ClusterTLSName(hub))
	if err != nil {
		return "", err
	}
	source, trouble, err := r.ownSource(ctx, p, clusterIdentity(hub), secret, secret.have != nil)
	if err != nil {
		return "", err
	}
	c := &p.seen.cluster.certificates
	*c = certificates{looked: true, have: secret.have, rotation: secret.rotation, trouble: trouble}
	if trouble != nil {
		return trouble.message, nil
	}
	plan := planCertificate(certificateView{now: p.seen.now, source: source, have: secret.have, rotation: secret.rotation, told: true})
	next := secret.have
	if plan.replace {
		next = source.offer
	}
	next = next.Trusting(plan.authorities)
	nobodyElse := func(context.Context, *switchboardv1alpha1.Hub, *pki.Credentials) error { return nil }
	rotation, err := r.giveToNodes(ctx, p, secret.live, next, plan.rotation, manifests.ClusterTLSSecret, nobodyElse)
	if err != nil {
		return "", err
	}
	c.have, c.rotation, c.renews = next, rotation, new(pki.RenewAt(next.Leaf()))
	r.tellOfCertificates(hub, "links between nodes: ", secret, next, plan)
	if hub.Annotations[manifests.AnnotationRotate] == manifests.RotateAuthority && !source.made {
		return "a rotation is under way already", nil
	}
	return "", nil
}

// withoutClusterTLS are the nodes that say that they don't speak TLS to each other, or
// say nothing of it.
func (o *observed) withoutClusterTLS() (names []string) {
	for i := range o.nodes {
		if n := &o.nodes[i]; n.answers() && !speaksClusterTLS(n) {
			names = append(names, n.pod.Name)
		}
	}
	return names
}

func speaksClusterTLS(n *observedNode) bool {
	return n.report.ClusterTLS == config.TLSOptional || n.report.ClusterTLS == config.TLSRequired
}

// canRequireClusterTLS reports whether nodes are to link by TLS only: once each of them
// has said that it speaks it, until one says that it does not. Nodes of before would
// not start with such settings, and those that leave are not to be cut off.
func (o *observed) canRequireClusterTLS(want int32) bool {
	switch {
	case len(o.withoutClusterTLS()) > 0:
		return false
	case o.requiresClusterTLS:
		return true
	}
	silent := slices.ContainsFunc(o.nodes, func(n observedNode) bool { return !n.answers() })
	return len(o.nodes) > 0 && int32(len(o.nodes)) >= want && len(o.leaving) == 0 && !silent
}

// setLinksEncrypted says in the status how nodes link to each other. A pass that did not
// come to look leaves what was said.
func setLinksEncrypted(hub *switchboardv1alpha1.Hub, status *switchboardv1alpha1.HubStatus, seen *observed) {
	if !seen.cluster.looked {
		return
	}
	c := seen.linksEncrypted()
	if c.Reason == "" {
		meta.RemoveStatusCondition(&status.Conditions, switchboardv1alpha1.ConditionLinksEncrypted)
		return
	}
	c.Type = switchboardv1alpha1.ConditionLinksEncrypted
	setCondition(&status.Conditions, hub.Generation, seen.now, c)
}

// linksEncrypted is that condition; without a reason while there is no node to speak of.
func (o *observed) linksEncrypted() metav1.Condition {
	c := &o.cluster
	no := func(reason, format string, args ...any) metav1.Condition {
		return metav1.Condition{Status: metav1.ConditionFalse, Reason: reason, Message: fmt.Sprintf(format, args...)}
	}
	without := o.withoutClusterTLS()
	var behind, silent []string
	for i := range o.nodes {
		switch n := &o.nodes[i]; {
		case !n.answers(): // it may not run, and begins with the settings that there are
			silent = append(silent, n.pod.Name)
		case n.report.ClusterTLS != config.TLSRequired:
			behind = append(behind, n.pod.Name)
		}
	}
	switch {
	case c.trouble != nil:
		return no(c.trouble.reason, "%s", c.trouble.message)
	case c.have == nil || len(o.nodes) == 0:
		return metav1.Condition{}
	case o.now.After(c.have.Leaf().NotAfter):
		return no(switchboardv1alpha1.ReasonExpired, "the certificate for links between nodes expired at %s: links that end can't be made again", date(c.have.Leaf().NotAfter))
	case len(without) > 0:
		return no(switchboardv1alpha1.ReasonNodesWithoutTLS, "links of these nodes are plain until they are replaced, as by a restart, and plain ones are accepted by all: %s", enumerate(without))
	case !c.required && len(silent) > 0:
		return no(switchboardv1alpha1.ReasonNodesGoingOver, "plain links are refused once every node has said that it speaks TLS; nothing is heard of %s", enumerate(silent))
	case !c.required:
		return no(switchboardv1alpha1.ReasonNodesGoingOver, "plain links are refused once every node is there, and none of before")
	case len(behind) > 0:
		return no(switchboardv1alpha1.ReasonNodesGoingOver, "plain links are not yet refused by %s", enumerate(behind))
	}
	return metav1.Condition{Status: metav1.ConditionTrue, Reason: switchboardv1alpha1.ReasonLinksRequireTLS, Message: "nodes link to each other by TLS only; " + c.progress()}
}

// progress says how far the certificate is on its way to another one.
func (c *clusterTLS) progress() string {
	until := date(c.rotation.Since.Add(spreadTime))
	switch c.rotation.Phase {
	case manifests.RotationTrust:
		return "phase 1 of 3 of a rotation: nodes are told to trust the new authority; from " + until + " on they get a certificate of it"
	case manifests.RotationIssue:
		return "phase 2 of 3 of a rotation: nodes get a certificate of the new authority; from " + until + " on the old one is no longer trusted (phase 3)"
	}
	return "their certificate is valid until " + date(c.have.Leaf().NotAfter) + ", and renewed at " + date(*c.renews)
}
