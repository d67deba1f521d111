package controllers

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/controllers/pki"
	"github.com/switchboardhub/switchboard/hubnode/auth"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

// authentication is what a pass saw of what nodes know clients by.
type authentication struct {
	// looked: the pass came to look at it.
	looked bool
	// issuer is of the cluster's tokens, where these are taken; empty: not known.
	issuer ClusterIssuer
	// troubles are what is missing or wrong, in the order of the spec.
	troubles []trouble
	// waits: nodes can't be told how to know clients, and must not be started, or go on,
	// with settings that ask nobody.
	waits bool
}

// held reports whether nothing is written before more is known.
func (a *authentication) held() bool { return a.waits }

// wrong says all that is wrong, or nothing.
func (a *authentication) wrong() string {
	var all []string
	for _, t := range a.troubles {
		all = append(all, t.message)
	}
	return strings.Join(all, ". ")
}

// gatherAuthentication finds out by what nodes are to know clients.
func (r *HubReconciler) gatherAuthentication(ctx context.Context, p *pass) error {
	hub, a := p.hub, &p.seen.authentication
	if hub.Spec.Authentication == nil {
		return nil
	}
	*a = authentication{looked: true}
	if manifests.TakesServiceAccounts(hub) {
		issuer, err := r.issuer.read(ctx, r.Issuer, p.seen.now)
		if err != nil && issuer.Issuer == "" { // this operator has not yet read any
			var readErr error
			if issuer, readErr = r.writtenIssuer(ctx, hub); readErr != nil {
				return readErr
			}
		}
		a.issuer = issuer
		reviews := manifests.ReviewsTokens(hub)
		a.waits = issuer.Issuer == "" && !reviews
		if err != nil {
			var rest string
			switch {
			case a.waits:
				rest = "no node is started or changed before"
			case issuer.Issuer == "":
				rest = "nodes ask the API server about each token, as tokenReview is Fallback"
			case reviews:
				rest = "nodes go on with the keys that were read before, and ask the API server about tokens by others"
			default:
				rest = "nodes go on with the keys that were read before"
			}
			a.troubles = append(a.troubles, trouble{switchboardv1alpha1.ReasonKeysNotRead, fmt.Sprintf("the API server does not say by which keys tokens of ServiceAccounts are known: %v; %s", err, rest)})
		}
	}
	for _, source := range manifests.AuthSources(hub) {
		t, err := r.checkSource(ctx, hub, source)
		if err != nil {
			return err
		}
		if t != nil {
			t.message += ". Until it is mended, nobody is let in by it that is not already"
			a.troubles = append(a.troubles, *t)
		}
	}
	return nil
}

// writtenIssuer returns what the operator has written into the Hub's ConfigMap. What
// somebody else wrote there is as if it were not there: whoever may write it must not
// bring in keys.
func (r *HubReconciler) writtenIssuer(ctx context.Context, hub *switchboardv1alpha1.Hub) (ClusterIssuer, error) {
	live := &corev1.ConfigMap{}
	err := r.Get(ctx, client.ObjectKey{Namespace: hub.Namespace, Name: manifests.ConfigMapName(hub)}, live)
	if apierrors.IsNotFound(err) {
		return ClusterIssuer{}, nil
	}
	if err != nil {
		return ClusterIssuer{}, fmt.Errorf("read the ConfigMap: %w", err)
	}
	if !belongs(live, hub) {
		return ClusterIssuer{}, nil
	}
	owned, err := corev1ac.ExtractConfigMap(live, FieldOwner)
	if err != nil {
		return ClusterIssuer{}, fmt.Errorf("find what we own of ConfigMap %s: %w", live.Name, err)
	}
	written, err := config.Parse([]byte(owned.Data[manifests.ConfigKey]))
	if err != nil || written.Authentication.ServiceAccount == nil || owned.Data[manifests.ClusterKeysKey] == "" {
		return ClusterIssuer{}, nil //nolint:nilerr // not ours any more: as if there were none
	}
	return ClusterIssuer{Issuer: written.Authentication.ServiceAccount.Issuer, Keys: []byte(owned.Data[manifests.ClusterKeysKey])}, nil
}

// checkSource says what is wrong with something that the spec names; nil: nothing.
func (r *HubReconciler) checkSource(ctx context.Context, hub *switchboardv1alpha1.Hub, s manifests.AuthSource) (*trouble, error) {
	var object client.Object = &corev1.ConfigMap{}
	if s.Secret {
		object = &corev1.Secret{}
	}
	err := r.Live.Get(ctx, client.ObjectKey{Namespace: hub.Namespace, Name: s.Name}, object)
	notFound := func(what string) *trouble {
		return &trouble{switchboardv1alpha1.ReasonSourceNotFound, fmt.Sprintf("%s, which %s names: make it, with the key %s", what, s.Field, s.Key)}
	}
	switch {
	case apierrors.IsNotFound(err):
		return notFound(fmt.Sprintf("there is no %s %q in namespace %s", s.Kind(), s.Name, hub.Namespace)), nil
	case err != nil:
		return nil, fmt.Errorf("read %s %s: %w", s.Kind(), s.Name, err)
	}
	text, ok := keyOf(object, s.Key)
	if !ok {
		return notFound(fmt.Sprintf("there is no key %q in %s %q", s.Key, s.Kind(), s.Name)), nil
	}
	if s.Tokens {
		err = auth.CheckList(text)
	} else {
		_, err = pki.ParseCertificates(text)
	}
	if err != nil {
		return &trouble{switchboardv1alpha1.ReasonSourceInvalid, fmt.Sprintf("%s %q, which %s names, key %s: %v", s.Kind(), s.Name, s.Field, s.Key, err)}, nil
	}
	return nil, nil
}

func keyOf(object client.Object, key string) (text []byte, ok bool) {
	switch object := object.(type) {
	case *corev1.Secret:
		text, ok = object.Data[key]
	case *corev1.ConfigMap:
		if text, ok = object.BinaryData[key]; !ok {
			var plain string
			plain, ok = object.Data[key]
			text = []byte(plain)
		}
	}
	return text, ok
}

// setAuthentication says in the status whether nodes have all that they know clients by.
// A pass that did not come to look leaves what was said.
func setAuthentication(hub *switchboardv1alpha1.Hub, status *switchboardv1alpha1.HubStatus, seen *observed) {
	status.Audience = manifests.Audience(hub)
	if hub.Spec.Authentication == nil {
		meta.RemoveStatusCondition(&status.Conditions, switchboardv1alpha1.ConditionAuthenticationReady)
		return
	}
	a := &seen.authentication
	if !a.looked {
		return
	}
	c := metav1.Condition{
		Type: switchboardv1alpha1.ConditionAuthenticationReady, Status: metav1.ConditionTrue, Reason: switchboardv1alpha1.ReasonConfigured,
		Message: "nodes are told all by which they know clients",
	}
	if len(a.troubles) > 0 {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, a.troubles[0].reason, a.wrong()
	}
	setCondition(&status.Conditions, hub.Generation, seen.now, c)
}
