package controllers

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// lasting is what is a fault when it lasts: for seconds shards have no leader, and nodes
// no pod, in every rollout. Of neither the API server says since when it is so.
type lasting struct {
	leaderless string   // how many shards have no leader, in words; empty: none for long
	missing    []string // the pods that the StatefulSet should long have made
}

// lasting says what has been so for longer than notReadyGrace in the passes up to this
// one, which saw o.
func (h *hubMemory) lasting(o *observed) lasting {
	now := lasting{leaderless: h.lasts.leaderless}
	switch leaderless, known := o.leaderless(); {
	case !known && now.leaderless == "": // or two elections, with nobody looking between, would be one
		h.leaderlessSince = time.Time{}
	case !known: // what was so for long is so until somebody has seen otherwise
	case leaderless == "":
		h.leaderlessSince, now.leaderless = time.Time{}, ""
	case h.leaderlessSince.IsZero():
		h.leaderlessSince = o.now
	case o.now.Sub(h.leaderlessSince) > notReadyGrace:
		now.leaderless = leaderless
	}
	missing := make(map[string]time.Time)
	for _, pod := range o.missing() {
		since, already := h.missingSince[pod]
		if !already {
			since = o.now
		}
		missing[pod] = since
	}
	h.missingSince = missing
	for _, pod := range slices.SortedFunc(maps.Keys(missing), byOrdinal) {
		if o.now.Sub(missing[pod]) > notReadyGrace {
			now.missing = append(now.missing, pod)
		}
	}
	h.lasts = now
	return now
}

func byOrdinal(a, b string) int { return int(ordinalOf(a)) - int(ordinalOf(b)) }

// leaderless says how many shards have no leader, or nothing when all have; known is
// whether the nodes that might lead one have all said what they lead.
func (o *observed) leaderless() (leaderless string, known bool) {
	if len(o.leaving) > 0 || slices.ContainsFunc(o.nodes, func(n observedNode) bool { return !n.answers() }) {
		return "", false
	}
	h := o.history()
	if h.Led >= h.Shards {
		return "", true
	}
	return fmt.Sprintf("%d of %d shards", h.Shards-h.Led, h.Shards), true
}

// missing are the pods that the StatefulSet is asked for and that are not there.
func (o *observed) missing() (names []string) {
	sts := o.workload
	if sts == nil || sts.Spec.Replicas == nil || !sts.DeletionTimestamp.IsZero() {
		return nil // nobody makes pods now
	}
	there := make(map[string]bool)
	for i := range o.nodes {
		there[o.nodes[i].pod.Name] = true
	}
	for i := range o.leaving {
		there[o.leaving[i].Name] = true
	}
	for i := range *sts.Spec.Replicas {
		if name := fmt.Sprintf("%s-%d", sts.Name, i); !there[name] {
			names = append(names, name)
		}
	}
	return names
}

// withoutLeader says what to do about shards that have had no leader for long.
func (o *observed) withoutLeader() string {
	if o.lasts.leaderless == "" {
		return ""
	}
	return fmt.Sprintf("%s have had no leader for more than %s though their nodes run, and refuse what is published: see whether the nodes reach each other on port 7401, which a NetworkPolicy may prevent, and have the disk and CPU that elections need; their logs say how these end", o.lasts.leaderless, notReadyGrace)
}

// withoutPod says what to do about pods that have been missing for long. Why Kubernetes
// makes none only events say, which the operator may not read.
func (o *observed) withoutPod() string {
	if len(o.lasts.missing) == 0 {
		return ""
	}
	return fmt.Sprintf("Kubernetes has made no pod for more than %s: %s; why, the events of the StatefulSet say: kubectl events -n %s --for statefulset/%s", notReadyGrace, enumerate(o.lasts.missing), o.workload.Namespace, o.workload.Name)
}
