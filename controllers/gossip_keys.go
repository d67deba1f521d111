package controllers

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

// gossipKeyBytes selects AES-256.
const gossipKeyBytes = 32

// gossip is what a pass saw of the keys of the nodes' gossip, and made of them.
type gossip struct {
	keys  [][]byte // as they are in the Secret after the pass, the one that encrypts first
	phase manifests.KeyPhase
	// waiting is what the phase waits for.
	waiting []string
}

// gossipView is what planKeys decides by.
type gossipView struct {
	keys  [][]byte
	phase manifests.KeyPhase
	asked bool
	// unconfirmed says of each node why it is not known to have these keys, and no
	// others; none: all have.
	unconfirmed []string
}

// gossipPlan is the next step.
type gossipPlan struct {
	keys     [][]byte
	phase    manifests.KeyPhase
	finished bool
}

// planKeys returns the next step from one key to another. Nodes that are one step apart
// understand each other, and those that are two steps apart do not: each step waits
// until all nodes have made the one before. fresh makes a key.
func planKeys(v gossipView, fresh func() []byte) gossipPlan {
	stay := gossipPlan{keys: v.keys, phase: v.phase}
	if v.phase == "" && v.asked {
		return gossipPlan{keys: v.keys, phase: manifests.KeyAsked}
	}
	if len(v.unconfirmed) > 0 {
		return stay
	}
	switch v.phase {
	case manifests.KeyAsked:
		// One that was on its way by hand, and that nobody uses, makes room.
		return gossipPlan{keys: [][]byte{v.keys[0], fresh()}, phase: manifests.KeyAdd}
	case manifests.KeyAdd:
		if len(v.keys) < config.MaxGossipKeys { // somebody has taken it out
			return gossipPlan{keys: v.keys, phase: manifests.KeyAsked}
		}
		return gossipPlan{keys: [][]byte{v.keys[1], v.keys[0]}, phase: manifests.KeyUse}
	case manifests.KeyUse:
		return gossipPlan{keys: v.keys[:1], phase: manifests.KeyRemove}
	case manifests.KeyRemove:
		return gossipPlan{keys: v.keys, finished: true}
	}
	return stay
}

// unconfirmedKeys says of each node why it is not known to have just these keys.
func (o *observed) unconfirmedKeys(want int32, keys [][]byte) (waiting []string) {
	marks := make([]string, len(keys))
	for i, key := range keys {
		marks[i] = config.GossipKeyFingerprint(key)
	}
	primary := marks[0]
	slices.Sort(marks)
	for i := range o.nodes {
		n := &o.nodes[i]
		has := n.report.GossipKeys
		switch {
		case !n.ready:
			waiting = append(waiting, n.pod.Name+" is not ready")
		case !n.answers():
			waiting = append(waiting, n.pod.Name+" does not answer the operator")
		case has == nil:
			waiting = append(waiting, n.pod.Name+" is of a version that can't change its key while it runs: restart it")
		case has.Error != "":
			waiting = append(waiting, n.pod.Name+": "+has.Error)
		case has.Primary != primary || !slices.Equal(has.Accepted, marks):
			waiting = append(waiting, n.pod.Name+" has not taken the keys over")
		}
	}
	for i := range o.leaving {
		waiting = append(waiting, o.leaving[i].Name+" is about to end")
	}
	if n := int32(len(o.nodes)); n < want {
		waiting = append(waiting, fmt.Sprintf("%d of %d nodes exist", n, want))
	}
	return waiting
}

// applyGossipKeys makes the gossip's key once, for nodes with different keys don't hear
// each other, and replaces it step by step when that is asked for. How far that is, is
// in the Secret beside the keys.
func (r *HubReconciler) applyGossipKeys(ctx context.Context, p *pass) error {
	hub := p.hub
	live, err := r.ownSecret(ctx, hub, manifests.GossipSecretName(hub))
	if err != nil {
		return err
	}
	text := live.Data[manifests.GossipKey]
	if len(text) == 0 {
		text = config.EncodeGossipKeys([][]byte{newGossipKey()})
	}
	keys, err := config.DecodeGossipKeys(text)
	if err != nil {
		return &InvalidSecretError{Name: live.Name, Key: manifests.GossipKey, Why: "must be 16, 24 or 32 bytes in base64"}
	}
	v := gossipView{keys: keys, phase: manifests.KeyPhaseIn(live.Annotations), asked: hub.Annotations[manifests.AnnotationRotate] == manifests.RotateGossip}
	if v.phase != "" {
		v.unconfirmed = p.seen.unconfirmedKeys(manifests.Replicas(hub), keys)
	}
	plan := planKeys(v, newGossipKey)
	if !slices.EqualFunc(plan.keys, keys, bytes.Equal) {
		text = config.EncodeGossipKeys(plan.keys)
	}
	if err := r.writeSecret(ctx, hub, live, manifests.GossipSecret(hub, text, plan.phase)); err != nil {
		return err
	}
	p.seen.gossip = gossip{keys: plan.keys, phase: plan.phase, waiting: p.seen.unconfirmedKeys(manifests.Replicas(hub), plan.keys)}
	r.tellOfKeys(hub, v, plan)
	if !v.asked {
		return nil
	}
	if v.phase != "" {
		return r.endRequest(ctx, hub, "a rotation of the gossip's key is under way already")
	}
	return r.endRequest(ctx, hub, "")
}

func newGossipKey() []byte {
	raw := make([]byte, gossipKeyBytes)
	_, _ = rand.Read(raw) // never fails: the program ends without random numbers
	return raw
}

// tellOfKeys tells what a pass has changed.
func (r *HubReconciler) tellOfKeys(hub *switchboardv1alpha1.Hub, v gossipView, plan gossipPlan) {
	tell := func(reason, message string) {
		r.tell(hub, notice{corev1.EventTypeNormal, reason, message})
	}
	switch {
	case v.phase == manifests.KeyAsked && plan.phase == manifests.KeyAdd:
		tell(switchboardv1alpha1.ReasonRotationStarted, "nodes are given another gossip key, to accept beside the one that they use")
	case v.phase == manifests.KeyAdd && plan.phase == manifests.KeyUse:
		tell(switchboardv1alpha1.ReasonUsingKey, "all nodes accept the new gossip key, and are told to use it")
	case v.phase == manifests.KeyUse && plan.phase == manifests.KeyRemove:
		tell(switchboardv1alpha1.ReasonRemovingKey, "all nodes use the new gossip key, and are told to accept no other one")
	case plan.finished:
		tell(switchboardv1alpha1.ReasonRotationFinished, "all nodes have the new gossip key alone")
	}
}

// hurryKeys makes the kubelet look at the pods whose nodes have other keys than a
// rotation wants, as hurrySettings does.
func (r *HubReconciler) hurryKeys(ctx context.Context, p *pass) error {
	g := &p.seen.gossip
	if g.phase == "" || g.phase == manifests.KeyAsked {
		return nil
	}
	// Of the phase and what it is about, and nothing of a key.
	wanted := string(g.phase) + "-" + config.GossipKeyFingerprint(g.keys[0])
	for i := range p.seen.nodes {
		n := &p.seen.nodes[i]
		if !n.answers() || n.pod.Annotations[manifests.AnnotationGossipKeys] == wanted {
			continue
		}
		if err := r.hurry(ctx, n, manifests.AnnotationGossipKeys, wanted); err != nil {
			return err
		}
	}
	return nil
}

// setGossipKeyRotated says in the status how far a rotation is. What was said of one that
// has ended stays.
func setGossipKeyRotated(hub *switchboardv1alpha1.Hub, status *switchboardv1alpha1.HubStatus, seen *observed) {
	g := &seen.gossip
	had := meta.FindStatusCondition(status.Conditions, switchboardv1alpha1.ConditionGossipKeyRotated)
	if g.keys == nil || g.phase == "" && (had == nil || had.Status == metav1.ConditionTrue) {
		return
	}
	c := metav1.Condition{Type: switchboardv1alpha1.ConditionGossipKeyRotated, Status: metav1.ConditionFalse}
	switch g.phase {
	case "": // also when the pass that found it could not write it
		c.Status, c.Reason = metav1.ConditionTrue, switchboardv1alpha1.ReasonKeyRotated
		c.Message = "all nodes have the new key alone, of the fingerprint " + config.GossipKeyFingerprint(g.keys[0])
	case manifests.KeyAsked:
		c.Reason, c.Message = switchboardv1alpha1.ReasonAwaitingNodes, "the rotation begins once all nodes can follow it"
	case manifests.KeyAdd:
		c.Reason, c.Message = switchboardv1alpha1.ReasonAddingKey, "phase 1 of 3: nodes come to accept the new key, and use the old one"
	case manifests.KeyUse:
		c.Reason, c.Message = switchboardv1alpha1.ReasonUsingKey, "phase 2 of 3: nodes come to use the new key, and accept both"
	case manifests.KeyRemove:
		c.Reason, c.Message = switchboardv1alpha1.ReasonRemovingKey, "phase 3 of 3: nodes come to accept the new key alone"
	}
	if len(g.waiting) > 0 && g.phase != "" {
		c.Message += ". Waiting: " + enumerate(g.waiting)
	}
	setCondition(&status.Conditions, hub.Generation, seen.now, c)
}
