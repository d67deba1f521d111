package controllers_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

// takeKeys makes nodes have the gossip keys that are in the Secret now.
func (h *hubInTest) takeKeys(t *testing.T, pods ...*corev1.Pod) {
	t.Helper()
	for _, pod := range pods {
		has := h.keysOf(t, pod)
		h.nodes.change(pod.Status.PodIP, func(r *controllers.NodeReport) { r.GossipKeys = has })
	}
}

// waitForKeys waits until these keys are in the Secret, in a phase.
func (h *hubInTest) waitForKeys(t *testing.T, phase manifests.KeyPhase, keys ...[]byte) {
	t.Helper()
	secret := &corev1.Secret{}
	h.waitFor(t, secret, "agents-gossip", func() error {
		has, err := config.DecodeGossipKeys(secret.Data["key"])
		if err != nil {
			return err
		}
		if !slices.EqualFunc(has, keys, bytes.Equal) || manifests.KeyPhaseIn(secret.Annotations) != phase {
			return fmt.Errorf("%d keys, annotations %v, want these %d in phase %q", len(has), secret.Annotations, len(keys), phase)
		}
		return nil
	})
}

// keyRotated waits for the condition, with a message that has the text.
func (h *hubInTest) keyRotated(t *testing.T, status metav1.ConditionStatus, reason, text string) {
	t.Helper()
	eventually(t, func() error {
		c := h.waitForCondition(t, switchboardv1alpha1.ConditionGossipKeyRotated, status, reason)
		if !strings.Contains(c.Message, text) {
			return fmt.Errorf("message %q, want it to say %q", c.Message, text)
		}
		return nil
	})
}

// Each phase waits for all nodes, and another operator goes on where this one was.
func TestGossipKeyIsRotatedInPhases(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 2")
	pods := h.settle(t)
	old := h.gossipKeys(t)[0]
	h.annotate(t, "gossip")
	h.waitUntilTaken(t)
	eventually(t, func() error {
		if len(h.gossipKeys(t)) != 2 {
			return errors.New("there is one key")
		}
		return nil
	})
	next := h.gossipKeys(t)[1]
	h.waitForKeys(t, manifests.KeyAdd, old, next)
	h.waitForEvent(t, "Normal", switchboardv1alpha1.ReasonRotationStarted)
	for _, step := range []struct {
		phase  manifests.KeyPhase
		keys   [][]byte
		reason string
		text   string
	}{
		{manifests.KeyAdd, [][]byte{old, next}, switchboardv1alpha1.ReasonAddingKey, "phase 1 of 3"},
		{manifests.KeyUse, [][]byte{next, old}, switchboardv1alpha1.ReasonUsingKey, "phase 2 of 3"},
		{manifests.KeyRemove, [][]byte{next}, switchboardv1alpha1.ReasonRemovingKey, "phase 3 of 3"},
	} {
		h.waitForKeys(t, step.phase, step.keys...)
		h.keyRotated(t, metav1.ConditionFalse, step.reason, step.text)
		h.keyRotated(t, metav1.ConditionFalse, step.reason, "agents-node-0 has not taken the keys over, agents-node-1 has not taken the keys over")
		h.takeKeys(t, pods[0])
		h.replaceOperator(t)
		h.poke(t, pods[1])
		h.poke(t, pods[1])
		h.waitForKeys(t, step.phase, step.keys...)
		h.keyRotated(t, metav1.ConditionFalse, step.reason, "Waiting: agents-node-1 has not taken the keys over")
		if step.phase == manifests.KeyUse {
			h.annotate(t, "gossip")
			h.waitUntilTaken(t)
			if text := h.waitForEvent(t, "Warning", switchboardv1alpha1.ReasonRotationRefused); !strings.Contains(text, "under way") {
				t.Errorf("event %q", text)
			}
		}
		pod := &corev1.Pod{}
		h.waitFor(t, pod, "agents-node-1", func() error { // the kubelet is told to look
			if !strings.HasPrefix(pod.Annotations[manifests.AnnotationGossipKeys], string(step.phase)+"-") {
				return fmt.Errorf("annotations %v", pod.Annotations)
			}
			return nil
		})
		h.takeKeys(t, pods[1])
	}
	h.waitForKeys(t, "", next)
	h.keyRotated(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonKeyRotated, config.GossipKeyFingerprint(next))
	h.waitForEvent(t, "Normal", switchboardv1alpha1.ReasonRotationFinished)
	if len(h.evictions()) > 0 {
		t.Errorf("evicted %q", h.evictions())
	}
	for _, c := range h.get(t).Status.Conditions {
		for _, key := range [][]byte{old, next} {
			if strings.Contains(c.Message, string(config.EncodeGossipKeys([][]byte{key}))) {
				t.Errorf("condition %s gives a key away", c.Type)
			}
		}
	}
	h.poke(t, pods[0]) // and nothing more follows
	h.waitForKeys(t, "", next)
}

// Nodes of before would not understand a file of two keys: nothing begins while there is
// one. The request is not lost.
func TestGossipKeyIsNotRotatedWithNodesOfBefore(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 2")
	pods := h.settle(t)
	old := h.gossipKeys(t)[0]
	h.nodes.change(pods[1].Status.PodIP, func(r *controllers.NodeReport) { r.GossipKeys = nil })
	h.annotate(t, "gossip")
	h.waitUntilTaken(t)
	h.keyRotated(t, metav1.ConditionFalse, switchboardv1alpha1.ReasonAwaitingNodes, "agents-node-1 is of a version that can't change its key while it runs: restart it")
	h.replaceOperator(t)
	h.poke(t, pods[0])
	h.poke(t, pods[0])
	h.waitForKeys(t, manifests.KeyAsked, old)
	h.takeKeys(t, pods[1])
	h.keyRotated(t, metav1.ConditionFalse, switchboardv1alpha1.ReasonAddingKey, "phase 1 of 3")
	// A node that refuses what is there holds it up, and is told of.
	h.takeKeys(t, pods[0])
	h.nodes.change(pods[1].Status.PodIP, func(r *controllers.NodeReport) {
		refused := *r.GossipKeys // the operator may be reading the one before
		refused.Error = "gossip key: permission denied"
		r.GossipKeys = &refused
	})
	h.keyRotated(t, metav1.ConditionFalse, switchboardv1alpha1.ReasonAddingKey, "Waiting: agents-node-1: gossip key: permission denied")
}
