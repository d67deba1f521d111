package controllers

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/controllers/pki"
)

// certificates is what a pass saw of the nodes' certificate, and made of it.
type certificates struct {
	// looked: the pass came to look at them.
	looked bool
	// have is what nodes have now; nil: nothing that they could start with.
	have *pki.Credentials
	// rotation is how far another authority is on its way.
	rotation manifests.Rotation
	// renews is when the operator replaces what nodes have, where it does.
	renews *time.Time
	// trouble is why nodes can't have what they should; nil: nothing.
	trouble *certificateTrouble
	// remark is something about what nodes have that a person may not expect.
	remark string
}

// certificateTrouble is why there is no certificate.
type certificateTrouble struct {
	reason, message string
	// passes: an issuer may only need its time.
	passes bool
}

// held reports whether nodes wait for their first certificate.
func (c *certificates) held() bool { return c.looked && c.have == nil }

// after says when to look again because of the time alone; 0: whenever.
func (c *certificates) after(now time.Time) time.Duration {
	var at time.Time
	switch {
	case !c.rotation.Since.IsZero():
		at = c.rotation.Since.Add(spreadTime)
	case c.renews != nil:
		at = *c.renews
	case c.have != nil:
		at = c.have.Leaf().NotAfter
	default:
		return 0
	}
	return max(at.Sub(now)+time.Second, 0)
}

// applyCertificates sees to it that nodes have a certificate, and that clients can
// read whom to trust. What nodes have stays when there is no other.
func (r *HubReconciler) applyCertificates(ctx context.Context, p *pass) error {
	hub := p.hub
	refused, err := r.applyClusterCertificates(ctx, p)
	if err != nil {
		return err
	}
	if cant := refusedRequest(hub); cant != "" {
		refused = cant
	}
	if refused != "" || !manifests.ServesTLS(hub) {
		if err := r.endRequest(ctx, hub, refused); err != nil {
			return err
		}
	}
	if !manifests.ServesTLS(hub) {
		return nil
	}
	secret, err := r.nodeSecret(ctx, hub, manifests.NodeTLSName(hub))
	if err != nil {
		return err
	}
	trust, err := r.readTrust(ctx, hub)
	if err != nil {
		return err
	}
	source, trouble, err := r.certificateSource(ctx, p, secret, trust.exists)
	if err != nil {
		return err
	}
	c := &p.seen.certificates
	*c = certificates{looked: true, have: secret.have, rotation: secret.rotation, trouble: trouble}
	if trouble != nil {
		// What was asked for has come to the cluster port, and must not at each look.
		if err := r.endRequest(ctx, hub, trouble.message); err != nil || secret.have == nil {
			return err
		}
		return r.applyTrust(ctx, hub, secret.have)
	}

	plan := planCertificate(certificateView{
		now: p.seen.now, source: source, have: secret.have, rotation: secret.rotation,
		told: secret.have != nil && trust.text == string(pki.EncodeCertificates(secret.have.Authorities)), trusted: trust.ours,
	})
	next := secret.have
	if plan.replace {
		next = source.offer
	}
	next = next.Trusting(plan.authorities)
	rotation, err := r.giveToNodes(ctx, p, secret.live, next, plan.rotation, manifests.NodeTLSSecret, r.applyTrust)
	if err != nil {
		return err
	}
	c.have, c.rotation = next, rotation
	r.tellOfCertificates(hub, "", secret, next, plan)
	if source.renews {
		c.renews = new(pki.RenewAt(next.Leaf()))
	} else if err := next.Leaf().VerifyHostname(manifests.Host(hub)); err != nil {
		c.remark = "it is not valid for " + manifests.Host(hub) + ", by which clients in the cluster connect"
	}
	if hub.Annotations[manifests.AnnotationRotate] == manifests.RotateAuthority && !source.made {
		return r.endRequest(ctx, hub, "a rotation is under way already")
	}
	return r.endRequest(ctx, hub, "")
}

// nodeSecret is the Secret that nodes mount.
type nodeSecret struct {
	live *corev1.Secret // empty when there is none
	// have is what the operator wrote into it and nobody has changed; nil: nothing.
	have     *pki.Credentials
	rotation manifests.Rotation
}

// nodeSecret reads what nodes have. What somebody else wrote into the Secret is as if
// it were not there: whoever may write it must not bring in an authority.
func (r *HubReconciler) nodeSecret(ctx context.Context, hub *switchboardv1alpha1.Hub, name string) (nodeSecret, error) {
	live, err := r.ownSecret(ctx, hub, name)
	s := nodeSecret{live: live}
	if err != nil || live.UID == "" {
		return s, err
	}
	owned, err := corev1ac.ExtractSecret(live, FieldOwner)
	if err != nil {
		return s, fmt.Errorf("find what we own of Secret %s: %w", live.Name, err)
	}
	if have, err := pki.ParseCredentials(owned.Data); err == nil {
		s.have, s.rotation = have, manifests.RotationIn(owned.Annotations)
	}
	return s, nil
}

// trust is whom clients are told to trust.
type trust struct {
	exists bool
	text   string
	// ours are those that the operator wrote and nobody has changed.
	ours []*x509.Certificate
}

// readTrust reads what clients read.
func (r *HubReconciler) readTrust(ctx context.Context, hub *switchboardv1alpha1.Hub) (trust, error) {
	live := &corev1.ConfigMap{}
	err := r.Get(ctx, client.ObjectKey{Namespace: hub.Namespace, Name: manifests.AuthorityName(hub)}, live)
	if apierrors.IsNotFound(err) {
		return trust{}, nil
	}
	if err != nil {
		return trust{}, fmt.Errorf("read the ConfigMap of authorities: %w", err)
	}
	owned, err := corev1ac.ExtractConfigMap(live, FieldOwner)
	if err != nil {
		return trust{}, fmt.Errorf("find what we own of ConfigMap %s: %w", live.Name, err)
	}
	ours, _ := pki.ParseCertificates([]byte(owned.Data[pki.AuthoritiesKey])) // none of what somebody wrote
	return trust{exists: true, text: live.Data[pki.AuthoritiesKey], ours: ours}, nil
}

func (r *HubReconciler) applyTrust(ctx context.Context, hub *switchboardv1alpha1.Hub, have *pki.Credentials) error {
	return apply(ctx, r, hub, &corev1.ConfigMap{}, manifests.TrustConfigMap(hub, pki.EncodeCertificates(have.Authorities)), corev1ac.ExtractConfigMap)
}

// giveToNodes writes what nodes are to have, as holding makes a Secret of it, and then
// what follows from it. The time of a phase of a rotation begins when both are
// written; it returns the rotation with it.
func (r *HubReconciler) giveToNodes(
	ctx context.Context, p *pass, live *corev1.Secret, next *pki.Credentials, rotation manifests.Rotation,
	holding func(*switchboardv1alpha1.Hub, map[string][]byte, manifests.Rotation) *corev1ac.SecretApplyConfiguration,
	then func(context.Context, *switchboardv1alpha1.Hub, *pki.Credentials) error,
) (manifests.Rotation, error) {
	data, err := next.Data()
	if err != nil {
		return rotation, err
	}
	// Applied, also when it is not there: only of what was applied is known who
	// wrote it.
	err = applyOver(ctx, r, p.hub, live, holding(p.hub, data, rotation), corev1ac.ExtractSecret, client.DisableReadYourWritesConsistency)
	if err != nil {
		return rotation, err
	}
	if err := then(ctx, p.hub, next); err != nil {
		return rotation, err
	}
	if rotation.Phase == "" || !rotation.Since.IsZero() {
		return rotation, nil
	}
	rotation.Since = p.seen.now.UTC().Truncate(time.Second)
	desired := holding(p.hub, data, rotation)
	err = r.write(ctx, p.hub, "Secret", *desired.GetName(), true, desired, client.DisableReadYourWritesConsistency)
	return rotation, err
}

// tellOfCertificates tells what a pass has changed of those that are for something.
func (r *HubReconciler) tellOfCertificates(hub *switchboardv1alpha1.Hub, what string, before nodeSecret, have *pki.Credentials, plan certificatePlan) {
	tell := func(reason, format string, args ...any) {
		r.tell(hub, notice{corev1.EventTypeNormal, reason, fmt.Sprintf(format, args...)})
	}
	was, is := before.rotation.Phase, plan.rotation.Phase
	if was == "" && is == manifests.RotationTrust {
		tell(switchboardv1alpha1.ReasonRotationStarted, "%snodes and clients are told to trust %q, too; nodes get a certificate of it after %s", what, pki.Describe(have.Authorities[0]), spreadTime)
	}
	switch {
	case plan.replace && before.have == nil:
		tell(switchboardv1alpha1.ReasonCertificateReplaced, "%snodes get a certificate, valid until %s", what, date(have.Leaf().NotAfter))
	case plan.replace:
		tell(switchboardv1alpha1.ReasonCertificateReplaced, "%snodes get another certificate, valid until %s", what, date(have.Leaf().NotAfter))
	}
	if was == manifests.RotationIssue && is == "" {
		tell(switchboardv1alpha1.ReasonRotationFinished, "%sonly %q is trusted from now on", what, pki.Describe(have.Authorities[0]))
	}
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }
