package controllers_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

// hubInTest is a Hub in the cluster and what tests do with it. It stands in for
// the StatefulSet controller, the kubelet and the nodes, which envtest has not.
type hubInTest struct {
	*cluster
	key client.ObjectKey
	// before tells pods whose nodes know nothing of TLS between nodes; nil: none.
	before func(*corev1.Pod) bool
}

// createHub creates a Hub named agents in a new namespace and waits until the
// operator has made all of its objects.
func createHub(t *testing.T, c *cluster, spec string) *hubInTest {
	t.Helper()
	h := &hubInTest{cluster: c, key: client.ObjectKey{Namespace: c.namespace(t), Name: "agents"}}
	if err := c.Create(t.Context(), rawHub(t, h.key.Namespace, h.key.Name, spec)); err != nil {
		t.Fatalf("create the Hub: %v", err)
	}
	h.waitFor(t, &appsv1.StatefulSet{}, "agents-node", func() error { return nil })
	return h
}

func (h *hubInTest) get(t *testing.T) *switchboardv1alpha1.Hub {
	t.Helper()
	hub := &switchboardv1alpha1.Hub{}
	if err := h.Get(t.Context(), h.key, hub); err != nil {
		t.Fatalf("get the Hub: %v", err)
	}
	return hub
}

// read fills obj with the object of the Hub's namespace that has the name.
func (h *hubInTest) read(t *testing.T, obj client.Object, name string) {
	t.Helper()
	if err := h.Get(t.Context(), client.ObjectKey{Namespace: h.key.Namespace, Name: name}, obj); err != nil {
		t.Fatalf("get %T %s: %v", obj, name, err)
	}
}

// waitFor reads the object again until check, which looks at it, returns nil.
func (h *hubInTest) waitFor(t *testing.T, obj client.Object, name string, check func() error) {
	t.Helper()
	eventually(t, func() error {
		if err := h.Get(t.Context(), client.ObjectKey{Namespace: h.key.Namespace, Name: name}, obj); err != nil {
			return err
		}
		return check()
	})
}

// change updates the Hub's spec and returns its new generation.
func (h *hubInTest) change(t *testing.T, mutate func(*switchboardv1alpha1.HubSpec)) int64 {
	t.Helper()
	hub := h.get(t)
	before := hub.DeepCopy()
	mutate(&hub.Spec)
	if err := h.Patch(t.Context(), hub, client.MergeFrom(before)); err != nil {
		t.Fatalf("change the Hub: %v", err)
	}
	return hub.Generation
}

// waitForCondition waits until the current generation has the condition.
func (h *hubInTest) waitForCondition(t *testing.T, condition string, status metav1.ConditionStatus, reason string) *metav1.Condition {
	t.Helper()
	var got *metav1.Condition
	eventually(t, func() error {
		hub := h.get(t)
		got = meta.FindStatusCondition(hub.Status.Conditions, condition)
		if got == nil || got.Status != status || got.Reason != reason || got.ObservedGeneration != hub.Generation {
			return fmt.Errorf("generation %d, status %+v: want %s=%s for %s", hub.Generation, hub.Status, condition, status, reason)
		}
		return nil
	})
	return got
}

// runPods makes the StatefulSet have the pods that it asks for, all ready and
// on the current settings, and returns them.
func (h *hubInTest) runPods(t *testing.T) []*corev1.Pod {
	t.Helper()
	sts := &appsv1.StatefulSet{}
	h.read(t, sts, "agents-node")
	want := int(*sts.Spec.Replicas)
	pods := make([]*corev1.Pod, want)
	for i := range pods {
		pods[i] = h.runPod(t, sts, i)
	}
	h.removePods(t, sts, want)
	h.reload(t, pods...)

	before := sts.DeepCopy()
	sts.Status = appsv1.StatefulSetStatus{
		ObservedGeneration: sts.Generation,
		Replicas:           int32(want),
		ReadyReplicas:      int32(want),
		CurrentReplicas:    int32(want),
		UpdatedReplicas:    int32(want),
		AvailableReplicas:  int32(want),
		UpdateRevision:     revision(t, sts),
	}
	if err := h.Status().Patch(t.Context(), sts, client.MergeFrom(before)); err != nil {
		t.Fatalf("set the StatefulSet's status: %v", err)
	}
	h.allowDisruption(t)
	return pods
}

// runPod makes a pod from the template, as the StatefulSet controller would,
// and says of it what a kubelet would. A pod that exists stays.
func (h *hubInTest) runPod(t *testing.T, sts *appsv1.StatefulSet, ordinal int) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   sts.Namespace,
			Name:        fmt.Sprintf("%s-%d", sts.Name, ordinal),
			Labels:      maps.Clone(sts.Spec.Template.Labels),
			Annotations: maps.Clone(sts.Spec.Template.Annotations),
		},
		Spec: *sts.Spec.Template.Spec.DeepCopy(),
	}
	pod.Labels[appsv1.StatefulSetRevisionLabel] = revision(t, sts)
	for _, claim := range sts.Spec.VolumeClaimTemplates {
		source := &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name + "-" + pod.Name}
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: claim.Name, VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: source}})
	}
	if h.Get(t.Context(), client.ObjectKeyFromObject(pod), pod) == nil {
		return pod
	}
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(sts, appsv1.SchemeGroupVersion.WithKind("StatefulSet"))}
	if err := h.Create(t.Context(), pod); err != nil {
		t.Fatalf("create a pod from the template: %v", err)
	}
	before := pod.DeepCopy()
	pod.Status.PodIP = h.nodes.newAddress()
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
	if err := h.Status().Patch(t.Context(), pod, client.MergeFrom(before)); err != nil {
		t.Fatalf("set a pod's status: %v", err)
	}
	return pod
}

// revision names a StatefulSet's pod template.
func revision(t *testing.T, sts *appsv1.StatefulSet) string {
	t.Helper()
	template, err := json.Marshal(sts.Spec.Template)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum224(template))
}

// allowDisruption lets the next eviction pass, as the disruption controller does
// while all pods are ready.
func (h *hubInTest) allowDisruption(t *testing.T) {
	t.Helper()
	budget := &policyv1.PodDisruptionBudget{}
	h.read(t, budget, "agents-node")
	before := budget.DeepCopy()
	budget.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: budget.Generation, DisruptionsAllowed: 1}
	if err := h.Status().Patch(t.Context(), budget, client.MergeFrom(before)); err != nil {
		t.Fatalf("set the disruption budget's status: %v", err)
	}
}

func (h *hubInTest) removePods(t *testing.T, sts *appsv1.StatefulSet, from int) {
	t.Helper()
	pods := &corev1.PodList{}
	if err := h.List(t.Context(), pods, client.InNamespace(h.key.Namespace)); err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods.Items {
		var ordinal int
		if _, err := fmt.Sscanf(pod.Name, sts.Name+"-%d", &ordinal); err == nil && ordinal >= from {
			if err := h.Delete(t.Context(), &pod, client.GracePeriodSeconds(0)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// reload makes nodes run the settings that are in the ConfigMap now, with as
// many clients as their ordinal and one.
func (h *hubInTest) reload(t *testing.T, pods ...*corev1.Pod) {
	t.Helper()
	settings := &corev1.ConfigMap{}
	h.read(t, settings, "agents-config")
	sum := sha256.Sum256([]byte(settings.Data["hubnode.yaml"]))
	parsed, err := config.Parse([]byte(settings.Data["hubnode.yaml"]))
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range pods {
		links := config.TLSPolicy("") // of a node of before
		if slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == "cluster-tls" }) && (h.before == nil || !h.before(pod)) {
			links = config.TLSOptional
		}
		switch {
		case parsed.TLS.Clients != config.TLSDisabled && !manifests.HasCertificates(pod):
			continue // the node has no certificate, and refuses them
		case parsed.TLS.Cluster != config.TLSDisabled && links == "":
			t.Errorf("%s knows nothing of settings that it is given:\n%s", pod.Name, settings.Data["hubnode.yaml"])
			continue
		case parsed.TLS.Cluster != config.TLSDisabled:
			links = parsed.TLS.Cluster
		}
		var ordinal int64
		_, _ = fmt.Sscanf(pod.Name, "agents-node-%d", &ordinal)
		h.nodes.set(pod.Status.PodIP, controllers.NodeReport{
			Node:       pod.Name,
			Hub:        fmt.Sprintf("%s/%s/%s", h.key.Namespace, h.key.Name, h.get(t).UID),
			ConfigHash: hex.EncodeToString(sum[:]),
			Clients:    ordinal + 1,
			ClusterTLS: links,
			GossipKeys: h.keysOf(t, pod),
		})
	}
}

// settle runs the pods that the StatefulSet asks for, with the settings that
// are there, until the operator has nothing more to do: it scales in steps.
func (h *hubInTest) settle(t *testing.T) []*corev1.Pod {
	t.Helper()
	var pods []*corev1.Pod
	eventually(t, func() error {
		pods = h.runPods(t)
		hub := h.get(t)
		is := func(condition string, status metav1.ConditionStatus) bool {
			c := meta.FindStatusCondition(hub.Status.Conditions, condition)
			return c != nil && c.Status == status && c.ObservedGeneration == hub.Generation
		}
		complete := is(switchboardv1alpha1.ConditionProgressing, metav1.ConditionFalse) && int32(len(pods)) == *hub.Spec.Replicas
		if !complete || (len(pods) > 0 && !is(switchboardv1alpha1.ConditionConfigApplied, metav1.ConditionTrue)) {
			return fmt.Errorf("%d pods, status %+v", len(pods), hub.Status)
		}
		links := meta.FindStatusCondition(hub.Status.Conditions, switchboardv1alpha1.ConditionLinksEncrypted)
		if len(pods) > 0 && (links == nil || links.Reason == switchboardv1alpha1.ReasonNodesGoingOver) {
			return fmt.Errorf("the settings are about to be others: %+v", links)
		}
		return nil
	})
	return pods
}

// waitForEvent waits for an event about the Hub and returns its text.
func (h *hubInTest) waitForEvent(t *testing.T, kind, reason string) string {
	t.Helper()
	return h.cluster.waitForEvent(t, "Hub", h.key, kind, reason)
}

// waitForEvent waits for an event about an object and returns its text.
func (c *cluster) waitForEvent(t *testing.T, about string, key client.ObjectKey, kind, reason string) string {
	t.Helper()
	var text string
	eventually(t, func() error {
		list := &corev1.EventList{}
		if err := c.List(t.Context(), list, client.InNamespace(key.Namespace)); err != nil {
			return err
		}
		i := slices.IndexFunc(list.Items, func(e corev1.Event) bool {
			return e.Type == kind && e.Reason == reason && e.InvolvedObject.Kind == about && e.InvolvedObject.Name == key.Name
		})
		if i < 0 {
			return fmt.Errorf("no event %s %s among %d", kind, reason, len(list.Items))
		}
		text = list.Items[i].Message
		return nil
	})
	return text
}

// pods returns the Hub's pods.
func (h *hubInTest) pods(t *testing.T) []corev1.Pod {
	t.Helper()
	list := &corev1.PodList{}
	if err := h.List(t.Context(), list, client.InNamespace(h.key.Namespace)); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// observeTemplate is the StatefulSet controller's word that it has seen the newest
// pod template.
func (h *hubInTest) observeTemplate(t *testing.T) {
	t.Helper()
	sts := &appsv1.StatefulSet{}
	h.waitFor(t, sts, "agents-node", func() error {
		if sts.Generation == sts.Status.ObservedGeneration {
			return errors.New("the pod template is the old one")
		}
		return nil
	})
	before := sts.DeepCopy()
	sts.Status.ObservedGeneration, sts.Status.UpdateRevision = sts.Generation, revision(t, sts)
	if err := h.Status().Patch(t.Context(), sts, client.MergeFrom(before)); err != nil {
		t.Fatalf("set the StatefulSet's status: %v", err)
	}
}

// crash makes a pod's container end again and again, with these last words.
func (h *hubInTest) crash(t *testing.T, pod *corev1.Pod, words string) {
	t.Helper()
	before := pod.DeepCopy()
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Now()}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "hubnode", Image: "switchboard", RestartCount: 3,
		State:                corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
		LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 2, Message: words}},
	}}
	if err := h.Status().Patch(t.Context(), pod, client.MergeFrom(before)); err != nil {
		t.Fatalf("set a pod's status: %v", err)
	}
}

// fall makes a pod not ready whose container goes on, as one that hangs.
func (h *hubInTest) fall(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	before := pod.DeepCopy()
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Now()}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "hubnode", Image: "switchboard",
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
	}}
	if err := h.Status().Patch(t.Context(), pod, client.MergeFrom(before)); err != nil {
		t.Fatalf("set a pod's status: %v", err)
	}
}

// poke makes the operator look at the Hub, and returns when it has asked the
// pod's node.
func (h *hubInTest) poke(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	asked := h.nodes.asks(pod.Status.PodIP)
	before := pod.DeepCopy()
	if pod.Annotations == nil {
		pod.Annotations = make(map[string]string)
	}
	pod.Annotations["poked"] = fmt.Sprint(asked)
	if err := h.Patch(t.Context(), pod, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if h.nodes.asks(pod.Status.PodIP) == asked {
			return errors.New("the operator has not looked")
		}
		return nil
	})
}

// keysOf is what the pod's node says when it has the gossip keys that are in the Secret;
// nothing from one of before.
func (h *hubInTest) keysOf(t *testing.T, pod *corev1.Pod) *controllers.GossipKeysReport {
	t.Helper()
	if h.before != nil && h.before(pod) {
		return nil
	}
	report := &controllers.GossipKeysReport{}
	for i, key := range h.gossipKeys(t) {
		mark := config.GossipKeyFingerprint(key)
		if i == 0 {
			report.Primary = mark
		}
		report.Accepted = append(report.Accepted, mark)
	}
	slices.Sort(report.Accepted)
	return report
}

// gossipKeys returns the keys that are in the Secret.
func (h *hubInTest) gossipKeys(t *testing.T) [][]byte {
	t.Helper()
	secret := &corev1.Secret{}
	h.read(t, secret, "agents-gossip")
	keys, err := config.DecodeGossipKeys(secret.Data["key"])
	if err != nil {
		t.Fatal(err)
	}
	return keys
}
