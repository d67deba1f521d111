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

// oldWord is for how long a condition that was there before the operator changed the pod
// template may still be the one of before. The operator writes what it sees in the same
// pass, which may be retried.
const oldWord = 30 * time.Second

// progressOf tells whether the operator takes the rollout for stuck. A restart changes no
// generation, so that a condition does not say whether it is of before: it is not when the
// operator has said something else since it changed the pod template, or had the time to.
type progressOf struct {
	acted time.Time // when it was first seen that the operator has; zero: not yet
	other bool      // it has said something else since
}

// stuck says why the rollout is stuck, as far as the operator has said so since it acted;
// it is called when it has.
func (p *progressOf) stuck(r *Report) string {
	why := ""
	for _, c := range r.Conditions {
		if c.Type == switchboardv1alpha1.ConditionProgressing && c.Reason == switchboardv1alpha1.ReasonRolloutStuck {
			why = c.Message
		}
	}
	switch {
	case p.acted.IsZero(): // r may have been read before
		p.acted = time.Now()
		return ""
	case why == "":
		p.other = true
	case !p.other && time.Since(p.acted) < oldWord:
		return ""
	}
	return why
}

// AwaitRestart waits until all nodes are of the restart at, and all is well. When ctx
// ends it stops waiting; the restart goes on.
func (c *Cluster) AwaitRestart(ctx context.Context, name, at string, tell Progress) (*Replaced, error) {
	started := time.Now()
	var replaced *Replaced
	var progress progressOf
	err := wait(ctx, tell, func(ctx context.Context) (string, error) {
		hub, err := c.Hub(ctx, name)
		if err != nil {
			return "", err
		}
		if hub.Annotations[manifests.AnnotationRestartedAt] != at {
			return "", &finalError{errRestartedAnew}
		}
		set := &appsv1.StatefulSet{}
		if err := c.client.Get(ctx, client.ObjectKey{Namespace: hub.Namespace, Name: manifests.NodeName(hub)}, set); err != nil {
			return "", err
		}
		if set.Spec.Template.Annotations[manifests.AnnotationRestartedAt] != at {
			return "the operator has not taken it up yet; if this lasts: does it run, and is it no older than this program?", nil
		}
		if why := progress.stuck(newReport(hub)); why != "" {
			return "", &finalError{fmt.Errorf("the restart is stuck: %s", why)}
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
