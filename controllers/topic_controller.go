package controllers

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/controllers/pki"
)

// PurgeFinalizer holds a Topic back until what its topics keep is deleted. Only
// Topics that ask for that have it.
const PurgeFinalizer = "switchboard.dev/purge"

// purgeAgain is when a purge that failed is tried again.
const purgeAgain = 5 * time.Second

// TopicReconciler deletes what the topics of deleted Topics keep, where they ask for
// it. Everything else about a Topic depends on the others of its Hub, and is the
// HubReconciler's.
type TopicReconciler struct {
	// Hubs knows the Hubs, their Topics and nodes. Required.
	Hubs *HubReconciler
	// Purger deletes what topics keep. Required.
	Purger TopicPurger
}

// TopicPurger deletes what topics keep.
type TopicPurger interface {
	// PurgeTopics deletes what the topics whose names match the pattern keep, on all
	// nodes of the hub. It may be called again after an error, and does what is left.
	PurgeTopics(ctx context.Context, hub PurgedHub, pattern string) (Purged, error)
}

// PurgedHub is a hub whose topics are purged.
type PurgedHub struct {
	Identity  string
	Addresses []string    // of pods of its nodes
	TLS       *tls.Config // to connect by; nil: without
	// Credentials are what its nodes know each other by, and by which the operator proves
	// to them who it is; nil: they don't ask.
	Credentials *pki.Credentials
}

// Purged is what a purge did.
type Purged struct {
	Topics    int
	Artifacts uint64
}

// SetupWithManager registers the reconciler and its watch. The HubReconciler has to
// be registered too.
func (r *TopicReconciler) SetupWithManager(mgr ctrl.Manager, opts controller.Options) error {
	err := ctrl.NewControllerManagedBy(mgr).
		Named("topic").
		WithOptions(withDefaults(opts)).
		For(&switchboardv1alpha1.Topic{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Complete(r)
	if err != nil {
		return fmt.Errorf("set up the topic controller: %w", err)
	}
	return nil
}

// Reconcile sees to it that a Topic has the finalizer while it asks for a purge, and
// purges before it lets a deleted one go.
func (r *TopicReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	topic := &switchboardv1alpha1.Topic{}
	if err := r.Hubs.Get(ctx, req.NamespacedName, topic); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	purges := topic.Spec.DeletionPolicy == switchboardv1alpha1.TopicPurge
	switch has := controllerutil.ContainsFinalizer(topic, PurgeFinalizer); {
	case topic.DeletionTimestamp.IsZero() && purges != has:
		return ctrl.Result{}, r.changeFinalizer(ctx, topic, purges)
	case topic.DeletionTimestamp.IsZero() || !has:
		return ctrl.Result{}, nil
	case !purges: // it was changed while it waited
		return ctrl.Result{}, r.changeFinalizer(ctx, topic, false)
	}
	return r.purge(ctx, topic)
}

// purge deletes what the topics keep and lets the Topic go. It never waits for a hub
// that has nothing to delete, or does not give the Topic the right to.
func (r *TopicReconciler) purge(ctx context.Context, topic *switchboardv1alpha1.Topic) (ctrl.Result, error) {
	hub, pointless, err := r.hubToPurge(ctx, topic)
	if err != nil {
		return r.purgeFailed(ctx, topic, err)
	}
	if pointless != "" {
		return ctrl.Result{}, r.letGo(ctx, topic, notice{corev1.EventTypeWarning, switchboardv1alpha1.ReasonNotPurged, "nothing was purged: " + pointless})
	}
	pattern := manifests.TopicPattern(hub, topic)
	if hub.Spec.Paused {
		return r.waitToPurge(ctx, topic, switchboardv1alpha1.ReasonHubPaused, fmt.Sprintf("the operator changes nothing of Hub %s/%s while its spec.paused is true", hub.Namespace, hub.Name))
	}
	done, err := r.purgeOn(ctx, hub, pattern)
	if err = cmp.Or(err, ctx.Err()); err != nil {
		return r.purgeFailed(ctx, topic, err)
	}
	log.FromContext(ctx).Info("Purged", "pattern", pattern, "topics", done.Topics, "artifacts", done.Artifacts)
	return ctrl.Result{}, r.letGo(ctx, topic, notice{corev1.EventTypeNormal, switchboardv1alpha1.ReasonPurged, fmt.Sprintf("deleted %d artifacts of %d topics that match %q", done.Artifacts, done.Topics, pattern)})
}

// hubToPurge returns the Topic's Hub, or why there is nothing to purge on it. A Topic
// that does not have its pattern must not delete what is another one's.
func (r *TopicReconciler) hubToPurge(ctx context.Context, topic *switchboardv1alpha1.Topic) (hub *switchboardv1alpha1.Hub, pointless string, err error) {
	key, _ := hubKey(topic)
	hub, missing, err := r.Hubs.findHub(ctx, key)
	if err != nil || missing != "" {
		return nil, missing, err
	}
	if manifests.Replicas(hub) == 0 {
		return nil, fmt.Sprintf("Hub %s has no nodes, as its spec.replicas is 0", key), nil
	}
	topics, err := r.Hubs.topicsOf(ctx, key)
	if err != nil {
		return nil, "", err
	}
	switch c := claimOn(claimsOf(hub, topics), client.ObjectKeyFromObject(topic)); {
	case c == nil:
		return nil, "", fmt.Errorf("the Topics of Hub %s are not all known yet", key)
	case !c.owns:
		return nil, "the hub has not taken this Topic: " + c.message, nil
	}
	return hub, "", nil
}

// purgeTime bounds one try; what it has not come to is for the next one.
const purgeTime = 30 * time.Second

func (r *TopicReconciler) purgeOn(ctx context.Context, hub *switchboardv1alpha1.Hub, pattern string) (Purged, error) {
	ctx, cancel := context.WithTimeout(ctx, purgeTime)
	defer cancel()
	p := &pass{hub: hub}
	if err := r.Hubs.observe(ctx, p); err != nil {
		return Purged{}, err
	}
	var addresses []string
	for i := range p.seen.nodes {
		if n := &p.seen.nodes[i]; n.answers() {
			addresses = append(addresses, n.pod.Status.PodIP)
		}
	}
	switch h := p.seen.history(); {
	case len(addresses) == 0:
		return Purged{}, fmt.Errorf("no node of Hub %s/%s is ready and answers the operator", hub.Namespace, hub.Name)
	case h.Led < h.Shards:
		return Purged{}, fmt.Errorf("%d of the hub's %d shards have no leader", h.Shards-h.Led, h.Shards)
	}
	tls, err := r.Hubs.clientTLS(ctx, hub)
	if err != nil {
		return Purged{}, err
	}
	credentials, err := r.Hubs.operatorCredentials(ctx, hub)
	if err != nil {
		return Purged{}, err
	}
	return r.Purger.PurgeTopics(ctx, PurgedHub{Identity: manifests.Identity(hub), Addresses: addresses, TLS: tls, Credentials: credentials}, pattern)
}

// clientTLS is how the operator connects to the Hub as a client: nil where it needs no
// TLS.
func (r *HubReconciler) clientTLS(ctx context.Context, hub *switchboardv1alpha1.Hub) (*tls.Config, error) {
	if !manifests.ServesTLS(hub) || hub.Spec.TLS.Clients != switchboardv1alpha1.ClientTLSRequired {
		return nil, nil
	}
	trusted, err := r.readTrust(ctx, hub)
	if err != nil {
		return nil, err
	}
	return manifests.ClientTLS(hub, trusted.text)
}

// operatorCredentials are what the operator proves to the Hub's nodes who it is by: what
// they have for links to each other, so that they trust it in each phase of a rotation. Nil
// where nobody asks.
func (r *HubReconciler) operatorCredentials(ctx context.Context, hub *switchboardv1alpha1.Hub) (*pki.Credentials, error) {
	if hub.Spec.Authentication == nil {
		return nil, nil
	}
	name := manifests.ClusterTLSName(hub)
	secret, err := r.nodeSecret(ctx, hub, name)
	if err != nil {
		return nil, err
	}
	if secret.have == nil {
		return nil, fmt.Errorf("the nodes' certificate in Secret %s, by which the operator proves who it is, is not there yet, or not the operator's", name)
	}
	return secret.have, nil
}

// purgeFailed says on the Topic why the purge has to be tried again.
func (r *TopicReconciler) purgeFailed(ctx context.Context, topic *switchboardv1alpha1.Topic, err error) (ctrl.Result, error) {
	if stops(ctx) {
		return ctrl.Result{}, nil
	}
	err = outOfTime(ctx, err)
	tell, cancel := toTell(ctx)
	defer cancel()
	again, failed := r.waitToPurge(tell, topic, switchboardv1alpha1.ReasonPurgeFailed, fmt.Sprintf("what it keeps can't be deleted yet: %v", err))
	if errors.Is(err, errOutOfTime) {
		return ctrl.Result{}, errors.Join(err, failed)
	}
	return again, failed
}

// waitToPurge says why a Topic is still there, and how to let it go.
func (r *TopicReconciler) waitToPurge(ctx context.Context, topic *switchboardv1alpha1.Topic, reason, why string) (ctrl.Result, error) {
	before := topic.DeepCopy()
	condition := metav1.Condition{
		Type: switchboardv1alpha1.ConditionPurged, Status: metav1.ConditionFalse, Reason: reason,
		Message: why + "; the operator tries again. To let the Topic go without it, set spec.deletionPolicy to Retain",
	}
	topic.Status.ObservedGeneration = topic.Generation
	setCondition(&topic.Status.Conditions, topic.Generation, r.Hubs.now(), condition)
	if equality.Semantic.DeepEqual(before.Status, topic.Status) {
		return ctrl.Result{RequeueAfter: purgeAgain}, nil
	}
	if err := r.Hubs.patchStatus(ctx, topic, before); err != nil {
		return ctrl.Result{}, err
	}
	r.Hubs.tell(topic, notice{corev1.EventTypeWarning, reason, condition.Message})
	return ctrl.Result{RequeueAfter: purgeAgain}, nil
}

func (r *TopicReconciler) letGo(ctx context.Context, topic *switchboardv1alpha1.Topic, n notice) error {
	r.Hubs.tell(topic, n)
	return r.changeFinalizer(ctx, topic, false)
}

// changeFinalizer adds or removes the finalizer. Other finalizers of the Topic may
// change meanwhile: then it is tried again.
func (r *TopicReconciler) changeFinalizer(ctx context.Context, topic *switchboardv1alpha1.Topic, want bool) error {
	before := topic.DeepCopy()
	if want {
		controllerutil.AddFinalizer(topic, PurgeFinalizer)
	} else {
		controllerutil.RemoveFinalizer(topic, PurgeFinalizer)
	}
	err := r.Hubs.Patch(ctx, topic, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), client.FieldOwner(FieldOwner))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("change the finalizers: %w", err)
	}
	return nil
}
