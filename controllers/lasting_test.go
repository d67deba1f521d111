package controllers_test

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers"
)

// lead lets a pod's node say that it leads so many of four shards.
func (h *hubInTest) lead(address string, led int) {
	h.nodes.change(address, func(r *controllers.NodeReport) {
		r.History = controllers.HistoryReport{Shards: 4, Led: led, Whole: led}
	})
}

func TestShardsThatGetNoLeaderAreTold(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 2")
	pods := h.settle(t)
	h.lead(pods[0].Status.PodIP, 3)
	h.poke(t, pods[0])
	h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionFalse, switchboardv1alpha1.ReasonAsExpected)
	h.clock.putOn(t, 2*time.Minute)
	h.poke(t, pods[0])
	c := h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionTrue, switchboardv1alpha1.ReasonShardsWithoutLeader)
	if !strings.HasPrefix(c.Message, "1 of 4 shards have had no leader") {
		t.Errorf("the message is %q", c.Message)
	}
	writes := len(h.requests.in(h.key.Namespace))
	h.poke(t, pods[0])
	h.poke(t, pods[1]) // so that the pass before has ended
	if got := h.requests.in(h.key.Namespace); len(got) != writes {
		t.Errorf("nothing has changed, and the operator writes %q", got[writes:])
	}
	h.lead(pods[0].Status.PodIP, 4)
	h.poke(t, pods[0])
	h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionFalse, switchboardv1alpha1.ReasonAsExpected)
}

func TestPodThatKubernetesDoesNotMakeIsTold(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 2")
	pods := h.settle(t)
	sts := &appsv1.StatefulSet{}
	h.read(t, sts, "agents-node")
	h.removePods(t, sts, 1)
	before := sts.DeepCopy()
	s := &sts.Status
	s.Replicas, s.ReadyReplicas, s.CurrentReplicas, s.UpdatedReplicas, s.AvailableReplicas = 1, 1, 1, 1, 1
	if err := h.Status().Patch(t.Context(), sts, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	h.waitForCondition(t, switchboardv1alpha1.ConditionProgressing, metav1.ConditionTrue, switchboardv1alpha1.ReasonScaling)
	h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionFalse, switchboardv1alpha1.ReasonAsExpected)
	h.clock.putOn(t, 2*time.Minute)
	c := h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionTrue, switchboardv1alpha1.ReasonNodesFailing)
	if want := "agents-node-1; why, the events of the StatefulSet say: kubectl events -n " + h.key.Namespace + " --for statefulset/agents-node"; !strings.Contains(c.Message, want) {
		t.Errorf("the message is %q, want it to say %q", c.Message, want)
	}
	if got := h.pods(t); len(got) != 1 || got[0].UID != pods[0].UID {
		t.Errorf("there are other pods: %v", got)
	}
	h.settle(t)
	h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionFalse, switchboardv1alpha1.ReasonAsExpected)
}
