//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// growingClass is a class of volumes like the cluster's own, whose volumes may grow.
const growingClass = "switchboard-e2e"

// Few shards, each with several of the ledger's topics or one.
const ledgerShards = 8

var ledgerYAML = fmt.Sprintf(`apiVersion: switchboard.dev/v1alpha1
kind: Hub
metadata:
  name: agents
spec:
  replicas: 3
  storage: {shards: %d}
  drain:
    timeout: 10s
  topics:
  - pattern: ledger.>
    history: {maxArtifacts: 1000000}
`, ledgerShards)

// TestHistory does to a hub with history what people and Kubernetes do, while a load
// publishes to it, follows it and works on it. Nothing that was acknowledged may be
// lost, stored twice, or in another order for some reader.
func TestHistory(t *testing.T) {
	h := newSuite(t).newHistoryTest(t)
	_ = t.Run("a hub in memory becomes available", h.begin) &&
		t.Run("its history moves to volumes", h.moveToVolumes) &&
		t.Run("evictions take one pod at a time", h.evictEachPod) &&
		t.Run("a pod goes with its claim", h.loseADisk) &&
		t.Run("all pods go at once", h.deleteAllPods) &&
		t.Run("a rolling restart", h.restart) &&
		t.Run("the volumes grow", h.growVolumes) &&
		t.Run("the hub grows to five", func(t *testing.T) { h.resize(t, 5) }) &&
		t.Run("the hub shrinks to three", func(t *testing.T) { h.resize(t, 3) }) &&
		t.Run("the hub shrinks to one", func(t *testing.T) { h.resize(t, 1) }) &&
		t.Run("the hub grows to three", func(t *testing.T) { h.resize(t, 3) }) &&
		t.Run("the hub stops and starts", func(t *testing.T) { h.stopAndStart(t, 3) }) &&
		t.Run("the hub stops and starts with one", func(t *testing.T) { h.stopAndStart(t, 1) }) &&
		t.Run("the hub is deleted and made again", h.makeAgain) &&
		t.Run("nothing was lost", h.judge)
}

// newHistoryTest installs the operator, and tidies up after the test.
func (s *suite) newHistoryTest(t *testing.T) *historyTest {
	t.Helper()
	s.makeNamespaces(t, []string{"delete", "storageclass", growingClass, "--ignore-not-found"})
	s.installChart(t)
	return &historyTest{suite: s}
}

// historyTest is what the steps of TestHistory share.
type historyTest struct {
	*suite
	load  *ledger
	asker *agent
}

func (h *historyTest) begin(t *testing.T) { h.beginWith(t, ledgerYAML) }

// beginWith makes the Hub of that manifest, and the load.
func (h *historyTest) beginWith(t *testing.T, manifest string) {
	t.Helper()
	start := time.Now()
	h.mustRun(t, h.kubectl, manifest, "-n", hubNamespace, "apply", "-f", "-")
	h.waitNodes(t, 3)
	t.Logf("three nodes are ready %.1fs after kubectl apply", time.Since(start).Seconds())
	h.waitServed(t)
	h.asker = h.startAgent(t, "asker", 0, service(), "listen", "--id", "asker")
	h.load = h.startLedger(t, 3)
	h.asker.waitRunning(t)
	h.load.waitRunning(t)
	h.waitReplicas(t, h.asker, 3)
}

// step does something to the hub and waits until it is again as it should be, with as
// many nodes as its spec says then.
func (h *historyTest) step(t *testing.T, what string, do func()) {
	t.Helper()
	h.load.flows(t)
	start := time.Now()
	do()
	hub, err := h.hub(h.ctx)
	if err != nil {
		t.Fatal(err)
	}
	nodes := int(*hub.Spec.Replicas)
	h.waitNodes(t, nodes)
	ready := time.Since(start)
	h.eventually(t, rolloutWithin, "the hub is available", func(ctx context.Context) error {
		return h.condition(ctx, switchboardv1alpha1.ConditionAvailable)
	})
	h.waitReplicas(t, h.asker, nodes)
	whole := time.Since(start)
	silence := h.load.flows(t)
	t.Logf("%s: all nodes are ready after %.1fs, all replicas where they belong after %.1fs; at most %.1fs without an acknowledgement",
		what, ready.Seconds(), whole.Seconds(), silence.Seconds())
}

// moveToVolumes replaces nodes that keep all in memory by nodes that keep it on disk.
func (h *historyTest) moveToVolumes(t *testing.T) {
	var standard storagev1.StorageClassList
	if err := h.client.List(h.ctx, &standard); err != nil {
		t.Fatal(err)
	}
	if len(standard.Items) == 0 {
		t.Fatal("the cluster has no class of volumes")
	}
	growing := &storagev1.StorageClass{
		ObjectMeta:  metav1.ObjectMeta{Name: growingClass},
		Provisioner: standard.Items[0].Provisioner, Parameters: standard.Items[0].Parameters,
		VolumeBindingMode: standard.Items[0].VolumeBindingMode, AllowVolumeExpansion: new(true),
	}
	if err := h.client.Create(h.ctx, growing); err != nil {
		t.Fatal(err)
	}
	pods := h.hubPods(t)
	h.step(t, "moved the history to volumes", func() {
		h.patchStorage(t, `{"size": "1Gi", "storageClassName": "`+growingClass+`"}`)
		h.waitReplaced(t, pods...)
	})
}

func (h *historyTest) patchStorage(t *testing.T, storage string) {
	t.Helper()
	h.mustRun(t, h.kubectl, "", "-n", hubNamespace, "patch", "hub", hubName, "--type=merge", "-p", `{"spec": {"storage": `+storage+`}}`)
}

// growVolumes makes the StatefulSet anew around its pods. The cluster's volumes are
// folders, so that nobody has to make them larger; the test says that they are.
func (h *historyTest) growVolumes(t *testing.T) {
	pods := h.hubPods(t)
	h.step(t, "grown the volumes", func() {
		h.patchStorage(t, `{"size": "2Gi"}`)
		h.pretendGrown(t)
	})
	after := h.hubPods(t)
	for i := range after {
		if after[i].UID != pods[i].UID {
			t.Errorf("%s is another pod", after[i].Name)
		}
	}
}

// pretendGrown waits until the claims ask for what the Hub does, says that their volumes
// have grown, and waits until the StatefulSet is as large.
func (h *historyTest) pretendGrown(t *testing.T) {
	t.Helper()
	hub, err := h.hub(h.ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := hub.Spec.Storage.Size
	h.eventually(t, rolloutWithin, "the claims ask for more", func(ctx context.Context) error {
		for _, pod := range h.hubPods(t) {
			var claim corev1.PersistentVolumeClaim
			if err := h.client.Get(ctx, client.ObjectKey{Namespace: hubNamespace, Name: "history-" + pod.Name}, &claim); err != nil {
				return err
			}
			asked := claim.Spec.Resources.Requests[corev1.ResourceStorage]
			if asked.Cmp(*want) != 0 {
				return fmt.Errorf("%s asks for %s", claim.Name, &asked)
			}
			before := claim.DeepCopy()
			claim.Status.Capacity = claim.Spec.Resources.Requests
			if err := h.client.Status().Patch(ctx, &claim, client.MergeFrom(before)); err != nil {
				return err
			}
		}
		return nil
	})
	h.eventually(t, rolloutWithin, "new volumes are as large, and nothing is left to do", func(ctx context.Context) error {
		var set appsv1.StatefulSet
		if err := h.client.Get(ctx, client.ObjectKey{Namespace: hubNamespace, Name: hubName + "-node"}, &set); err != nil {
			return err
		}
		size := set.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests[corev1.ResourceStorage]
		if size.Cmp(*want) != 0 || set.Status.ReadyReplicas != 3 {
			return fmt.Errorf("%s for new volumes, %d nodes are ready", &size, set.Status.ReadyReplicas)
		}
		return nil
	})
}

// evictEachPod does what kubectl drain does. While a pod is away no other may be
// taken: of three, two are a majority.
func (h *historyTest) evictEachPod(t *testing.T) {
	pods := h.hubPods(t)
	for i := range pods {
		h.step(t, "evicted "+pods[i].Name, func() {
			if err := h.evict(&pods[i]); err != nil {
				t.Fatal(err)
			}
			if err := h.evict(&pods[(i+1)%len(pods)]); !apierrors.IsTooManyRequests(err) {
				t.Errorf("evict %s after %s: got %v, want it refused", pods[(i+1)%len(pods)].Name, pods[i].Name, err)
			}
			h.waitReplaced(t, pods[i])
		})
	}
}

func (h *historyTest) evict(pod *corev1.Pod) error {
	return h.clientset.CoreV1().Pods(pod.Namespace).EvictV1(h.ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace}})
}

// loseADisk takes a node's volume away: it begins anew, and is ready when it has caught up.
func (h *historyTest) loseADisk(t *testing.T) {
	pod := h.hubPods(t)[1]
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: "history-" + pod.Name}}
	if err := h.client.Get(h.ctx, client.ObjectKeyFromObject(claim), claim); err != nil {
		t.Fatal(err)
	}
	before := claim.UID
	h.step(t, "deleted "+pod.Name+" and its claim", func() {
		h.mustRun(t, h.kubectl, "", "-n", hubNamespace, "delete", "pvc", claim.Name, "--wait=false")
		h.mustRun(t, h.kubectl, "", "-n", hubNamespace, "delete", "pod", pod.Name)
		h.waitReplaced(t, pod)
	})
	if err := h.client.Get(h.ctx, client.ObjectKeyFromObject(claim), claim); err != nil {
		t.Fatal(err)
	}
	if claim.UID == before {
		t.Error("the node has its old volume")
	}
}

func (h *historyTest) deleteAllPods(t *testing.T) {
	pods := h.hubPods(t)
	h.step(t, "deleted all pods at once", func() {
		args := []string{"-n", hubNamespace, "delete", "pod"}
		for i := range pods {
			args = append(args, pods[i].Name)
		}
		h.mustRun(t, h.kubectl, "", args...)
		h.waitReplaced(t, pods...)
	})
}

func (h *historyTest) restart(t *testing.T) {
	pods := h.hubPods(t)
	h.step(t, "rolling restart", func() {
		h.mustRun(t, h.kubectl, "", "-n", hubNamespace, "rollout", "restart", "statefulset/"+hubName+"-node")
		h.waitReplaced(t, pods...)
	})
}

func (h *historyTest) resize(t *testing.T, nodes int) {
	t.Helper()
	h.step(t, fmt.Sprintf("scaled to %d", nodes), func() { h.scale(t, nodes) })
}

// stopAndStart starts the hub with so many nodes, after those that have the volumes.
func (h *historyTest) stopAndStart(t *testing.T, nodes int) {
	t.Helper()
	h.step(t, fmt.Sprintf("stopped the hub and started it with %d", nodes), func() {
		h.scale(t, 0)
		h.waitNoPods(t)
		h.scale(t, nodes)
	})
}

// makeAgain begins with the claims alone, those of nodes that went long ago among them,
// and ends with the three nodes that the load reads from at the end.
func (h *historyTest) makeAgain(t *testing.T) {
	hub, err := h.hub(h.ctx)
	if err != nil {
		t.Fatal(err)
	}
	again := &switchboardv1alpha1.Hub{ObjectMeta: metav1.ObjectMeta{Namespace: hub.Namespace, Name: hub.Name}, Spec: hub.Spec}
	again.Spec.Replicas = new(int32(3))
	h.step(t, "deleted the hub and made it again", func() {
		h.mustRun(t, h.kubectl, "", "-n", hubNamespace, "delete", "hub", hubName)
		h.waitNoPods(t)
		if err := h.client.Create(h.ctx, again); err != nil {
			t.Fatal(err)
		}
	})
}

func (h *historyTest) waitNoPods(t *testing.T) {
	t.Helper()
	h.eventually(t, rolloutWithin, "no node is left", func(context.Context) error {
		if pods := h.hubPods(t); len(pods) > 0 {
			return fmt.Errorf("%d are", len(pods))
		}
		return nil
	})
}

// judge tells what came of it all. The claims of the nodes that went are still there.
func (h *historyTest) judge(t *testing.T) {
	h.load.judge(t)
	var claims corev1.PersistentVolumeClaimList
	if err := h.client.List(h.ctx, &claims, client.InNamespace(hubNamespace)); err != nil {
		t.Fatal(err)
	}
	if len(claims.Items) != 5 {
		t.Errorf("%d claims are there, want those of five nodes: %+v", len(claims.Items), claims.Items)
	}
}
