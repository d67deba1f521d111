package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	networkingv1ac "k8s.io/client-go/applyconfigurations/networking/v1"
	policyv1ac "k8s.io/client-go/applyconfigurations/policy/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

// FieldOwner is the one owner under which the operator applies fields. A field
// that somebody else adds stays; one of ours that somebody else changes is set
// back.
const FieldOwner = "switchboard-operator"

// NameTakenError says that an object which a Hub needs exists already and does
// not belong to the Hub.
type NameTakenError struct {
	Kind string
	Name string
	// Owner is who controls the object, as "Kind name", or empty.
	Owner string
}

// Error says what is in the way and what to do about it.
func (e *NameTakenError) Error() string {
	whose := "belongs to no Hub"
	if e.Owner != "" {
		whose = "belongs to " + e.Owner
	}
	return fmt.Sprintf("%s %q exists already and %s: remove it, or give the Hub another name", e.Kind, e.Name, whose)
}

// InvalidSpecError says that a spec makes no valid node settings, although the
// API server let it pass. Only a change of the spec helps.
type InvalidSpecError struct{ Err error }

// Error says what is wrong with the settings.
func (e *InvalidSpecError) Error() string {
	return "the spec makes no valid node settings: " + e.Err.Error()
}

// Unwrap returns the rule violations.
func (e *InvalidSpecError) Unwrap() error { return e.Err }

// InvalidSecretError says that a Secret which nodes need can't be what they need.
type InvalidSecretError struct{ Name, Key, Why string }

// Error says what is wrong with the Secret and what to do about it.
func (e *InvalidSecretError) Error() string {
	return fmt.Sprintf("Secret %q, key %q: %s. Set it right, or delete the Secret: the operator makes a new one, which nodes take at their next restart", e.Name, e.Key, e.Why)
}

func (r *HubReconciler) renderConfig(_ context.Context, p *pass) error {
	nodeConfig := manifests.NodeConfig(p.hub)
	nodeConfig.Replicas = int(p.seen.scale.settings)
	if !p.seen.servesTLS && p.seen.lackCertificates() {
		// They would refuse these settings, and not start again with them.
		nodeConfig.TLS = config.Default().TLS
	}
	if sa := nodeConfig.Authentication.ServiceAccount; sa != nil {
		sa.Issuer = p.seen.authentication.issuer.Issuer
	}
	if p.seen.cluster.required = p.seen.canRequireClusterTLS(manifests.Replicas(p.hub)); p.seen.cluster.required {
		nodeConfig.TLS.Cluster = config.TLSRequired
	}
	if err := nodeConfig.Validate(); err != nil {
		return reconcile.TerminalError(&InvalidSpecError{Err: err})
	}
	rendered, err := withTopics(withGrants(nodeConfig, p.seen.grants), p.seen.topics)
	if err != nil {
		return err
	}
	p.nodeConfig = rendered
	p.seen.configHash = configHash(rendered)
	return nil
}

func (r *HubReconciler) applyServiceAccount(ctx context.Context, p *pass) error {
	return apply(ctx, r, p.hub, &corev1.ServiceAccount{}, manifests.ServiceAccount(p.hub), corev1ac.ExtractServiceAccount)
}

func (r *HubReconciler) applyConfigMap(ctx context.Context, p *pass) error {
	return apply(ctx, r, p.hub, &corev1.ConfigMap{}, manifests.ConfigMap(p.hub, p.nodeConfig, p.seen.authentication.issuer.Keys), corev1ac.ExtractConfigMap)
}

func (r *HubReconciler) applyNetworkPolicy(ctx context.Context, p *pass) error {
	return apply(ctx, r, p.hub, &networkingv1.NetworkPolicy{}, manifests.NetworkPolicy(p.hub), networkingv1ac.ExtractNetworkPolicy)
}

func (r *HubReconciler) applyServices(ctx context.Context, p *pass) error {
	if err := apply(ctx, r, p.hub, &corev1.Service{}, manifests.PeerService(p.hub), corev1ac.ExtractService); err != nil {
		return err
	}
	return apply(ctx, r, p.hub, &corev1.Service{}, manifests.Service(p.hub), corev1ac.ExtractService)
}

func (r *HubReconciler) applyDisruptionBudget(ctx context.Context, p *pass) error {
	return apply(ctx, r, p.hub, &policyv1.PodDisruptionBudget{}, manifests.PodDisruptionBudget(p.hub), policyv1ac.ExtractPodDisruptionBudget)
}

// ownSecret reads one of the Hub's Secrets past the cache, which holds none. It is
// empty when there is none; that of somebody else is an error.
func (r *HubReconciler) ownSecret(ctx context.Context, hub *switchboardv1alpha1.Hub, name string) (*corev1.Secret, error) {
	live := &corev1.Secret{}
	err := r.Live.Get(ctx, client.ObjectKey{Namespace: hub.Namespace, Name: name}, live)
	switch {
	case apierrors.IsNotFound(err):
		return &corev1.Secret{}, nil
	case err != nil:
		return nil, fmt.Errorf("read Secret %s: %w", name, err)
	case !belongs(live, hub):
		return nil, nameTaken("Secret", live)
	}
	return live, nil
}

// writeSecret makes one of the Hub's Secrets have what desired says. It creates,
// rather than applies, one that was not there, so that what came into being in between
// is never overwritten.
//
// Writes must not be awaited in the cache: that would watch all Secrets, which
// the operator has no right to.
func (r *HubReconciler) writeSecret(ctx context.Context, hub *switchboardv1alpha1.Hub, live *corev1.Secret, desired *corev1ac.SecretApplyConfiguration) error {
	if live.UID != "" {
		return applyOver(ctx, r, hub, live, desired, corev1ac.ExtractSecret, client.DisableReadYourWritesConsistency)
	}
	secret, err := asObject(desired, &corev1.Secret{})
	if err != nil {
		return err
	}
	if err := r.Create(ctx, secret, client.FieldOwner(FieldOwner), client.DisableReadYourWritesConsistency); err != nil {
		return fmt.Errorf("create Secret %s: %w", secret.Name, err)
	}
	log.FromContext(ctx).Info("Created", "kind", "Secret", "name", secret.Name)
	return nil
}

// configuration is what the typed apply configurations have in common.
type configuration interface {
	runtime.ApplyConfiguration
	GetKind() *string
	GetName() *string
	GetNamespace() *string
}

// apply makes the cluster's object have what desired says. live is an empty
// object of the kind; see applyOver for the rest.
func apply[O client.Object, A configuration](
	ctx context.Context, r *HubReconciler, hub *switchboardv1alpha1.Hub,
	live O, desired A, extract func(O, string) (A, error),
) error {
	key := client.ObjectKey{Namespace: *desired.GetNamespace(), Name: *desired.GetName()}
	err := r.Get(ctx, key, live)
	if apierrors.IsNotFound(err) {
		// The cache holds only objects with our label: one without may be there.
		err = r.Live.Get(ctx, key, live)
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read %s %s: %w", *desired.GetKind(), key.Name, err)
	}
	return applyOver(ctx, r, hub, live, desired, extract)
}

// applyOver applies desired, unless live has it all: the fields of live that we
// own, which extract finds, are then the desired ones. To find them takes long, so
// what came of it is remembered. live is empty when there is no such object.
func applyOver[O client.Object, A configuration](
	ctx context.Context, r *HubReconciler, hub *switchboardv1alpha1.Hub,
	live O, desired A, extract func(O, string) (A, error), opts ...client.ApplyOption,
) error {
	kind, name := *desired.GetKind(), *desired.GetName()
	known := r.memory.of(client.ObjectKeyFromObject(hub)).agreed
	now, err := agreementOn(live.GetResourceVersion(), desired)
	if err != nil {
		return fmt.Errorf("encode %s %s: %w", kind, name, err)
	}
	exists := live.GetUID() != ""
	if exists {
		if known[kind+" "+name] == now {
			return nil
		}
		if !belongs(live, hub) {
			return nameTaken(kind, live)
		}
		owned, err := extract(live, FieldOwner)
		if err != nil {
			return fmt.Errorf("find what we own of %s %s: %w", kind, name, err)
		}
		same, err := equal(owned, desired)
		if err != nil {
			return fmt.Errorf("compare %s %s: %w", kind, name, err)
		}
		if same {
			known[kind+" "+name] = now
			return nil
		}
	}
	return r.write(ctx, hub, kind, name, exists, desired, opts...)
}

// write applies what is desired of an object, and tells what was not as it should be.
// exists says that there is such an object.
func (r *HubReconciler) write(ctx context.Context, hub *switchboardv1alpha1.Hub, kind, name string, exists bool, desired runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
	// Not by force at first: the API server then tells of fields that somebody else
	// has set since.
	opts = append(opts, client.FieldOwner(FieldOwner))
	err := r.Apply(ctx, desired, opts...)
	repaired := apierrors.IsConflict(err)
	if repaired {
		r.tell(hub, notice{corev1.EventTypeWarning, switchboardv1alpha1.ReasonRepaired, fmt.Sprintf("%s %s was changed, and is set back: %v", kind, name, err)})
		err = r.Apply(ctx, desired, append(opts, client.ForceOwnership)...)
	}
	if err != nil {
		return fmt.Errorf("apply %s %s: %w", kind, name, err)
	}
	if !exists && hub.Status.ObservedGeneration > 0 {
		r.tell(hub, notice{corev1.EventTypeNormal, switchboardv1alpha1.ReasonRepaired, fmt.Sprintf("%s %s was not there, and is made", kind, name)})
	}
	log.FromContext(ctx).Info("Applied", "kind", kind, "name", name, "existed", exists, "repaired", repaired)
	return nil
}

// belongs reports whether the Hub may change obj: it controls it, or nobody
// does and our labels say that it was the Hub's (as after a deletion that
// orphaned it).
func belongs(obj client.Object, hub *switchboardv1alpha1.Hub) bool {
	if metav1.GetControllerOf(obj) != nil {
		return metav1.IsControlledBy(obj, hub)
	}
	has := obj.GetLabels()
	for k, v := range manifests.Labels(hub) {
		if has[k] != v {
			return false
		}
	}
	return true
}

func nameTaken(kind string, obj client.Object) error {
	err := &NameTakenError{Kind: kind, Name: obj.GetName()}
	if owner := metav1.GetControllerOf(obj); owner != nil {
		err.Owner = owner.Kind + " " + owner.Name
	}
	return err
}

// equal compares two configurations as the API server would see them.
func equal(a, b runtime.ApplyConfiguration) (bool, error) {
	ma, err := runtime.DefaultUnstructuredConverter.ToUnstructured(a)
	if err != nil {
		return false, err
	}
	mb, err := runtime.DefaultUnstructuredConverter.ToUnstructured(b)
	if err != nil {
		return false, err
	}
	return reflect.DeepEqual(ma, mb), nil
}

// asObject fills obj with what desired says.
func asObject[O client.Object](desired runtime.ApplyConfiguration, obj O) (O, error) {
	data, err := json.Marshal(desired)
	if err != nil {
		return obj, fmt.Errorf("encode an object: %w", err)
	}
	if err := json.Unmarshal(data, obj); err != nil {
		return obj, fmt.Errorf("decode an object: %w", err)
	}
	return obj, nil
}
