package controllers_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

// evictions returns the pods that the operator has evicted so far, in order.
func (h *hubInTest) evictions() []string {
	var pods []string
	for _, w := range h.requests.in(h.key.Namespace) {
		if rest, ok := strings.CutPrefix(w, "POST /api/v1/namespaces/"+h.key.Namespace+"/pods/"); ok {
			if name, ok := strings.CutSuffix(rest, "/eviction"); ok {
				pods = append(pods, name)
			}
		}
	}
	return pods
}

func TestNewImageReplacesNodesOneByOne(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 3")
	h.settle(t)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Image = "switchboard:2" })
	h.settle(t)
	if diff := slices.Compare(h.evictions(), []string{"agents-node-2", "agents-node-1", "agents-node-0"}); diff != 0 {
		t.Errorf("evicted %q, want each node once, the highest ordinal first", h.evictions())
	}
	for _, pod := range h.pods(t) {
		if got := pod.Spec.Containers[0].Image; got != "switchboard:2" {
			t.Errorf("%s runs %s", pod.Name, got)
		}
	}
	if text := h.waitForEvent(t, "Normal", switchboardv1alpha1.ReasonReplacingNode); !strings.Contains(text, "agents-node-") {
		t.Errorf("event %q names no node", text)
	}
}

func TestAnnotationRestartsNodesOneByOne(t *testing.T) {
	h := createHub(t, useCluster(t), "{replicas: 2, pod: {annotations: {a: b}}}")
	h.settle(t)
	hub := h.get(t)
	before := hub.DeepCopy()
	const at = "2026-01-02T03:04:05Z"
	hub.Annotations = map[string]string{manifests.AnnotationRestartedAt: at}
	if err := h.Patch(t.Context(), hub, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	sts := &appsv1.StatefulSet{}
	h.waitFor(t, sts, "agents-node", func() error {
		if got := sts.Spec.Template.Annotations; got[manifests.AnnotationRestartedAt] != at || got["a"] != "b" {
			return fmt.Errorf("the pod template has the annotations %v", got)
		}
		return nil
	})
	h.observeTemplate(t)
	eventually(t, func() error {
		h.runPods(t)
		if got := h.evictions(); !slices.Equal(got, []string{"agents-node-1", "agents-node-0"}) {
			return fmt.Errorf("evicted %q, want each node once, the highest ordinal first", got)
		}
		return nil
	})
}

func TestRolloutWaitsForReplicasToCatchUp(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 2")
	pods := h.settle(t)
	behind := func(whole int) {
		for i, pod := range pods {
			h.nodes.change(pod.Status.PodIP, func(report *controllers.NodeReport) {
				report.History = controllers.HistoryReport{Shards: 4, Led: 2, Whole: 2}
				if i == 0 {
					report.History.Whole = whole
				}
			})
		}
	}
	behind(1)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Image = "switchboard:2" })
	h.observeTemplate(t)
	eventually(t, func() error {
		c := h.waitForCondition(t, switchboardv1alpha1.ConditionProgressing, metav1.ConditionTrue, switchboardv1alpha1.ReasonRollingOut)
		if want := "1 of 4 shards wait for replicas"; !strings.Contains(c.Message, want) {
			return fmt.Errorf("message %q, want it to say %q", c.Message, want)
		}
		return nil
	})
	if h.get(t).Status.SafeToRestart {
		t.Error("the status says that it is safe to restart")
	}
	if got := h.evictions(); len(got) > 0 {
		t.Fatalf("evicted %q meanwhile", got)
	}
	behind(2)
	eventually(t, func() error {
		if got := h.evictions(); len(got) == 0 {
			return errors.New("nothing is evicted")
		}
		return nil
	})
}

func TestStuckRolloutSaysWhyAndGoesBack(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 3")
	h.settle(t)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Image = "switchboard:broken" })
	h.observeTemplate(t)
	eventually(t, func() error {
		if got := h.evictions(); !slices.Equal(got, []string{"agents-node-2"}) {
			return fmt.Errorf("evicted %q", got)
		}
		if pods := h.pods(t); len(pods) != 2 {
			return fmt.Errorf("%d pods are there", len(pods))
		}
		return nil
	})
	sts := &appsv1.StatefulSet{}
	h.read(t, sts, "agents-node")
	h.crash(t, h.runPod(t, sts, 2), "listening\npanic: no such flag")

	c := h.waitForCondition(t, switchboardv1alpha1.ConditionProgressing, metav1.ConditionFalse, switchboardv1alpha1.ReasonRolloutStuck)
	for _, want := range []string{"agents-node-2", "CrashLoopBackOff", "panic: no such flag"} {
		if !strings.Contains(c.Message, want) {
			t.Errorf("message %q, want it to say %q", c.Message, want)
		}
	}
	if got := h.evictions(); len(got) != 1 {
		t.Errorf("evicted %q: more than the one that is broken", got)
	}
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Image = "" })
	h.settle(t)
	if got := h.evictions(); !slices.Equal(got, []string{"agents-node-2", "agents-node-2"}) {
		t.Errorf("evicted %q, want only the broken one to go back", got)
	}
}

func TestNodesAreLeftToWhoeverDeletesThem(t *testing.T) {
	h := createHub(t, useCluster(t), "{replicas: 2, updates: {strategy: OnDelete}}")
	h.settle(t)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Image = "switchboard:2" })
	h.observeTemplate(t)
	h.waitForCondition(t, switchboardv1alpha1.ConditionProgressing, metav1.ConditionTrue, switchboardv1alpha1.ReasonAwaitingDeletion)
	for _, pod := range h.pods(t) {
		if err := h.Delete(t.Context(), &pod, client.GracePeriodSeconds(0)); err != nil {
			t.Fatal(err)
		}
	}
	h.settle(t)
	if got := h.evictions(); len(got) > 0 {
		t.Errorf("evicted %q", got)
	}
}

func TestPausedHubIsLeftAsItIs(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 2")
	pods := h.settle(t)
	already := len(h.requests.in(h.key.Namespace))
	h.change(t, func(s *switchboardv1alpha1.HubSpec) {
		s.Paused = true
		s.Image = "switchboard:2"
		s.History.MaxArtifacts = 5
	})
	h.waitForCondition(t, switchboardv1alpha1.ConditionProgressing, metav1.ConditionFalse, switchboardv1alpha1.ReasonPaused)
	h.nodes.change(pods[0].Status.PodIP, func(report *controllers.NodeReport) { report.Clients = 100 })
	h.poke(t, pods[0])
	eventually(t, func() error {
		if got := h.get(t).Status.Clients; got != 102 {
			return fmt.Errorf("%d clients, want 102", got)
		}
		return nil
	})
	for _, w := range h.requests.in(h.key.Namespace)[already:] {
		if !strings.HasSuffix(w, "/hubs/agents/status") {
			t.Errorf("the operator wrote: %s", w)
		}
	}
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Paused = false })
	h.settle(t)
	if got := h.evictions(); len(got) != 2 {
		t.Errorf("evicted %q, want both nodes to be replaced now", got)
	}
}

func TestPodsHaveWhatTheHubWants(t *testing.T) {
	h := createHub(t, useCluster(t), `{
		replicas: 1,
		service: {type: NodePort, externalTrafficPolicy: Local, annotations: {lb.example/kind: internal}},
		serviceAccount: {annotations: {cloud.example/role: hub}},
		pod: {
			labels: {team: blue}, annotations: {a: b}, nodeSelector: {disk: fast},
			tolerations: [{key: hubs, operator: Exists}],
			affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, podAffinityTerm: {topologyKey: zone, labelSelector: {matchLabels: {team: blue}}}}]}},
			topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}],
			env: [{name: GOGC, value: "50"}, {name: A, secretKeyRef: {name: s, key: k}}, {name: B, configMapKeyRef: {name: c, key: k}}],
			volumes: [{name: s, mountPath: /s, secretName: s}, {name: c, mountPath: /c, configMapName: c}, {name: p, mountPath: /p, claimName: p}]}}`)
	pod := h.settle(t)[0]
	env := func(name string) *corev1.EnvVar {
		i := slices.IndexFunc(pod.Spec.Containers[0].Env, func(e corev1.EnvVar) bool { return e.Name == name })
		if i < 0 {
			return &corev1.EnvVar{}
		}
		return &pod.Spec.Containers[0].Env[i]
	}
	service, account := &corev1.Service{}, &corev1.ServiceAccount{}
	h.read(t, service, "agents")
	h.read(t, account, "agents-node")
	for what, ok := range map[string]bool{
		"label":           pod.Labels["team"] == "blue" && pod.Labels["app.kubernetes.io/instance"] == "agents",
		"node selector":   pod.Spec.NodeSelector["disk"] == "fast",
		"toleration":      slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool { return t.Key == "hubs" }),
		"affinity":        pod.Spec.Affinity != nil && pod.Spec.Affinity.PodAntiAffinity != nil,
		"spread":          len(pod.Spec.TopologySpreadConstraints) == 1 && pod.Spec.TopologySpreadConstraints[0].LabelSelector.MatchLabels["app.kubernetes.io/instance"] == "agents",
		"value":           env("GOGC").Value == "50",
		"secret's value":  env("A").ValueFrom != nil && env("A").ValueFrom.SecretKeyRef.Name == "s",
		"setting's value": env("B").ValueFrom != nil && env("B").ValueFrom.ConfigMapKeyRef.Name == "c",
		"service type":    service.Spec.Type == corev1.ServiceTypeNodePort && service.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
		"service account": account.Annotations["cloud.example/role"] == "hub",
	} {
		if !ok {
			t.Errorf("the %s is not as the Hub says", what)
		}
	}
	// Nothing of it is a reason to write again.
	h.poke(t, pod)
	h.poke(t, pod)
	already := len(h.requests.in(h.key.Namespace))
	h.poke(t, pod)
	if writes := h.requests.in(h.key.Namespace)[already:]; len(writes) > 0 {
		t.Errorf("writes to a hub that is as it should be: %q", writes)
	}
}

// TLS and fewer nodes in one change: nodes of before refuse settings with TLS.
func TestTLSAndFewerNodes(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 3")
	h.settle(t)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) {
		s.TLS = &switchboardv1alpha1.TLSSpec{Clients: switchboardv1alpha1.ClientTLSOptional}
		s.Replicas = new(int32(2))
	})
	h.settle(t)
}

// A node whose container starts again reads what is in the ConfigMap.
func TestSettingsFitEveryPod(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 3")
	pods := h.settle(t)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) {
		s.TLS = &switchboardv1alpha1.TLSSpec{Clients: switchboardv1alpha1.ClientTLSOptional}
	})
	sts := &appsv1.StatefulSet{}
	h.waitFor(t, sts, "agents-node", func() error {
		if len(sts.Spec.Template.Spec.Volumes) == len(pods[0].Spec.Volumes) {
			return errors.New("the template is that of before")
		}
		return nil
	})
	settings := &corev1.ConfigMap{}
	h.read(t, settings, "agents-config")
	for _, pod := range h.pods(t) {
		if strings.Contains(settings.Data["hubnode.yaml"], "\n  clients: Optional") && !strings.Contains(fmt.Sprint(pod.Spec.Volumes), "agents-node-tls") {
			t.Errorf("%s has no certificate, and settings that it can't start with", pod.Name)
		}
	}
	h.settle(t)
	h.read(t, settings, "agents-config")
	if !strings.Contains(settings.Data["hubnode.yaml"], "\n  clients: Optional") {
		t.Error("TLS is off")
	}
}
