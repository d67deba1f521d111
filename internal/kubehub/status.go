package kubehub

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/hubnode"
)

// Report is all that one look at a Hub shows.
type Report struct {
	Hub       string `json:"hub"`
	Namespace string `json:"namespace"`
	// State is one word: "well", "changing", "paused", "degraded", "down" or "stopped".
	State         string `json:"state"`
	Replicas      int32  `json:"replicas"` // wanted
	ReadyReplicas int32  `json:"readyReplicas"`
	Address       string `json:"address"`
	Clients       int64  `json:"clients"`
	Paused        bool   `json:"paused"`
	// Behind says that the operator has not seen the newest spec.
	Behind        bool `json:"behind"`
	SafeToRestart bool `json:"safeToRestart"`
	// NotSafe is why no node may stop now, as far as the nodes say.
	NotSafe    string         `json:"notSafe,omitempty"`
	Conditions []Condition    `json:"conditions"`
	Rollout    *RolloutReport `json:"rollout,omitempty"`
	Shards     *ShardsReport  `json:"shards,omitempty"` // nil: no history, or no node answers
	Nodes      []NodeReport   `json:"nodes"`
	Events     []EventReport  `json:"events"` // the oldest first
	// Unread is what could not be read.
	Unread []string `json:"unread,omitempty"`
}

// Condition is a condition of the Hub, and what a person can do about it.
type Condition struct {
	Type    string    `json:"type"`
	Status  string    `json:"status"`
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	Since   time.Time `json:"since"`
	Bad     bool      `json:"bad"` // whether it needs a person
	Next    string    `json:"next,omitempty"`
}

// RolloutReport says how many nodes have the newest pod template.
type RolloutReport struct {
	Updated int `json:"updated"`
	Nodes   int `json:"nodes"`
}

// ShardsReport counts the shards of history, by what the nodes say that lead them.
type ShardsReport struct {
	Shards int `json:"shards"`
	Led    int `json:"led"`   // have a leader
	Whole  int `json:"whole"` // have all their replicas, caught up
}

// NodeReport is one node: its pod, and what the node says of itself.
type NodeReport struct {
	Node     string    `json:"node"`
	Ready    bool      `json:"ready"`
	Ending   bool      `json:"ending"` // its pod is being deleted
	Problem  string    `json:"problem,omitempty"`
	Image    string    `json:"image"`
	Machine  string    `json:"machine"`
	Restarts int32     `json:"restarts"`
	Created  time.Time `json:"created"`
	Updated  bool      `json:"updated"` // has the newest pod template
	// Status is the node's own word; nil when it does not answer, then Silent says why.
	Status *hubnode.Status `json:"status,omitempty"`
	Silent string          `json:"silent,omitempty"`
}

// EventReport is an event of the Hub or one of its pods.
type EventReport struct {
	Time    time.Time `json:"time"`
	Type    string    `json:"type"`
	Object  string    `json:"object"`
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	Count   int32     `json:"count"`
}

// Status looks at the Hub of that name, or the only one. What can't be read besides
// it is noted in the report.
func (c *Cluster) Status(ctx context.Context, name string) (*Report, error) {
	hub, err := c.Hub(ctx, name)
	if err != nil {
		return nil, err
	}
	r := c.look(ctx, hub)
	events, err := c.events(ctx, hub)
	if err != nil {
		r.unread("events", err)
	}
	r.Events = events
	return r, nil
}

// askAtOnce bounds how many nodes are asked at the same time.
const askAtOnce = 16

// look is Status without events.
func (c *Cluster) look(ctx context.Context, hub *switchboardv1alpha1.Hub) *Report {
	r := newReport(hub)
	pods, err := c.nodes(ctx, hub)
	if err != nil {
		r.unread("pods", err)
		r.NotSafe = r.operatorsWord()
		return r
	}
	set := &appsv1.StatefulSet{}
	err = c.client.Get(ctx, client.ObjectKey{Namespace: hub.Namespace, Name: manifests.NodeName(hub)}, set)
	if client.IgnoreNotFound(err) != nil {
		r.unread("the StatefulSet", err)
	}
	r.Nodes = make([]NodeReport, len(pods))
	var asking errgroup.Group
	asking.SetLimit(askAtOnce)
	for i := range pods {
		n := &r.Nodes[i]
		*n = newNodeReport(&pods[i], set.Status.UpdateRevision)
		if pods[i].Status.Phase != corev1.PodRunning {
			n.Silent = "its pod does not run"
			continue
		}
		asking.Go(func() error {
			status, err := c.nodeStatus(ctx, n.Node)
			if err != nil {
				n.Silent = err.Error()
			}
			n.Status = status
			return nil
		})
	}
	_ = asking.Wait() // that one does not answer is no error
	r.conclude(set.Status.UpdateRevision != "")
	return r
}

// unread notes what could not be read. Who is on call may have few rights.
func (r *Report) unread(what string, err error) {
	if apierrors.IsForbidden(err) {
		err = fmt.Errorf("you have no right to: %w", err)
	}
	r.Unread = append(r.Unread, fmt.Sprintf("%s: %v", what, err))
}

func newReport(hub *switchboardv1alpha1.Hub) *Report {
	r := &Report{
		Hub: hub.Name, Namespace: hub.Namespace,
		Replicas: manifests.Replicas(hub), ReadyReplicas: hub.Status.ReadyReplicas,
		Address: hub.Status.Address, Clients: hub.Status.Clients,
		Paused: hub.Spec.Paused, Behind: hub.Status.ObservedGeneration != hub.Generation,
		SafeToRestart: hub.Status.SafeToRestart, State: stateOf(hub),
		Conditions: []Condition{}, Events: []EventReport{},
	}
	for _, c := range hub.Status.Conditions {
		if c.Type == switchboardv1alpha1.ConditionReconciling || c.Type == switchboardv1alpha1.ConditionStalled {
			continue // they repeat others for tools
		}
		r.Conditions = append(r.Conditions, newCondition(hub, c))
	}
	return r
}

func newNodeReport(pod *corev1.Pod, newest string) NodeReport {
	n := NodeReport{
		Node: pod.Name, Ready: podReady(pod), Ending: !pod.DeletionTimestamp.IsZero(),
		Machine: pod.Spec.NodeName, Created: pod.CreationTimestamp.Time, Problem: problemOf(pod),
		Updated: pod.Labels[appsv1.StatefulSetRevisionLabel] == newest,
	}
	for _, c := range pod.Spec.Containers {
		if c.Name == manifests.NodeContainer {
			n.Image = c.Image
		}
	}
	for _, s := range pod.Status.ContainerStatuses {
		if s.Name == manifests.NodeContainer {
			n.Restarts = s.RestartCount
		}
	}
	return n
}

// initializing is why a container waits for those that run before it.
const initializing = "PodInitializing"

// problemOf says in Kubernetes' words why a pod is no node at work. What others have put
// into the pod has its name before it, and counts while the node itself runs or waits for it.
func problemOf(pod *corev1.Pod) string {
	node, other := "", ""
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		reason, failed := "", true
		if w := s.State.Waiting; w != nil {
			reason, failed = w.Reason, w.Reason != initializing
		} else if t := s.State.Terminated; t != nil {
			reason, failed = t.Reason, t.ExitCode != 0
		}
		switch {
		case s.Name == manifests.NodeContainer:
			node = reason
		case reason != "" && failed && other == "":
			other = s.Name + ": " + reason
		}
	}
	if node != "" && node != initializing {
		return node
	}
	if problem := cmp.Or(other, node); problem != "" {
		return problem
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return c.Reason
		}
	}
	return ""
}

// conclude adds up what the nodes say. known says whether it is known which of them
// have the newest pod template.
func (r *Report) conclude(known bool) {
	if known {
		r.Rollout = &RolloutReport{Nodes: len(r.Nodes)}
	}
	shards := ShardsReport{}
	for i := range r.Nodes {
		n := &r.Nodes[i]
		if r.Rollout != nil && n.Updated {
			r.Rollout.Updated++
		}
		if n.Status != nil {
			shards.Shards = max(shards.Shards, n.Status.History.Shards)
			shards.Led += n.Status.History.Led
			shards.Whole += n.Status.History.Whole
		}
	}
	if shards.Shards > 0 {
		r.Shards = &shards
	}
	r.NotSafe = r.notSafe()
	if r.NotSafe != "" {
		r.SafeToRestart = false
	}
}

// notSafe says why no node may stop now, or nothing when any one may. It is by what
// the nodes say at this moment; the operator's word may be some seconds old.
func (r *Report) notSafe() string {
	silent := false
	for i := range r.Nodes {
		n := &r.Nodes[i]
		switch {
		case n.Ending:
			return n.Node + " is just ending"
		case !n.Ready:
			return n.Node + " is not ready"
		}
		silent = silent || n.Status == nil
	}
	s := r.Shards
	switch {
	case len(r.Nodes) < int(r.Replicas):
		return fmt.Sprintf("%d of %d nodes exist", len(r.Nodes), r.Replicas)
	case !silent && s != nil && s.Led < s.Shards:
		return fmt.Sprintf("%d of %d shards have no leader", s.Shards-s.Led, s.Shards)
	case !silent && s != nil && s.Whole < s.Shards:
		return fmt.Sprintf("%d of %d shards wait for replicas to catch up", s.Shards-s.Whole, s.Shards)
	}
	return r.operatorsWord()
}

// operatorsWord is why no node may stop now as far as the operator says.
func (r *Report) operatorsWord() string {
	if r.SafeToRestart {
		return ""
	}
	return "the operator does not say that it is safe"
}

// eventsAtMost is how many events fit the screen.
const eventsAtMost = 10

// events returns the newest events of the Hub and its pods.
func (c *Cluster) events(ctx context.Context, hub *switchboardv1alpha1.Hub) ([]EventReport, error) {
	all, err := c.allEvents(ctx, hub)
	if err != nil {
		return nil, err
	}
	found := []EventReport{}
	for i := range all[max(0, len(all)-eventsAtMost):] {
		e := &all[max(0, len(all)-eventsAtMost)+i]
		count := max(e.Count, 1)
		if e.Series != nil {
			count = e.Series.Count
		}
		found = append(found, EventReport{
			Time: eventTime(e), Type: e.Type, Object: e.InvolvedObject.Kind + " " + e.InvolvedObject.Name,
			Reason: e.Reason, Message: e.Message, Count: count,
		})
	}
	return found, nil
}

// allEvents returns the events about the Hub and what it owns, the oldest first.
func (c *Cluster) allEvents(ctx context.Context, hub *switchboardv1alpha1.Hub) ([]corev1.Event, error) {
	var list corev1.EventList
	if err := c.client.List(ctx, &list, client.InNamespace(hub.Namespace)); err != nil {
		return nil, err
	}
	all := slices.DeleteFunc(list.Items, func(e corev1.Event) bool { return !about(hub, e.InvolvedObject) })
	slices.SortStableFunc(all, func(a, b corev1.Event) int { return eventTime(&a).Compare(eventTime(&b)) })
	return all, nil
}

// about reports whether an object is the Hub, or one that the Hub has by its name.
func about(hub *switchboardv1alpha1.Hub, o corev1.ObjectReference) bool {
	node := manifests.NodeName(hub)
	switch o.Kind {
	case "Hub":
		return o.Name == hub.Name
	case "Pod":
		return o.Name == fmt.Sprintf("%s-%d", node, ordinal(o.Name))
	case "PersistentVolumeClaim":
		return o.Name == fmt.Sprintf("history-%s-%d", node, ordinal(o.Name))
	}
	return o.Name == node || o.Name == hub.Name
}

func eventTime(e *corev1.Event) time.Time {
	latest := e.CreationTimestamp.Time
	for _, t := range []time.Time{e.FirstTimestamp.Time, e.LastTimestamp.Time, e.EventTime.Time} {
		if t.After(latest) {
			latest = t
		}
	}
	if e.Series != nil && e.Series.LastObservedTime.After(latest) {
		latest = e.Series.LastObservedTime.Time
	}
	return latest
}

// stateOf is the Hub in one word.
func stateOf(hub *switchboardv1alpha1.Hub) string {
	is := func(t string, s metav1.ConditionStatus) bool {
		return slices.ContainsFunc(hub.Status.Conditions, func(c metav1.Condition) bool { return c.Type == t && c.Status == s })
	}
	stuck := slices.ContainsFunc(hub.Status.Conditions, func(c metav1.Condition) bool { return needsPerson(c.Reason) })
	switch {
	case manifests.Replicas(hub) == 0:
		return "stopped"
	case !is(switchboardv1alpha1.ConditionAvailable, metav1.ConditionTrue):
		return "down"
	case is(switchboardv1alpha1.ConditionDegraded, metav1.ConditionTrue), stuck:
		return "degraded"
	case hub.Spec.Paused:
		return "paused"
	case is(switchboardv1alpha1.ConditionProgressing, metav1.ConditionTrue), hub.Status.ObservedGeneration != hub.Generation:
		return "changing"
	}
	return "well"
}
