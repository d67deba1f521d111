package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

// The rights below are all that the operator has, but for the cluster's issuer of
// tokens, which is no resource: see config/rbac/issuer_role.yaml. Secrets are neither listed
// nor watched: it reads and makes only those of each Hub, and reads the one that a Hub
// names, by name. Of Hubs it changes an annotation only.
//
// +kubebuilder:rbac:groups=switchboard.dev,resources=hubs,verbs=list;watch;patch
// +kubebuilder:rbac:groups=switchboard.dev,resources=hubs/status,verbs=patch
// +kubebuilder:rbac:groups=switchboard.dev,resources=hubs/finalizers,verbs=update
// +kubebuilder:rbac:groups=apps,resources=statefulsets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=apps,resources=controllerrevisions,verbs=list
// +kubebuilder:rbac:groups="",resources=configmaps;services;serviceaccounts,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;create;patch
// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims,verbs=list;watch;patch
// +kubebuilder:rbac:groups="",resources=pods,verbs=list;watch;patch
// +kubebuilder:rbac:groups="",resources=pods/eviction,verbs=create
// +kubebuilder:rbac:groups=policy,resources=poddisruptionbudgets,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups=cert-manager.io,resources=certificates,verbs=get;create;patch
// +kubebuilder:rbac:groups=switchboard.dev,resources=topics,verbs=list;watch;patch
// +kubebuilder:rbac:groups=switchboard.dev,resources=topics/status,verbs=patch
// +kubebuilder:rbac:groups=switchboard.dev,resources=grants,verbs=list;watch
// +kubebuilder:rbac:groups=switchboard.dev,resources=grants/status,verbs=patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// How often a Hub is looked at when nothing happens in the cluster: nodes are
// asked, they don't call. Many Hubs at rest are looked at less often, so that no
// more than so many nodes are asked in a second.
const (
	pollSettled   = 10 * time.Second
	pollChanging  = 2 * time.Second
	pollSpread    = 0.2 // of the time, added at random: or all are due at once, time and again
	asksInASecond = 20

	retryFirst  = 100 * time.Millisecond
	retryAtMost = 30 * time.Second

	// reconcileTime bounds a reconciliation: what it waits for may never come, as when
	// the cache is not told any more of what was written. One that goes well is done by
	// far, also when none of a hub's nodes answers, the API server takes seconds for each
	// object, or a Topic is purged.
	reconcileTime = 2 * time.Minute
	// tellTime bounds writing the statuses once that is over.
	tellTime = 10 * time.Second
)

// HubReconciler reconciles Hubs. All fields are required, unless they say
// otherwise.
type HubReconciler struct {
	// Client reads from a cache set up by CacheOptions and ClientOptions.
	client.Client
	// Live reads past the cache, which holds only objects with our label.
	Live client.Reader
	// Recorder emits events about Hubs, Topics and Grants.
	Recorder events.EventRecorder
	// Nodes asks running nodes how they are.
	Nodes NodeStatus
	// Issuer finds out who makes the tokens of the cluster's ServiceAccounts.
	Issuer IssuerReader
	// NodeImage is the image of Hubs that name none.
	NodeImage string
	// Namespaces are those that the cache is bounded to; none: all.
	Namespaces []string
	// Now is the clock; nil means time.Now.
	Now func() time.Time

	memory memory
	issuer issuerMemory
}

// CacheOptions bounds the manager's cache to the given namespaces (none: all)
// and, of everything but Hubs, Topics and Grants, to the objects this operator made. In a
// large cluster these are few among many.
func CacheOptions(namespaces []string) cache.Options {
	ours := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{manifests.LabelManagedBy: manifests.ManagedBy})}
	opts := cache.Options{
		ByObject: map[client.Object]cache.ByObject{
			&corev1.ConfigMap{}:             ours,
			&corev1.Service{}:               ours,
			&corev1.ServiceAccount{}:        ours,
			&corev1.Pod{}:                   {Label: ours.Label, Transform: withoutContainers},
			&corev1.PersistentVolumeClaim{}: ours,
			&appsv1.StatefulSet{}:           ours,
			&policyv1.PodDisruptionBudget{}: ours,
			&networkingv1.NetworkPolicy{}:   ours,
		},
	}
	for _, ns := range namespaces {
		if opts.DefaultNamespaces == nil {
			opts.DefaultNamespaces = map[string]cache.Config{}
		}
		opts.DefaultNamespaces[ns] = cache.Config{}
	}
	return opts
}

// withoutContainers drops what takes most of a pod's memory and is of no interest
// here: a pod's status tells how it is, and its labels what it was made from.
func withoutContainers(obj any) (any, error) {
	if pod, ok := obj.(*corev1.Pod); ok {
		pod.ManagedFields, pod.Spec.Containers, pod.Spec.InitContainers = nil, nil, nil
	}
	return obj, nil
}

// indexHub is the cache's index of pods and claims by the name of their Hub. Without
// it a namespace with many Hubs is gone through for each.
const indexHub = "hub"

func indexByHub(ctx context.Context, mgr ctrl.Manager) error {
	for _, kind := range []client.Object{&corev1.Pod{}, &corev1.PersistentVolumeClaim{}} {
		err := mgr.GetFieldIndexer().IndexField(ctx, kind, indexHub, func(obj client.Object) []string {
			return []string{obj.GetLabels()[manifests.LabelInstance]}
		})
		if err != nil {
			return fmt.Errorf("index %T by its Hub: %w", kind, err)
		}
	}
	return nil
}

// ofHub selects the pods or claims of a Hub.
func ofHub(hub *switchboardv1alpha1.Hub) []client.ListOption {
	return []client.ListOption{client.InNamespace(hub.Namespace), client.MatchingFields{indexHub: hub.Name}, client.MatchingLabels(manifests.Selector(hub))}
}

// ClientOptions keeps Secrets out of the cache, so that the operator needs no
// right to list them, and makes reads wait for what was just written: a status
// computed from the StatefulSet of before would call a rollout complete that has
// not begun.
func ClientOptions() client.Options {
	return client.Options{Cache: &client.CacheOptions{
		DisableFor:                      []client.Object{&corev1.Secret{}},
		EnableReadYourWritesConsistency: new(true),
	}}
}

// SetupWithManager registers the reconciler and its watches. Options that are
// zero get this operator's defaults. ctx bounds nothing but the call.
func (r *HubReconciler) SetupWithManager(ctx context.Context, mgr ctrl.Manager, opts controller.Options) error {
	if err := indexByHubRef(ctx, mgr, &switchboardv1alpha1.Topic{}); err != nil {
		return err
	}
	if err := indexByHubRef(ctx, mgr, &switchboardv1alpha1.Grant{}); err != nil {
		return err
	}
	if err := indexByHub(ctx, mgr); err != nil {
		return err
	}
	err := ctrl.NewControllerManagedBy(mgr).
		Named("hub").
		WithOptions(withDefaults(opts)).
		// Our own status writes change no generation and are no reason to run again.
		// An annotation, which changes none either, may ask for a restart.
		For(&switchboardv1alpha1.Hub{}, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}))).
		Owns(&corev1.ConfigMap{}).
		Owns(&corev1.Service{}).
		Owns(&corev1.ServiceAccount{}).
		Owns(&appsv1.StatefulSet{}).
		Owns(&policyv1.PodDisruptionBudget{}).
		Owns(&networkingv1.NetworkPolicy{}).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(hubByLabel)).
		Watches(&corev1.PersistentVolumeClaim{}, handler.EnqueueRequestsFromMapFunc(hubByLabel)).
		Watches(&switchboardv1alpha1.Topic{}, handler.EnqueueRequestsFromMapFunc(hubReferredTo), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&switchboardv1alpha1.Grant{}, handler.EnqueueRequestsFromMapFunc(hubReferredTo), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Complete(r)
	if err != nil {
		return fmt.Errorf("set up the hub controller: %w", err)
	}
	return nil
}

// withDefaults fills in the options that are zero.
func withDefaults(opts controller.Options) controller.Options {
	if opts.MaxConcurrentReconciles == 0 {
		opts.MaxConcurrentReconciles = 4
	}
	if opts.RateLimiter == nil {
		// The usual limit is a quarter of an hour, long after a missing right was granted.
		opts.RateLimiter = workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](retryFirst, retryAtMost)
	}
	if opts.ReconciliationTimeout == 0 {
		opts.ReconciliationTimeout = reconcileTime
	}
	return opts
}

// errOutOfTime says of a reconciliation that what it waited for did not come in time.
var errOutOfTime = errors.New("ran out of time")

// stops reports whether the operator stops: what failed, failed for that, and nobody
// has to be told.
func stops(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

// outOfTime adds to what a reconciliation ended with that it has run out of time, which
// is an error in any case, if so.
func outOfTime(ctx context.Context, err error) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %w", errOutOfTime, cmp.Or(err, ctx.Err()))
}

// toTell returns the context to write statuses in: that of the reconciliation, unless it
// has run out of time.
func toTell(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx.Err() == nil {
		return ctx, func() {}
	}
	return context.WithTimeout(context.WithoutCancel(ctx), tellTime)
}

// hubByLabel finds the Hub of what the StatefulSet makes.
func hubByLabel(_ context.Context, obj client.Object) []reconcile.Request {
	name := obj.GetLabels()[manifests.LabelInstance]
	if name == "" {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: obj.GetNamespace(), Name: name}}}
}

// pass is all that one reconciliation learns; it never outlives it.
type pass struct {
	hub        *switchboardv1alpha1.Hub
	nodeConfig []byte
	seen       observed
}

// Reconcile brings one Hub closer to its spec and writes what it saw, also when
// it could not do all of it.
func (r *HubReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	hub, missing, err := r.findHub(ctx, req.NamespacedName)
	switch {
	case err != nil && stops(ctx):
		return ctrl.Result{}, nil
	case err != nil:
		return ctrl.Result{}, outOfTime(ctx, err)
	}
	if missing != "" {
		// Of one that is being deleted Kubernetes removes what it owns; applying it
		// again would fight that.
		r.memory.forget(req.NamespacedName)
		return ctrl.Result{}, errors.Join(r.tellTopicsOf(ctx, req.NamespacedName, missing), r.tellGrantsOf(ctx, req.NamespacedName, missing))
	}

	p := &pass{hub: hub}
	p.seen.now = r.now()
	p.seen.err = outOfTime(ctx, r.bringCloser(ctx, p))
	if stops(ctx) {
		return ctrl.Result{}, nil
	}
	tell, cancel := toTell(ctx)
	defer cancel()
	if !p.seen.blind {
		p.seen.lasts = r.memory.of(req.NamespacedName).lasting(&p.seen)
	}
	status := summarize(hub, &p.seen)
	err = errors.Join(p.seen.err, r.writeStatus(tell, hub, status))
	if !p.seen.blind {
		err = errors.Join(err, r.writeTopics(tell, p), r.writeGrants(tell, p))
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return ctrl.Result{}, nil // the Hub goes with its namespace
	}
	if err != nil {
		return ctrl.Result{}, err // which asks for a retry with backoff
	}
	after := wait.Jitter(pollAfter(status, r.memory.count(req.NamespacedName, int(manifests.Replicas(hub)))), pollSpread)
	if rest := p.seen.rollout.after; rest > 0 {
		after = min(after, rest)
	}
	for _, c := range []*certificates{&p.seen.certificates, &p.seen.cluster.certificates} {
		if rest := c.after(p.seen.now); rest > 0 {
			after = min(after, rest)
		}
	}
	return ctrl.Result{RequeueAfter: after}, nil
}

// bringCloser looks at what there is and brings it closer to the spec, up to the first
// thing that goes wrong.
func (r *HubReconciler) bringCloser(ctx context.Context, p *pass) error {
	for _, look := range []func(context.Context, *pass) error{r.gatherTopics, r.gatherGrants, r.observe} {
		if err := look(ctx, p); err != nil {
			p.seen.blind = true
			return err
		}
	}
	if p.hub.Spec.Paused {
		return r.observeSettings(ctx, p)
	}
	// Observed twice: what is there decides how far to scale, and what came of
	// it is the status.
	if err := cmp.Or(r.applyAll(ctx, p), r.observe(ctx, p)); err != nil {
		return err
	}
	return r.replaceOutdated(ctx, p) // by what is there now: the pod template may be a new one
}

// applyAll applies every object of the Hub, up to the first that is refused or has to
// wait for a certificate or for what clients are known by.
func (r *HubReconciler) applyAll(ctx context.Context, p *pass) error {
	for _, step := range []struct {
		name string
		run  func(context.Context, *pass) error
	}{
		{"scale", r.decideScale},
		{"authentication", r.gatherAuthentication},
		{"node settings", r.renderConfig},
		{"service account", r.applyServiceAccount},
		{"gossip keys", r.applyGossipKeys},
		{"certificates", r.applyCertificates},
		{"config map", r.applyConfigMap},
		{"settings in a hurry", r.hurrySettings},
		{"gossip keys in a hurry", r.hurryKeys},
		{"network policy", r.applyNetworkPolicy},
		{"services", r.applyServices},
		{"disruption budget", r.applyDisruptionBudget},
		{"volumes", r.growVolumes},
		{"stateful set", r.applyStatefulSet},
	} {
		if err := step.run(ctx, p); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		if p.seen.certificates.held() || p.seen.cluster.held() || p.seen.authentication.held() {
			return nil // nodes can't start without what the next steps name
		}
	}
	return nil
}

func (r *HubReconciler) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}
