package kubehub

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

// Restart asks the operator to replace all nodes of the Hub, one after the other. It
// returns the annotation's value, for AwaitRestart.
func (c *Cluster) Restart(ctx context.Context, hub *switchboardv1alpha1.Hub, now time.Time) (string, error) {
	switch {
	case hub.Spec.Paused:
		return "", fmt.Errorf("Hub %s is paused, the operator would not restart it: set spec.paused to false first", hub.Name)
	case hub.Spec.Updates.Strategy == switchboardv1alpha1.UpdateOnDelete:
		return "", fmt.Errorf("spec.updates.strategy of Hub %s is OnDelete, the operator replaces no node: use kubectl hub drain %[1]s NODE, one after the other", hub.Name)
	}
	before := hub.DeepCopy()
	at := now.UTC().Format(time.RFC3339)
	if at == hub.Annotations[manifests.AnnotationRestartedAt] { // twice in a second
		at = now.UTC().Format(time.RFC3339Nano)
	}
	if hub.Annotations == nil {
		hub.Annotations = make(map[string]string)
	}
	hub.Annotations[manifests.AnnotationRestartedAt] = at
	if err := c.client.Patch(ctx, hub, client.MergeFrom(before)); err != nil {
		return "", fmt.Errorf("annotate the Hub: %w", err)
	}
	return at, nil
}

// errRestartedAnew ends the wait for a restart that another one has overtaken.
var errRestartedAnew = errors.New("somebody asked for another restart meanwhile: kubectl hub status tells how it goes")

// AwaitRestart waits until all nodes are of the restart at, and all is well. When ctx
// ends it stops waiting; the restart goes on.
func (c *Cluster) AwaitRestart(ctx context.Context, name, at string, tell Progress) (*Replaced, error) {
	started := time.Now()
	var replaced *Replaced
	err := wait(ctx, tell, func(ctx context.Context) (string, error) {
		hub, err := c.Hub(ctx, name)
		if err != nil {
			return "", err
		}
		if hub.Annotations[manifests.AnnotationRestartedAt] != at {
			return "", &finalError{errRestartedAnew}
		}
		for _, condition := range newReport(hub).Conditions {
			if condition.Type == switchboardv1alpha1.ConditionProgressing && condition.Reason == switchboardv1alpha1.ReasonRolloutStuck {
				return "", &finalError{fmt.Errorf("the restart is stuck: %s", condition.Message)}
			}
		}
		set := &appsv1.StatefulSet{}
		if err := c.client.Get(ctx, client.ObjectKey{Namespace: hub.Namespace, Name: manifests.NodeName(hub)}, set); err != nil {
			return "", err
		}
		if set.Spec.Template.Annotations[manifests.AnnotationRestartedAt] != at {
			return "the operator has not taken it up yet; if this lasts: does it run, and is it no older than this program?", nil
		}
		pods, err := c.nodes(ctx, hub)
		if err != nil {
			return "", err
		}
		var done []string
		going := ""
		for i := range pods {
			switch {
			case !pods[i].DeletionTimestamp.IsZero():
				going = "; " + pods[i].Name + " is ending"
			case pods[i].Annotations[manifests.AnnotationRestartedAt] == at && podReady(&pods[i]):
				done = append(done, pods[i].Name)
			case pods[i].Annotations[manifests.AnnotationRestartedAt] == at:
				going = "; the new " + pods[i].Name + " is starting"
			}
		}
		if len(done) < int(manifests.Replicas(hub)) {
			return fmt.Sprintf("%d of %d nodes are restarted%s", len(done), manifests.Replicas(hub), going), nil
		}
		r := c.look(ctx, hub)
		if r.NotSafe != "" {
			return "all nodes are restarted; " + r.NotSafe, nil
		}
		replaced = r.done(done, started)
		return "", nil
	})
	return replaced, err
}
