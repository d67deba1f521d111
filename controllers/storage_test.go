package controllers_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// storageClass makes a class of volumes that can grow, or can't.
func storageClass(t *testing.T, c *cluster, name string, expands bool) {
	t.Helper()
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: "test.switchboard.dev/none", AllowVolumeExpansion: &expands}
	if err := c.Create(t.Context(), class); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}

// bindClaims makes the claims of the StatefulSet's pods, as its controller would,
// with volumes as large as asked for.
func (h *hubInTest) bindClaims(t *testing.T) []*corev1.PersistentVolumeClaim {
	t.Helper()
	sts := &appsv1.StatefulSet{}
	h.read(t, sts, "agents-node")
	var claims []*corev1.PersistentVolumeClaim
	for _, template := range sts.Spec.VolumeClaimTemplates {
		for i := range *sts.Spec.Replicas {
			claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
				Namespace: h.key.Namespace, Name: fmt.Sprintf("%s-agents-node-%d", template.Name, i), Labels: template.Labels,
			}, Spec: *template.Spec.DeepCopy()}
			if err := h.Create(t.Context(), claim); err != nil {
				t.Fatal(err)
			}
			h.provide(t, claim)
			claims = append(claims, claim)
		}
	}
	return claims
}

// claims returns those of the Hub's namespace.
func (h *hubInTest) claims(t *testing.T) []corev1.PersistentVolumeClaim {
	t.Helper()
	list := &corev1.PersistentVolumeClaimList{}
	if err := h.List(t.Context(), list, client.InNamespace(h.key.Namespace)); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// provide gives a claim the volume that it asks for.
func (h *hubInTest) provide(t *testing.T, claim *corev1.PersistentVolumeClaim) {
	t.Helper()
	h.read(t, claim, claim.Name)
	before := claim.DeepCopy()
	claim.Status.Phase, claim.Status.Capacity = corev1.ClaimBound, claim.Spec.Resources.Requests
	if err := h.Status().Patch(t.Context(), claim, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

// collectGarbage does what Kubernetes does for a StatefulSet that is deleted
// without its pods, once the operator has done so.
func (h *hubInTest) collectGarbage(t *testing.T, uid types.UID) {
	t.Helper()
	sts := &appsv1.StatefulSet{}
	h.waitFor(t, sts, "agents-node", func() error {
		if sts.UID != uid || sts.DeletionTimestamp.IsZero() {
			return errors.New("the StatefulSet is not deleted")
		}
		if !slices.Contains(sts.Finalizers, metav1.FinalizerOrphanDependents) {
			return fmt.Errorf("its pods go, too: finalizers %q", sts.Finalizers)
		}
		return nil
	})
	for _, pod := range h.pods(t) {
		before := pod.DeepCopy()
		pod.OwnerReferences = nil
		if err := h.Patch(t.Context(), &pod, client.MergeFrom(before)); err != nil {
			t.Fatal(err)
		}
	}
	revisions := &appsv1.ControllerRevisionList{}
	if err := h.List(t.Context(), revisions, client.InNamespace(h.key.Namespace)); err != nil {
		t.Fatal(err)
	}
	for _, one := range revisions.Items {
		before := one.DeepCopy()
		one.OwnerReferences = nil
		if err := h.Patch(t.Context(), &one, client.MergeFrom(before)); err != nil {
			t.Fatal(err)
		}
	}
	before := sts.DeepCopy()
	sts.Finalizers = nil
	if err := h.Patch(t.Context(), sts, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

// makeAgain plays Kubernetes' part while the operator makes the StatefulSet again,
// and returns the new one, which has not adopted the pods yet.
func (h *hubInTest) makeAgain(t *testing.T, before *appsv1.StatefulSet) *appsv1.StatefulSet {
	t.Helper()
	h.collectGarbage(t, before.UID)
	after := &appsv1.StatefulSet{}
	h.waitFor(t, after, before.Name, func() error {
		if after.UID == before.UID {
			return errors.New("it is the StatefulSet of before")
		}
		return nil
	})
	return after
}

// adopt gives the pods that nobody controls to the StatefulSet, as its controller
// would.
func (h *hubInTest) adopt(t *testing.T, sts *appsv1.StatefulSet) {
	t.Helper()
	for _, pod := range h.pods(t) {
		if metav1.GetControllerOf(&pod) != nil {
			continue
		}
		before := pod.DeepCopy()
		pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(sts, appsv1.SchemeGroupVersion.WithKind("StatefulSet"))}
		if err := h.Patch(t.Context(), &pod, client.MergeFrom(before)); err != nil {
			t.Fatal(err)
		}
	}
}

// restarted is what kubectl rollout restart writes into a pod template.
const restarted = "kubectl.kubernetes.io/restartedAt"

// settleRestarted settles a Hub whose nodes kubectl restarts.
func (h *hubInTest) settleRestarted(t *testing.T) []*corev1.Pod {
	t.Helper()
	var pods []*corev1.Pod
	eventually(t, func() error {
		pods = h.settle(t)
		for _, pod := range pods {
			if pod.Annotations[restarted] == "" {
				return fmt.Errorf("%s is the pod of before", pod.Name)
			}
		}
		return nil
	})
	return pods
}

func (h *hubInTest) grow(t *testing.T, size string) {
	t.Helper()
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Storage.Size = new(resource.MustParse(size)) })
}

func asks(claim *corev1.PersistentVolumeClaim) string {
	size := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	return size.String()
}

func TestVolumesGrowWhileNodesRun(t *testing.T) {
	c := useCluster(t)
	storageClass(t, c, "expands", true)
	h := createHub(t, c, "{replicas: 2, storage: {size: 1Gi, storageClassName: expands}}")
	claims := h.bindClaims(t)
	// Of a node that was scaled away: nobody mounts it, so that it stays as it is.
	left := claims[1].DeepCopy()
	left.ObjectMeta = metav1.ObjectMeta{Namespace: left.Namespace, Name: "history-agents-node-2", Labels: left.Labels}
	if err := h.Create(t.Context(), left); err != nil {
		t.Fatal(err)
	}
	h.provide(t, left)
	h.settle(t)
	before := &appsv1.StatefulSet{}
	h.read(t, before, "agents-node")
	// As kubectl rollout restart does.
	before.Spec.Template.Annotations = map[string]string{restarted: "2026-11-25T01:02:03Z"}
	if err := h.Update(t.Context(), before, client.FieldOwner("kubectl-rollout")); err != nil {
		t.Fatal(err)
	}
	pods := h.settleRestarted(t)

	h.grow(t, "2Gi")
	for _, claim := range append(claims, left) {
		h.waitFor(t, claim, claim.Name, func() error {
			if got := asks(claim); got != "2Gi" {
				return fmt.Errorf("%s asks for %s", claim.Name, got)
			}
			return nil
		})
	}
	after := h.makeAgain(t, before)
	if got := after.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests[corev1.ResourceStorage]; got.String() != "2Gi" {
		t.Errorf("volumes of new nodes have %s", &got)
	}
	if got := after.Spec.Template.Annotations[restarted]; got != "2026-11-25T01:02:03Z" {
		t.Errorf("the pods were restarted, the new template says %q", got)
	}
	if hub := h.get(t); hub.Status.ReadyReplicas != 2 || !meta.IsStatusConditionTrue(hub.Status.Conditions, switchboardv1alpha1.ConditionAvailable) {
		t.Errorf("meanwhile the status is %+v", hub.Status)
	}
	h.adopt(t, after)
	h.runPods(t)
	h.waitForCondition(t, switchboardv1alpha1.ConditionProgressing, metav1.ConditionTrue, switchboardv1alpha1.ReasonVolumesGrowing)
	for _, claim := range claims {
		h.provide(t, claim)
	}
	h.settle(t)
	if got := h.pods(t); len(got) != 2 || got[0].UID != pods[0].UID || got[1].UID != pods[1].UID || len(h.evictions()) != 2 {
		t.Errorf("%d pods are not those of before; evicted %q", len(got), h.evictions())
	}
	if got := h.get(t).Status.StorageSize; got == nil || got.String() != "2Gi" {
		t.Errorf("status.storageSize = %v", got)
	}

	hub := h.get(t)
	hub.Spec.Storage.Size = new(resource.MustParse("1Gi"))
	if err := h.Update(t.Context(), hub); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.storage.size: ") || !strings.Contains(err.Error(), "can't shrink") {
		t.Errorf("shrinking = %v, want it refused for spec.storage.size", err)
	}
	hub = h.get(t)
	hub.Spec.Storage.Size = new(resource.MustParse("2048Mi"))
	if err := h.Update(t.Context(), hub); err != nil {
		t.Errorf("the same size in other words = %v", err)
	}
}

func TestVolumesThatCannotGrowAreNamed(t *testing.T) {
	c := useCluster(t)
	storageClass(t, c, "fixed", false)
	h := createHub(t, c, "{replicas: 2, storage: {size: 1Gi, storageClassName: fixed}}")
	h.bindClaims(t)
	h.settle(t)
	before := &appsv1.StatefulSet{}
	h.read(t, before, "agents-node")
	h.grow(t, "2Gi")
	cond := h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionTrue, switchboardv1alpha1.ReasonVolumesNotGrown)
	for _, want := range []string{"spec.storage.size back to 1Gi", "history-agents-node-0", "history-agents-node-1", "allowVolumeExpansion"} {
		if !strings.Contains(cond.Message, want) {
			t.Errorf("message %q, want it to say %q", cond.Message, want)
		}
	}
	h.waitForCondition(t, switchboardv1alpha1.ConditionStalled, metav1.ConditionTrue, switchboardv1alpha1.ReasonVolumesNotGrown)
	after := &appsv1.StatefulSet{}
	if h.read(t, after, "agents-node"); after.UID != before.UID || !after.DeletionTimestamp.IsZero() {
		t.Error("the StatefulSet is made again, for nothing")
	}
	h.grow(t, "1Gi") // as the message says
	h.settle(t)
	h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionFalse, switchboardv1alpha1.ReasonAsExpected)
}

func TestHistoryMovesToVolumes(t *testing.T) {
	c := useCluster(t)
	h := createHub(t, c, "replicas: 3")
	h.settle(t)
	before := &appsv1.StatefulSet{}
	h.read(t, before, "agents-node")
	h.change(t, func(s *switchboardv1alpha1.HubSpec) {
		s.Storage = &switchboardv1alpha1.StorageSpec{Size: new(resource.MustParse("1Gi"))}
	})
	after := h.makeAgain(t, before)
	h.adopt(t, after)
	h.settle(t)
	if got := h.evictions(); !slices.Equal(got, []string{"agents-node-0", "agents-node-1", "agents-node-2"}) {
		t.Errorf("evicted %q, want each node once, the lowest ordinal first", got)
	}
	h.waitForEvent(t, "Normal", switchboardv1alpha1.ReasonReplacingWorkload)
}

func TestHistoryMovesToVolumesAndMoreNodes(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 2")
	h.settle(t)
	before := &appsv1.StatefulSet{}
	h.read(t, before, "agents-node")
	h.change(t, func(s *switchboardv1alpha1.HubSpec) {
		s.Storage = &switchboardv1alpha1.StorageSpec{Size: new(resource.MustParse("1Gi"))}
		s.Replicas = new(int32(3))
	})
	after := h.makeAgain(t, before)
	if *after.Spec.Replicas != 2 {
		t.Errorf("%d nodes are asked for before all have volumes, of which Kubernetes makes none", *after.Spec.Replicas)
	}
	h.adopt(t, after)
	if pods := h.settle(t); len(pods) != 3 {
		t.Errorf("%d pods, want 3", len(pods))
	}
	if got := h.evictions(); !slices.Equal(got, []string{"agents-node-0", "agents-node-1"}) {
		t.Errorf("evicted %q, want each node without a volume once", got)
	}
}
