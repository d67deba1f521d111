package controllers

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/controllers/pki"
)

// certificateSource finds where the Hub's certificates come from, or why there is
// none. known says that clients were told of authorities before.
func (r *HubReconciler) certificateSource(ctx context.Context, p *pass, secret nodeSecret, known bool) (*certificateSource, *certificateTrouble, error) {
	switch tls := p.hub.Spec.TLS; {
	case tls.SecretName != "":
		return r.givenSource(ctx, p, tls.SecretName)
	case tls.IssuerRef != nil:
		return r.issuerSource(ctx, p)
	}
	return r.ownSource(ctx, p, clientIdentity(p.hub), secret, known)
}

// identity is what nodes prove who they are by, on one port, where an authority of the
// Hub's own issues it.
type identity struct {
	authority string // the Secret with the authority
	holding   func(*switchboardv1alpha1.Hub, map[string][]byte) *corev1ac.SecretApplyConfiguration
	names     pki.Names
	// made and lost are what is told of an authority that is the first one, or one in
	// place of another that is not there.
	made, lost string
}

// clientIdentity is that of the client port.
func clientIdentity(hub *switchboardv1alpha1.Hub) *identity {
	name := manifests.AuthorityName(hub)
	return &identity{
		authority: name, holding: manifests.AuthoritySecret, names: manifests.CertificateNames(hub),
		made: "a certificate authority is made for this Hub; clients find its certificate in ConfigMap " + name,
		lost: fmt.Sprintf("there is no Secret %[1]s, so another certificate authority is made; clients have to get its certificate from ConfigMap %[1]s", name),
	}
}

// clusterIdentity is that of the cluster port.
func clusterIdentity(hub *switchboardv1alpha1.Hub) *identity {
	name := manifests.ClusterAuthorityName(hub)
	return &identity{
		authority: name, holding: manifests.ClusterAuthoritySecret, names: manifests.ClusterNames(hub),
		made: "a certificate authority is made for the links between this Hub's nodes",
		lost: fmt.Sprintf("there is no Secret %s, so another certificate authority is made for the links between nodes", name),
	}
}

// givenSource reads a Secret that somebody else keeps.
func (r *HubReconciler) givenSource(ctx context.Context, p *pass, name string) (*certificateSource, *certificateTrouble, error) {
	secret := &corev1.Secret{}
	err := r.Live.Get(ctx, client.ObjectKey{Namespace: p.hub.Namespace, Name: name}, secret)
	switch {
	case apierrors.IsNotFound(err):
		return nil, &certificateTrouble{
			reason:  switchboardv1alpha1.ReasonSecretNotFound,
			message: fmt.Sprintf("there is no Secret %q in namespace %s: make it, with the keys %s, %s and %s", name, p.hub.Namespace, pki.CertificateKey, pki.PrivateKeyKey, pki.AuthoritiesKey),
		}, nil
	case err != nil:
		return nil, nil, fmt.Errorf("read Secret %s: %w", name, err)
	}
	given, err := pki.ParseGiven(secret.Data)
	if err == nil {
		err = given.Verify(given.Authorities, p.seen.now)
	}
	if err != nil {
		return nil, invalidSecret(name, err), nil
	}
	return &certificateSource{authorities: given.Authorities, offer: given}, nil, nil
}

func invalidSecret(name string, err error) *certificateTrouble {
	t := &certificateTrouble{reason: switchboardv1alpha1.ReasonSecretInvalid, message: fmt.Sprintf("Secret %q, key %v", name, err)}
	if _, expired := errors.AsType[*pki.ExpiredError](err); expired {
		t.reason = switchboardv1alpha1.ReasonExpired
	}
	return t
}

// ownSource is the authority that the operator runs for the Hub. It makes one when
// there is none, when somebody asks for another, and before the one that there is
// ends. Its key is nowhere but in its Secret.
func (r *HubReconciler) ownSource(ctx context.Context, p *pass, id *identity, secret nodeSecret, known bool) (*certificateSource, *certificateTrouble, error) {
	name := id.authority
	live, err := r.ownSecret(ctx, p.hub, name)
	if err != nil {
		return nil, nil, err
	}
	exists, asked := live.UID != "", p.hub.Annotations[manifests.AnnotationRotate]
	authority, invalid := pki.ParseAuthority(live.Data)
	if exists && invalid != nil && asked != manifests.RotateAuthority {
		t := invalidSecret(name, invalid)
		t.message += ". Set it right, or delete the Secret: the operator makes another authority"
		return nil, t, nil
	}
	due := authorityDue(p, id, secret, exists, known, authority)
	source := &certificateSource{renews: true, made: due != nil}
	if due != nil {
		if authority, err = r.makeAuthority(ctx, p, id, live); err == nil {
			r.tell(p.hub, *due)
		}
	} else {
		data := map[string][]byte{pki.CertificateKey: live.Data[pki.CertificateKey], pki.PrivateKeyKey: live.Data[pki.PrivateKeyKey]}
		err = r.writeSecret(ctx, p.hub, live, id.holding(p.hub, data))
	}
	if err != nil {
		return nil, nil, err
	}
	source.authorities = []*x509.Certificate{authority.Certificate}
	source.offer, err = issueIfDue(authority, secret.have, id.names, asked == manifests.RotateCertificates, p.seen.now)
	if err != nil {
		return nil, &certificateTrouble{
			reason:  switchboardv1alpha1.ReasonSecretInvalid,
			message: fmt.Sprintf("what the authority in Secret %q issues is not valid: %v. Put another one into it, or delete the Secret: the operator makes another authority", name, err),
		}, nil
	}
	return source, nil, nil
}

// authorityDue says what to tell when another authority is made, nil when none is to
// be. exists and authority are what there is; authority is nil when that is none.
func authorityDue(p *pass, id *identity, secret nodeSecret, exists, known bool, authority *pki.Authority) *notice {
	switch {
	case !exists && known:
		return &notice{corev1.EventTypeWarning, switchboardv1alpha1.ReasonAuthorityMade, id.lost}
	case !exists:
		return &notice{corev1.EventTypeNormal, switchboardv1alpha1.ReasonAuthorityMade, id.made}
	}
	due := p.hub.Annotations[manifests.AnnotationRotate] == manifests.RotateAuthority ||
		authority != nil && authority.Ours() && !p.seen.now.Before(pki.RenewAt(authority.Certificate))
	if !due || authority != nil && secret.rotatesTo(authority) {
		return nil
	}
	return &notice{corev1.EventTypeNormal, switchboardv1alpha1.ReasonAuthorityMade, "another certificate authority is made, to replace the one before"}
}

// issueIfDue issues a certificate, unless what nodes have will do. again says that it
// won't.
func issueIfDue(authority *pki.Authority, have *pki.Credentials, names pki.Names, again bool, now time.Time) (*pki.Credentials, error) {
	ours := []*x509.Certificate{authority.Certificate}
	if have != nil && !again && have.Verify(ours, now) == nil && have.Covers(names) && now.Before(pki.RenewAt(have.Leaf())) {
		return nil, nil
	}
	issued, err := authority.Issue(names, now)
	if err != nil {
		return nil, err
	}
	return issued, issued.Verify(ours, now) // somebody may have brought an authority that may not issue this
}

// rotatesTo reports whether the authority is on its way to replace another one.
func (s *nodeSecret) rotatesTo(authority *pki.Authority) bool {
	return s.have != nil && (s.rotation.Phase != "" || s.have.Leaf().CheckSignatureFrom(authority.Certificate) != nil)
}

// makeAuthority makes an authority in place of what is live. One that came into being
// in between is never overwritten.
func (r *HubReconciler) makeAuthority(ctx context.Context, p *pass, id *identity, live *corev1.Secret) (*pki.Authority, error) {
	authority, err := pki.NewAuthority(p.hub.Name, p.seen.now)
	if err != nil {
		return nil, err
	}
	data, err := authority.Data()
	if err != nil {
		return nil, err
	}
	return authority, r.writeSecret(ctx, p.hub, live, id.holding(p.hub, data))
}

// issuerSource asks cert-manager, and reads what it has issued.
func (r *HubReconciler) issuerSource(ctx context.Context, p *pass) (*certificateSource, *certificateTrouble, error) {
	certificate, err := r.applyCertificate(ctx, p.hub)
	switch {
	case meta.IsNoMatchError(err), apierrors.IsNotFound(err):
		return nil, &certificateTrouble{
			reason:  switchboardv1alpha1.ReasonIssuerNotReady,
			message: "the cluster has no cert-manager, whose issuer spec.tls.issuerRef names: install it, or remove spec.tls.issuerRef",
		}, nil
	case err != nil:
		return nil, nil, err
	}
	if waiting := notIssued(certificate); waiting != "" {
		return nil, &certificateTrouble{
			reason: switchboardv1alpha1.ReasonIssuerNotReady, passes: true,
			message: fmt.Sprintf("cert-manager has not issued Certificate %q: %s", certificate.GetName(), waiting),
		}, nil
	}
	source, trouble, err := r.givenSource(ctx, p, manifests.IssuedName(p.hub))
	if trouble != nil && trouble.reason == switchboardv1alpha1.ReasonSecretNotFound { // cert-manager makes it again
		trouble.reason, trouble.passes = switchboardv1alpha1.ReasonIssuerNotReady, true
	}
	return source, trouble, err
}

// applyCertificate makes the Certificate of cert-manager what it should be, and returns
// it. cert-manager may not be there: the error is then one of meta.IsNoMatchError, or
// not found.
func (r *HubReconciler) applyCertificate(ctx context.Context, hub *switchboardv1alpha1.Hub) (*unstructured.Unstructured, error) {
	desired := manifests.Certificate(hub)
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(manifests.CertificateKind)
	err := r.Live.Get(ctx, client.ObjectKeyFromObject(desired), live)
	exists := err == nil
	switch {
	case client.IgnoreNotFound(err) != nil:
		return nil, fmt.Errorf("read Certificate %s: %w", desired.GetName(), err)
	case exists && !belongs(live, hub):
		return nil, nameTaken(desired.GetKind(), live)
	case exists && metav1.IsControlledBy(live, hub) && has(live.Object, withoutOwners(desired).Object):
		return live, nil
	}
	err = r.write(ctx, hub, desired.GetKind(), desired.GetName(), exists, client.ApplyConfigurationFromUnstructured(desired), client.DisableReadYourWritesConsistency)
	return desired, err
}

// withoutOwners returns the object but for its owners, to which others may add.
func withoutOwners(obj *unstructured.Unstructured) *unstructured.Unstructured {
	obj = obj.DeepCopy()
	obj.SetOwnerReferences(nil)
	return obj
}

// has reports whether an object says all that is desired of it.
func has(object, desired any) bool {
	switch desired := desired.(type) {
	case map[string]any:
		fields, ok := object.(map[string]any)
		for key, want := range desired {
			ok = ok && has(fields[key], want)
		}
		return ok
	case []any:
		items, ok := object.([]any)
		ok = ok && len(items) == len(desired)
		for i := 0; ok && i < len(items); i++ {
			ok = has(items[i], desired[i])
		}
		return ok
	}
	return object == desired
}

// notIssued says why a Certificate of cert-manager is not issued, or nothing when it is.
func notIssued(certificate *unstructured.Unstructured) string {
	conditions, _, _ := unstructured.NestedSlice(certificate.Object, "status", "conditions")
	for _, item := range conditions {
		condition, _ := item.(map[string]any)
		if condition["type"] != "Ready" {
			continue
		}
		generation, told := condition["observedGeneration"].(int64)
		switch {
		case told && generation < certificate.GetGeneration():
			return "it has not yet looked at the newest one"
		case condition["status"] == "True":
			return ""
		}
		message, _ := condition["message"].(string)
		return message
	}
	return "it has not said anything about it yet"
}
