package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

// indexHubRef finds the Topics and Grants of a Hub, which is written as namespace/name.
const indexHubRef = "spec.hubRef"

// writeAtOnce bounds how many statuses of Topics, or of Grants, are written at the same time.
const writeAtOnce = 8

// indexByHubRef lets resources of a kind, Topics or Grants, be found by their Hub.
func indexByHubRef(ctx context.Context, mgr ctrl.Manager, kind client.Object) error {
	err := mgr.GetFieldIndexer().IndexField(ctx, kind, indexHubRef, func(obj client.Object) []string {
		key, ok := hubKey(obj)
		if !ok {
			return nil
		}
		return []string{key.String()}
	})
	if err != nil {
		return fmt.Errorf("index %T by its Hub: %w", kind, err)
	}
	return nil
}

// hubReferredTo finds the Hub that a Topic or a Grant refers to, which may not exist.
func hubReferredTo(_ context.Context, obj client.Object) []reconcile.Request {
	key, ok := hubKey(obj)
	if !ok {
		return nil
	}
	return []reconcile.Request{{NamespacedName: key}}
}

// hubKey names the Hub that a Topic or a Grant refers to; ok is false for another resource.
func hubKey(obj client.Object) (key client.ObjectKey, ok bool) {
	switch obj := obj.(type) {
	case *switchboardv1alpha1.Topic:
		return client.ObjectKey{Namespace: obj.HubNamespace(), Name: obj.Spec.HubRef.Name}, true
	case *switchboardv1alpha1.Grant:
		return client.ObjectKey{Namespace: obj.HubNamespace(), Name: obj.Spec.HubRef.Name}, true
	}
	return client.ObjectKey{}, false
}

// findHub returns a Hub, or why there is none.
func (r *HubReconciler) findHub(ctx context.Context, key client.ObjectKey) (hub *switchboardv1alpha1.Hub, missing string, err error) {
	if len(r.Namespaces) > 0 && !slices.Contains(r.Namespaces, key.Namespace) {
		return nil, fmt.Sprintf("the operator looks for no Hubs in namespace %s", key.Namespace), nil
	}
	hub = &switchboardv1alpha1.Hub{}
	switch err := r.Get(ctx, key, hub); {
	case apierrors.IsNotFound(err):
		return nil, fmt.Sprintf("there is no Hub %s in namespace %s", key.Name, key.Namespace), nil
	case err != nil:
		return nil, "", fmt.Errorf("read the Hub: %w", err)
	case !hub.DeletionTimestamp.IsZero():
		return nil, fmt.Sprintf("Hub %s in namespace %s is being deleted", key.Name, key.Namespace), nil
	}
	return hub, "", nil
}

// topicsOf returns the Topics that refer to a Hub.
func (r *HubReconciler) topicsOf(ctx context.Context, hub client.ObjectKey) ([]switchboardv1alpha1.Topic, error) {
	topics := &switchboardv1alpha1.TopicList{}
	if err := r.List(ctx, topics, client.MatchingFields{indexHubRef: hub.String()}); err != nil {
		return nil, fmt.Errorf("list the Hub's Topics: %w", err)
	}
	return topics.Items, nil
}

// gatherTopics finds out which Topics the hub takes.
func (r *HubReconciler) gatherTopics(ctx context.Context, p *pass) error {
	topics, err := r.topicsOf(ctx, client.ObjectKeyFromObject(p.hub))
	if err != nil {
		return err
	}
	p.seen.topics = claimsOf(p.hub, topics)
	var written map[string]config.Topic // read when it is first asked for
	fill(p.seen.topics, func(c *claim) *config.Topic {
		if written == nil {
			var readErr error
			written, readErr = r.writtenTopics(ctx, p.hub)
			err = errors.Join(err, readErr)
		}
		accepted := meta.FindStatusCondition(c.topic.Status.Conditions, switchboardv1alpha1.ConditionAccepted)
		entry, ok := written[c.pattern]
		if !ok || accepted == nil || (accepted.Reason != switchboardv1alpha1.ReasonAccepted && accepted.Reason != switchboardv1alpha1.ReasonInvalidFilter) {
			return nil // if there is such an entry it was another one's
		}
		return &entry
	})
	return err
}

// writtenTopics returns the entries that the settings have which are written.
func (r *HubReconciler) writtenTopics(ctx context.Context, hub *switchboardv1alpha1.Hub) (map[string]config.Topic, error) {
	entries := make(map[string]config.Topic)
	settings, exist, err := r.writtenSettings(ctx, hub)
	if err != nil || !exist {
		return entries, err
	}
	written, err := config.Parse(settings)
	if err != nil {
		return entries, nil //nolint:nilerr // somebody changed them: they are about to be written anew
	}
	for _, entry := range written.Topics {
		entries[entry.Pattern] = entry
	}
	return entries, nil
}

// writeTopics tells all Topics of the Hub how they stand.
func (r *HubReconciler) writeTopics(ctx context.Context, p *pass) error {
	var g errgroup.Group
	g.SetLimit(writeAtOnce)
	applied := configAppliedCondition(p.hub, &p.seen)
	for _, c := range p.seen.topics {
		g.Go(func() error { return r.writeTopic(ctx, c, summarizeTopic(c, p.hub, applied, p.seen.now)) })
	}
	return g.Wait()
}

// tellTopicsOf tells all Topics that refer to a Hub why there is none.
func (r *HubReconciler) tellTopicsOf(ctx context.Context, hub client.ObjectKey, missing string) error {
	topics, err := r.topicsOf(ctx, hub)
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(writeAtOnce)
	for i := range topics {
		c := &claim{topic: &topics[i], pattern: topics[i].Pattern()}
		c.refuse(switchboardv1alpha1.ReasonHubNotFound, "%s", missing)
		g.Go(func() error { return r.writeTopic(ctx, c, summarizeTopic(c, nil, noHub, r.now())) })
	}
	return g.Wait()
}

// writeTopic writes a Topic's status if it is another one, and tells what changed.
// That of one that is being deleted is the TopicReconciler's.
func (r *HubReconciler) writeTopic(ctx context.Context, c *claim, status switchboardv1alpha1.TopicStatus) error {
	topic := c.topic
	if !topic.DeletionTimestamp.IsZero() || equality.Semantic.DeepEqual(topic.Status, status) {
		return nil
	}
	before := topic.DeepCopy()
	topic.Status = status
	if err := r.patchStatus(ctx, topic, before); err != nil {
		return err
	}
	for _, n := range guestNotices(before.Status.Conditions, topic.Status.Conditions) {
		r.tell(topic, n)
	}
	return nil
}
