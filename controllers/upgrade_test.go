package controllers_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

// startedByAnEarlierOperator makes the StatefulSet as an operator with another image
// would have made it, and returns it.
func (h *hubInTest) startedByAnEarlierOperator(t *testing.T) *appsv1.StatefulSet {
	t.Helper()
	// Paused, so that the operator does not come between.
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Paused = true })
	h.waitForCondition(t, switchboardv1alpha1.ConditionProgressing, metav1.ConditionFalse, switchboardv1alpha1.ReasonPaused)
	earlier := manifests.StatefulSet(h.get(t), "switchboard:earlier")
	if err := h.Apply(t.Context(), earlier, client.FieldOwner(controllers.FieldOwner), client.ForceOwnership); err != nil {
		t.Fatal(err)
	}
	sts := &appsv1.StatefulSet{}
	h.read(t, sts, "agents-node")
	h.removePods(t, sts, 0)
	h.runPods(t)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Paused = false })
	return sts
}

func image(sts *appsv1.StatefulSet) string { return sts.Spec.Template.Spec.Containers[0].Image }

func TestNewOperatorRestartsNoNode(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 2")
	h.settle(t)
	sts := h.startedByAnEarlierOperator(t)
	c := h.waitForCondition(t, switchboardv1alpha1.ConditionUpdateAvailable, metav1.ConditionTrue, switchboardv1alpha1.ReasonOperatorUpdated)
	for _, want := range []string{"nodes run switchboard:earlier", "would run " + nodeImage, "kubectl annotate hub agents"} {
		if !strings.Contains(c.Message, want) {
			t.Errorf("message %q, want it to say %q", c.Message, want)
		}
	}
	// What nodes reload changes, what they are started with does not.
	h.change(t, func(s *switchboardv1alpha1.HubSpec) {
		s.History.MaxArtifacts = 7
		s.Replicas = new(int32(3))
	})
	h.settle(t)
	h.read(t, sts, "agents-node")
	if image(sts) != "switchboard:earlier" || *sts.Spec.Replicas != 3 || len(h.evictions()) > 0 {
		t.Fatalf("%d nodes run %s, evicted %q", *sts.Spec.Replicas, image(sts), h.evictions())
	}

	h.change(t, func(s *switchboardv1alpha1.HubSpec) {
		s.Pod = &switchboardv1alpha1.PodSpec{Annotations: map[string]string{"a": "b"}}
	})
	h.settle(t)
	h.read(t, sts, "agents-node")
	if image(sts) != nodeImage || len(h.evictions()) != 3 {
		t.Errorf("nodes run %s, evicted %q; want all to take over this operator's image with another change", image(sts), h.evictions())
	}
	eventually(t, func() error {
		if c := meta.FindStatusCondition(h.get(t).Status.Conditions, switchboardv1alpha1.ConditionUpdateAvailable); c != nil {
			return fmt.Errorf("still %+v", c)
		}
		return nil
	})
}

func TestRestartTakesOverTheOperatorsVersion(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 1")
	h.settle(t)
	sts := h.startedByAnEarlierOperator(t)
	h.waitForCondition(t, switchboardv1alpha1.ConditionUpdateAvailable, metav1.ConditionTrue, switchboardv1alpha1.ReasonOperatorUpdated)
	hub := h.get(t)
	before := hub.DeepCopy()
	hub.Annotations = map[string]string{manifests.AnnotationRestartedAt: "2026-11-25T01:02:03Z"}
	if err := h.Patch(t.Context(), hub, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	h.waitFor(t, sts, "agents-node", func() error {
		if image(sts) != nodeImage {
			return errors.New("nodes run " + image(sts))
		}
		return nil
	})
}

func TestTemplateChangedByHandIsNotKept(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 1")
	h.settle(t)
	sts := h.startedByAnEarlierOperator(t)
	h.waitForCondition(t, switchboardv1alpha1.ConditionUpdateAvailable, metav1.ConditionTrue, switchboardv1alpha1.ReasonOperatorUpdated)
	h.read(t, sts, "agents-node")
	sts.Spec.Template.Spec.Containers[0].Image = "switchboard:of-mine"
	if err := h.Update(t.Context(), sts, client.FieldOwner("kubectl-edit")); err != nil {
		t.Fatal(err)
	}
	h.waitFor(t, sts, "agents-node", func() error {
		if image(sts) != nodeImage {
			return errors.New("nodes run " + image(sts))
		}
		return nil
	})
}

// revise keeps the StatefulSet's pod template, as its controller does.
func (h *hubInTest) revise(t *testing.T, sts *appsv1.StatefulSet, number int64) {
	t.Helper()
	template, err := json.Marshal(sts.Spec.Template)
	if err != nil {
		t.Fatal(err)
	}
	text, ok := strings.CutPrefix(string(template), "{")
	if !ok {
		t.Fatalf("a template like %s", template)
	}
	if err := h.Create(t.Context(), &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: sts.Namespace, Name: fmt.Sprintf("%s-%d", sts.Name, number), Labels: sts.Spec.Template.Labels, Annotations: sts.Annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(sts, appsv1.SchemeGroupVersion.WithKind("StatefulSet"))},
		},
		Data:     runtime.RawExtension{Raw: []byte(`{"spec":{"template":{"$patch":"replace",` + text + `}}`)},
		Revision: number,
	}); err != nil {
		t.Fatal(err)
	}
}

func TestStatefulSetThatIsMadeAgainRestartsNoNode(t *testing.T) {
	c := useCluster(t)
	storageClass(t, c, "expands", true)
	h := createHub(t, c, "{replicas: 2, storage: {size: 1Gi, storageClassName: expands}}")
	h.bindClaims(t)
	h.settle(t)
	sts := &appsv1.StatefulSet{}
	h.read(t, sts, "agents-node")
	h.revise(t, sts, 1)
	sts = h.startedByAnEarlierOperator(t)
	h.revise(t, sts, 2)
	h.waitForCondition(t, switchboardv1alpha1.ConditionUpdateAvailable, metav1.ConditionTrue, switchboardv1alpha1.ReasonOperatorUpdated)
	h.grow(t, "2Gi")
	h.waitFor(t, sts, "agents-node", func() error {
		if sts.DeletionTimestamp.IsZero() {
			return errors.New("it is not deleted")
		}
		return nil
	})
	c.replaceOperator(t) // by one that has not seen it
	after := h.makeAgain(t, sts)
	if got := image(after); got != "switchboard:earlier" {
		t.Errorf("the StatefulSet that was made again has %s", got)
	}
	h.adopt(t, after)
	for _, claim := range h.claims(t) {
		h.provide(t, &claim)
	}
	h.settle(t)
	h.read(t, after, "agents-node")
	if got := image(after); got != "switchboard:earlier" || len(h.evictions()) > 0 {
		t.Errorf("nodes run %s, evicted %q", got, h.evictions())
	}
	h.waitForCondition(t, switchboardv1alpha1.ConditionUpdateAvailable, metav1.ConditionTrue, switchboardv1alpha1.ReasonOperatorUpdated)
}

// What is empty the API server drops, so that it is no more in what the operator owns.
func TestNewOperatorRestartsNoNodeOfATemplateWithEmptyValues(t *testing.T) {
	h := createHub(t, useCluster(t), "{replicas: 1, resources: {limits: {memory: 512Mi}}, pod: {env: [{name: A, value: ''}]}}")
	h.settle(t)
	sts := h.startedByAnEarlierOperator(t)
	h.waitForCondition(t, switchboardv1alpha1.ConditionUpdateAvailable, metav1.ConditionTrue, switchboardv1alpha1.ReasonOperatorUpdated)
	if h.read(t, sts, "agents-node"); image(sts) != "switchboard:earlier" || len(h.evictions()) > 0 {
		t.Errorf("nodes run %s, evicted %q", image(sts), h.evictions())
	}
}
