package kubehub_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/hubnode/config"
	nodes "github.com/switchboardhub/switchboard/test/cluster"
)

// hubInTest is a Hub named agents whose nodes run in this process, behind the pods
// that the API server has of them.
type hubInTest struct {
	*cluster
	namespace string
	hub       *switchboardv1alpha1.Hub
	nodes     *nodes.Cluster
	ports     []map[string]string // of each node: port of the pod → address
	http      []string
	// freeze stops who plays the StatefulSet controller, and returns when it has.
	freeze func()
}

// startHub returns a Hub when the operator says that it is safe to restart. change edits the
// config of each node, which is not made from the spec.
func startHub(t *testing.T, spec switchboardv1alpha1.HubSpec, change ...func(*config.Config)) *hubInTest {
	t.Helper()
	c := useCluster(t)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "hub-"}}
	if err := c.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	h := &hubInTest{cluster: c, namespace: ns.Name}
	h.hub = &switchboardv1alpha1.Hub{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "agents"}, Spec: spec}
	if err := c.Create(t.Context(), h.hub); err != nil {
		t.Fatal(err)
	}
	size := int(*h.hub.Spec.Replicas)
	ordinal := 0
	h.nodes = nodes.Start(t, size, func(cfg *config.Config) {
		cfg.Hub, cfg.Node = manifests.Identity(h.hub), fmt.Sprintf("agents-node-%d", ordinal)
		cfg.History.MaxArtifacts, cfg.Storage.Shards = 100, 4
		h.ports = append(h.ports, map[string]string{"7400": cfg.Listen.Client, "7480": cfg.Listen.HTTP})
		h.http = append(h.http, "http://"+cfg.Listen.HTTP)
		for _, f := range change {
			f(cfg)
		}
		ordinal++
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.play(ctx, t)
	}()
	h.freeze = func() {
		stop()
		<-ended
	}
	t.Cleanup(h.freeze) // before the nodes end
	h.waitSafe(t)
	return h
}

func (h *hubInTest) key(name string) client.ObjectKey {
	return client.ObjectKey{Namespace: h.namespace, Name: name}
}

func (h *hubInTest) waitSafe(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		if err := h.Get(t.Context(), h.key("agents"), h.hub); err != nil {
			return err
		}
		if !h.hub.Status.SafeToRestart || !meta.IsStatusConditionFalse(h.hub.Status.Conditions, switchboardv1alpha1.ConditionProgressing) {
			return fmt.Errorf("status %+v", h.hub.Status)
		}
		return nil
	})
}

// play does until ctx ends what the StatefulSet controller, the disruption controller
// and the kubelet do.
func (h *hubInTest) play(ctx context.Context, t *testing.T) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// What fails is tried again; what lasts fails the test that waits for it.
		if err := h.act(ctx); err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			t.Logf("playing Kubernetes: %v", err)
		}
	}
}

func (h *hubInTest) act(ctx context.Context) error {
	set := &appsv1.StatefulSet{}
	if err := h.Get(ctx, h.key("agents-node"), set); err != nil {
		return err
	}
	template, err := json.Marshal(set.Spec.Template)
	if err != nil {
		return err
	}
	newest := fmt.Sprintf("%x", sha256.Sum224(template))
	ready := int32(0)
	for i := range int(*set.Spec.Replicas) {
		isReady, err := h.runPod(ctx, set, i, newest)
		if err != nil {
			return err
		}
		if isReady {
			ready++
		}
	}
	replicas := *set.Spec.Replicas
	set.Status = appsv1.StatefulSetStatus{
		ObservedGeneration: set.Generation, Replicas: replicas, ReadyReplicas: ready, AvailableReplicas: ready,
		CurrentReplicas: replicas, UpdatedReplicas: replicas, UpdateRevision: newest,
	}
	if err := h.Status().Update(ctx, set); err != nil {
		return err
	}
	budget := &policyv1.PodDisruptionBudget{}
	if err := h.Get(ctx, h.key("agents-node"), budget); err != nil {
		return err
	}
	budget.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: budget.Generation}
	if ready == replicas {
		budget.Status.DisruptionsAllowed = 1
	}
	return h.Status().Update(ctx, budget)
}

// runPod takes the next step with one pod and reports whether it is ready.
func (h *hubInTest) runPod(ctx context.Context, set *appsv1.StatefulSet, i int, newest string) (ready bool, err error) {
	pod := &corev1.Pod{}
	err = h.Get(ctx, h.key(fmt.Sprintf("agents-node-%d", i)), pod)
	switch {
	case apierrors.IsNotFound(err):
		return false, h.createPod(ctx, set, i, newest)
	case err != nil:
		return false, err
	case pod.DeletionTimestamp != nil:
		h.nodes.Node(i).Stop()
		h.nodes.Run(i) //nolint:contextcheck // it ends with the test, not with this call
		return false, h.Delete(ctx, pod, client.GracePeriodSeconds(0))
	}
	resp, err := http.Get(h.http[i] + "/readyz")
	if err != nil {
		return false, nil //nolint:nilerr // it starts
	}
	_ = resp.Body.Close()
	ready = resp.StatusCode == http.StatusOK
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	if pod.Status.PodIP != "" && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Status == status }) {
		return ready, nil
	}
	if pod.Status.PodIP == "" {
		pod.Status.PodIP = h.cluster.nodes.add(h.http[i])
	}
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status, LastTransitionTime: metav1.Now()}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "hubnode", ContainerID: "fake://" + string(pod.UID), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
	}}
	return ready, h.Status().Update(ctx, pod)
}

func (h *hubInTest) createPod(ctx context.Context, set *appsv1.StatefulSet, i int, newest string) error {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: set.Namespace, Name: fmt.Sprintf("%s-%d", set.Name, i),
			Labels: maps.Clone(set.Spec.Template.Labels), Annotations: set.Spec.Template.Annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("StatefulSet"))},
		},
		Spec: *set.Spec.Template.Spec.DeepCopy(),
	}
	pod.Labels[appsv1.StatefulSetRevisionLabel] = newest
	pod.Spec.NodeName = machine
	if err := h.Create(ctx, pod); err != nil {
		return err
	}
	h.kubelet.set(h.namespace, pod.Name, &podOnMachine{
		ports: h.ports[i], ended: make(chan struct{}),
		log: []string{"listening", fmt.Sprintf("pod %s runs", pod.UID)},
	})
	return nil
}

// pod returns a pod of the Hub.
func (h *hubInTest) pod(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	if err := h.Get(t.Context(), h.key(name), pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

// hubctl runs a command of the plugin that has to end with a status.
func (h *hubInTest) hubctl(t *testing.T, want int, args ...string) (out, errOut string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	status, out, errOut := h.run(ctx, h.namespace, args...)
	if status != want {
		t.Fatalf("kubectl hub %q exited with %d, want %d; it says:\n%s%s", args, status, want, out, errOut)
	}
	return out, errOut
}
