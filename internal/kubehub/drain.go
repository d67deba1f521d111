package kubehub

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

// lookEvery is the time between two looks of what waits.
const lookEvery = time.Second

// NotSafeError says that a node may not be stopped now.
type NotSafeError struct {
	Node string
	Why  string
}

// Error says why, and what to do.
func (e *NotSafeError) Error() string {
	return fmt.Sprintf("%s is left alone, it is not safe to stop a node now: %s. Wait until kubectl hub status says that one may stop; --force drains it all the same", e.Node, e.Why)
}

// Progress is told what happens, a line at a time.
type Progress func(format string, args ...any)

// Drain replaces a node of the Hub: it evicts the pod, whose node then moves its
// clients and leaderships away, and waits until another one is in its place and all
// shards are whole. With force it does so also when the Hub is not safe to restart;
// the disruption budget it respects in any case.
//
// When ctx ends it stops waiting. What it has begun goes on.
func (c *Cluster) Drain(ctx context.Context, hub *switchboardv1alpha1.Hub, pod *corev1.Pod, force bool, tell Progress) (*Replaced, error) {
	if !force {
		if err := c.awaitSafe(ctx, hub.Name, pod.Name, tell); err != nil {
			return nil, err
		}
	}
	if manifests.Replicas(hub) == 1 {
		tell("%s is the only node: its clients are away until the next one is ready", pod.Name)
	}
	started := time.Now()
	if err := c.evict(ctx, pod, tell); err != nil {
		return nil, err
	}
	tell("%s is evicted: its clients and leaderships move to other nodes", pod.Name)
	var done *Replaced
	err := wait(ctx, tell, func(ctx context.Context) (string, error) {
		now, err := c.Hub(ctx, hub.Name)
		if err != nil {
			return "", err
		}
		r := c.look(ctx, now)
		if waiting := r.replaced(pod, c.podUID(ctx, pod.Name)); waiting != "" {
			return waiting, nil
		}
		if r.NotSafe != "" {
			return "the new " + pod.Name + " is ready; " + r.NotSafe, nil
		}
		done = r.done([]string{pod.Name}, started)
		return "", nil
	})
	return done, err
}

// Replaced is what came of replacing nodes.
type Replaced struct {
	Hub           string        `json:"hub"`
	Nodes         []string      `json:"nodes"` // that were replaced
	Seconds       float64       `json:"seconds"`
	Replicas      int32         `json:"replicas"`
	ReadyReplicas int32         `json:"readyReplicas"`
	Shards        *ShardsReport `json:"shards,omitempty"`
}

func (r *Report) done(nodes []string, started time.Time) *Replaced {
	if nodes == nil {
		nodes = []string{} // as JSON has it
	}
	return &Replaced{r.Hub, nodes, time.Since(started).Seconds(), r.Replicas, r.ReadyReplicas, r.Shards}
}

// String says it to people.
func (r *Replaced) String() string {
	if len(r.Nodes) == 0 {
		return fmt.Sprintf("Hub %s is stopped: there was no node to replace", r.Hub)
	}
	text := fmt.Sprintf("%s: replaced within %.0fs; %d of %d nodes are ready", strings.Join(r.Nodes, ", "), r.Seconds, r.ReadyReplicas, r.Replicas)
	if r.Shards != nil {
		text += fmt.Sprintf(", %d of %d shards have all replicas", r.Shards.Whole, r.Shards.Shards)
	}
	return text
}

// settles is how long what is not safe may be so for no reason that lasts: a shard is
// without a leader for a moment when its leader changes.
const settles = 5 * time.Second

// awaitSafe returns nil when a node may be stopped now, or in a moment.
func (c *Cluster) awaitSafe(ctx context.Context, hubName, node string, tell Progress) error {
	deadline := time.Now().Add(settles)
	return wait(ctx, tell, func(ctx context.Context) (string, error) {
		hub, err := c.Hub(ctx, hubName)
		if err != nil {
			return "", err
		}
		r := c.look(ctx, hub)
		if r.NotSafe != "" && time.Now().After(deadline) {
			return "", &finalError{&NotSafeError{node, r.NotSafe}}
		}
		if r.NotSafe != "" {
			return "not now: " + r.NotSafe, nil
		}
		return "", nil
	})
}

// evict asks until the disruption budget lets the pod go.
func (c *Cluster) evict(ctx context.Context, pod *corev1.Pod, tell Progress) error {
	return wait(ctx, tell, func(ctx context.Context) (string, error) {
		err := c.core.Pods(pod.Namespace).EvictV1(ctx, &policyv1.Eviction{
			ObjectMeta:    metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace},
			DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}},
		})
		switch {
		case apierrors.IsTooManyRequests(err):
			return "the disruption budget lets no node go now; trying again", nil
		case apierrors.IsNotFound(err), apierrors.IsConflict(err):
			tell("%s went by itself meanwhile", pod.Name)
			return "", nil
		case err != nil:
			return "", fmt.Errorf("evict %s: %w", pod.Name, err)
		}
		return "", nil
	})
}

// podUID returns which pod has the name now, or nothing.
func (c *Cluster) podUID(ctx context.Context, name string) string {
	pod, err := c.core.Pods(c.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return ""
	}
	return string(pod.UID)
}

// replaced says what is missing until another pod is in old's place; uid is who has
// its name now.
func (r *Report) replaced(old *corev1.Pod, uid string) string {
	for i := range r.Nodes {
		n := &r.Nodes[i]
		switch {
		case n.Node != old.Name:
		case uid == string(old.UID) && n.Status != nil:
			return fmt.Sprintf("%s is ending, it has %d clients and leads %d shards", n.Node, n.Status.Clients, n.Status.History.Led)
		case uid == string(old.UID) || n.Ending:
			return n.Node + " is ending"
		case !n.Ready && n.Problem != "":
			return fmt.Sprintf("the new %s is not ready: %s", n.Node, n.Problem)
		case !n.Ready:
			return fmt.Sprintf("the new %s is starting", n.Node)
		default:
			return ""
		}
	}
	return old.Name + " is gone, the next one is not there yet"
}

// patience is for an API server that does not answer for a moment, as during its own
// upgrade, while somebody waits.
const patience = 30 * time.Second

// wait calls look until it says nothing, and tells what it says when that is new.
func wait(ctx context.Context, tell Progress, look func(context.Context) (string, error)) error {
	told, failing := "", time.Time{}
	next := time.NewTicker(lookEvery)
	defer next.Stop()
	for {
		waiting, err := look(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && waiting == "":
			return nil
		case err == nil:
			failing = time.Time{}
		case !passing(err), !failing.IsZero() && time.Since(failing) > patience:
			return err
		default:
			waiting = "trying again: " + err.Error()
			if failing.IsZero() {
				failing = time.Now()
			}
		}
		if waiting != told {
			told = waiting
			tell("%s", waiting)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next.C:
		}
	}
}

// finalError is one for which waiting is in vain.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

// passing reports whether an error may be another one in a moment: the API server
// gave no answer of its own, or one that it has no time.
func passing(err error) bool {
	if _, final := errors.AsType[*finalError](err); final {
		return false
	}
	var status apierrors.APIStatus
	return !errors.As(err, &status) || status.Status().Code >= 500 || apierrors.IsTooManyRequests(err)
}
