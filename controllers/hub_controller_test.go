package controllers_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

// children are the objects of a Hub named agents.
func children() map[string]client.Object {
	return map[string]client.Object{
		"agents-config":   &corev1.ConfigMap{},
		"agents-gossip":   &corev1.Secret{},
		"agents-nodes":    &corev1.Service{},
		"agents":          &corev1.Service{},
		"agents-node":     &appsv1.StatefulSet{},
		"agents-node/pdb": &policyv1.PodDisruptionBudget{},
		"agents-node/np":  &networkingv1.NetworkPolicy{},
		"agents-node/sa":  &corev1.ServiceAccount{},
	}
}

func childName(key string) string {
	name, _, _ := strings.Cut(key, "/")
	return name
}

func TestHubOwnsEveryObjectItNeeds(t *testing.T) {
	h := createHub(t, useCluster(t), "")
	hub := h.get(t)
	for key, obj := range children() {
		t.Run(key, func(t *testing.T) {
			h.waitFor(t, obj, childName(key), func() error { return nil })
			wantOwner := []metav1.OwnerReference{{
				APIVersion: "switchboard.dev/v1alpha1", Kind: "Hub", Name: "agents", UID: hub.UID,
				Controller: new(true), BlockOwnerDeletion: new(true),
			}}
			if diff := cmp.Diff(wantOwner, obj.GetOwnerReferences()); diff != "" {
				t.Errorf("owner references (-want +got):\n%s", diff)
			}
			wantLabels := map[string]string{
				"app.kubernetes.io/name":       "switchboard",
				"app.kubernetes.io/instance":   "agents",
				"app.kubernetes.io/component":  "node",
				"app.kubernetes.io/managed-by": "switchboard-operator",
			}
			if diff := cmp.Diff(wantLabels, obj.GetLabels()); diff != "" {
				t.Errorf("labels (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNodesReadTheirSettings(t *testing.T) {
	h := createHub(t, useCluster(t), "{replicas: 2, topics: [{pattern: orders.>, history: {maxArtifacts: 10}, filter: 'true'}]}")
	settings := &corev1.ConfigMap{}
	h.read(t, settings, "agents-config")
	got, err := config.Parse([]byte(settings.Data["hubnode.yaml"]))
	if err != nil {
		t.Fatalf("a node refuses the settings: %v", err)
	}
	want := config.Default()
	want.Hub = fmt.Sprintf("%s/agents/%s", h.key.Namespace, h.get(t).UID)
	want.Replicas = 2
	want.Peers = []string{"agents-nodes." + h.key.Namespace + ".svc:7402"}
	want.GossipKeyFile = "/etc/switchboard/gossip/key"
	want.Topics = []config.Topic{{Pattern: "orders.>", History: &config.TopicHistory{MaxArtifacts: new(10)}, Filter: "true"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
}

func TestGossipKeyIsMadeOnce(t *testing.T) {
	h := createHub(t, useCluster(t), "")
	secret := &corev1.Secret{}
	h.read(t, secret, "agents-gossip")
	key := secret.Data["key"]
	if raw, err := base64.StdEncoding.DecodeString(string(key)); err != nil || len(raw) != 32 {
		t.Fatalf("the key %q is not base64 of 32 bytes", key)
	}

	h.settle(t)
	generation := h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Replicas = new(int32(1)) })
	eventually(t, func() error {
		if got := h.get(t).Status.ObservedGeneration; got != generation {
			return fmt.Errorf("observed generation %d, want %d", got, generation)
		}
		return nil
	})
	h.read(t, secret, "agents-gossip")
	if got := secret.Data["key"]; string(got) != string(key) {
		t.Errorf("the key changed from %q to %q", key, got)
	}
}

func TestStatusTellsHowTheHubIs(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 3")
	h.waitForCondition(t, switchboardv1alpha1.ConditionAvailable, metav1.ConditionFalse, switchboardv1alpha1.ReasonTooFewNodesReady)
	h.waitForCondition(t, switchboardv1alpha1.ConditionReconciling, metav1.ConditionTrue, switchboardv1alpha1.ReasonRollingOut)

	h.settle(t)
	h.waitForCondition(t, switchboardv1alpha1.ConditionAvailable, metav1.ConditionTrue, switchboardv1alpha1.ReasonMajorityReady)
	h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionFalse, switchboardv1alpha1.ReasonAsExpected)
	status := h.get(t).Status
	if meta.FindStatusCondition(status.Conditions, switchboardv1alpha1.ConditionReconciling) != nil {
		t.Error("Reconciling is there although nothing is to be done")
	}
	status.Conditions = nil
	want := switchboardv1alpha1.HubStatus{
		ObservedGeneration: 1,
		Replicas:           3,
		ReadyReplicas:      3,
		Ready:              "3/3",
		Selector:           "app.kubernetes.io/component=node,app.kubernetes.io/instance=agents,app.kubernetes.io/name=switchboard",
		Address:            "agents." + h.key.Namespace + ".svc:7400",
		SafeToRestart:      true,
		Clients:            1 + 2 + 3,
	}
	if diff := cmp.Diff(want, status); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if text := h.waitForEvent(t, "Normal", "Available"); !strings.Contains(text, status.Address) {
		t.Errorf("event %q does not say where to connect", text)
	}
}

func TestReloadableChangeLeavesPodsAlone(t *testing.T) {
	h := createHub(t, useCluster(t), "")
	pods := h.settle(t)
	sts := &appsv1.StatefulSet{}
	h.read(t, sts, "agents-node")
	before := sts.Generation

	h.change(t, func(s *switchboardv1alpha1.HubSpec) {
		s.HealthCheck.FailureThreshold = 9
		s.History.MaxArtifacts = 7
		s.Topics = []switchboardv1alpha1.HubTopicSpec{{Pattern: "orders.>", TopicSettings: switchboardv1alpha1.TopicSettings{Filter: "true"}}}
		s.Sessions.ResumeWindow.Duration *= 2
		s.Limits.MaxClients = 5
		s.Limits.MaxPendingBytes = resource.MustParse("32Mi")
	})
	h.waitForCondition(t, switchboardv1alpha1.ConditionConfigApplied, metav1.ConditionFalse, switchboardv1alpha1.ReasonApplying)
	h.reload(t, pods[:2]...)
	eventually(t, func() error {
		c := meta.FindStatusCondition(h.get(t).Status.Conditions, switchboardv1alpha1.ConditionConfigApplied)
		if want := "still on other settings: agents-node-2"; c.Message != want {
			return fmt.Errorf("message %q, want %q", c.Message, want)
		}
		return nil
	})
	h.reload(t, pods[2])
	h.waitForCondition(t, switchboardv1alpha1.ConditionConfigApplied, metav1.ConditionTrue, switchboardv1alpha1.ReasonApplied)

	h.read(t, sts, "agents-node")
	if sts.Generation != before {
		t.Errorf("the StatefulSet is at generation %d, was at %d: pods would restart", sts.Generation, before)
	}
}

func TestRefusedSettingsAreShown(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 1")
	pods := h.settle(t)
	h.nodes.set(pods[0].Status.PodIP, controllers.NodeReport{
		Hub: fmt.Sprintf("%s/agents/%s", h.key.Namespace, h.get(t).UID), ConfigHash: "old", ConfigError: "topics[0].filter: no such field",
	})
	h.change(t, func(s *switchboardv1alpha1.HubSpec) {
		s.Topics = []switchboardv1alpha1.HubTopicSpec{{Pattern: "orders.>", TopicSettings: switchboardv1alpha1.TopicSettings{Filter: "artifact.size > 1"}}}
	})
	c := h.waitForCondition(t, switchboardv1alpha1.ConditionConfigApplied, metav1.ConditionFalse, switchboardv1alpha1.ReasonRejected)
	if !strings.Contains(c.Message, "agents-node-0: topics[0].filter: no such field") {
		t.Errorf("message %q does not name the node and its reason", c.Message)
	}
	h.waitForEvent(t, "Warning", switchboardv1alpha1.ReasonRejected)
}

func TestFilterThatCantBeCompiledReachesNoNode(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 1")
	h.settle(t)
	before := &corev1.ConfigMap{}
	h.read(t, before, "agents-config")
	h.change(t, func(s *switchboardv1alpha1.HubSpec) {
		s.Topics = []switchboardv1alpha1.HubTopicSpec{{Pattern: "orders.>", TopicSettings: switchboardv1alpha1.TopicSettings{Filter: "artifact.sise > 1"}}}
	})
	c := h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionTrue, switchboardv1alpha1.ReasonInvalidSpec)
	if !strings.Contains(c.Message, "topics[0].filter") || !strings.Contains(c.Message, "undefined field 'sise'") {
		t.Errorf("message %q does not name the filter and its fault", c.Message)
	}
	after := &corev1.ConfigMap{}
	h.read(t, after, "agents-config")
	if after.ResourceVersion != before.ResourceVersion {
		t.Error("the settings were written in spite of it")
	}
}

func TestNewSettingsHurryThePodsThatLackThem(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 2")
	pods := h.settle(t)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.History.MaxArtifacts = 5 })
	settings := &corev1.ConfigMap{}
	for _, pod := range pods {
		h.waitFor(t, pod, pod.Name, func() error {
			h.read(t, settings, "agents-config")
			sum := sha256.Sum256([]byte(settings.Data["hubnode.yaml"]))
			if got := pod.Annotations[manifests.AnnotationConfigHash]; got != hex.EncodeToString(sum[:]) {
				return fmt.Errorf("annotation %q, settings are %x", got, sum)
			}
			return nil
		})
	}
}

func TestScale(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 3")
	h.settle(t)
	for _, want := range []int32{5, 1, 0, 2} {
		already := len(h.requests.in(h.key.Namespace))
		hub := h.get(t)
		scale := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: want}}
		if err := h.SubResource("scale").Update(t.Context(), hub, client.WithSubResourceBody(scale)); err != nil {
			t.Fatalf("scale to %d: %v", want, err)
		}
		h.settle(t)
		writes := h.requests.in(h.key.Namespace)[already:]
		settings := slices.IndexFunc(writes, func(w string) bool { return strings.HasSuffix(w, "/configmaps/agents-config") })
		workload := slices.IndexFunc(writes, func(w string) bool { return strings.HasSuffix(w, "/statefulsets/agents-node") })
		// Topics move to new nodes once these run, and away from old ones
		// before they go.
		if grows := want == 5; settings < 0 || workload < 0 || grows != (workload < settings) {
			t.Errorf("scale to %d: writes %q, want the workload first: %v", want, writes, grows)
		}
		hub = h.get(t)
		if got := fmt.Sprintf("%d/%d", want, want); hub.Status.Ready != got || hub.Status.Replicas != want {
			t.Errorf("status %+v, want %d nodes ready", hub.Status, want)
		}
		if err := h.SubResource("scale").Get(t.Context(), hub, scale); err != nil {
			t.Fatalf("read the scale: %v", err)
		}
		if scale.Status.Replicas != want || scale.Status.Selector != hub.Status.Selector {
			t.Errorf("scale status %+v, want %d replicas and the selector %q", scale.Status, want, hub.Status.Selector)
		}
	}
}

// A node holds histories until others have them: its pod stays as long as one of
// the nodes says that they are on their way.
func TestShrinkingWaitsUntilHistoriesHaveMoved(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 3")
	pods := h.settle(t)
	h.change(t, func(spec *switchboardv1alpha1.HubSpec) { spec.Replicas = new(int32(1)) })
	settings := &corev1.ConfigMap{}
	h.waitFor(t, settings, "agents-config", func() error {
		if !strings.Contains(settings.Data["hubnode.yaml"], "replicas: 1") {
			return fmt.Errorf("settings are\n%s", settings.Data["hubnode.yaml"])
		}
		return nil
	})
	h.reload(t, pods[1:]...)
	h.nodes.change(pods[0].Status.PodIP, func(report *controllers.NodeReport) {
		sum := sha256.Sum256([]byte(settings.Data["hubnode.yaml"]))
		report.ConfigHash, report.ShardsUnsettled = hex.EncodeToString(sum[:]), 2
	})
	eventually(t, func() error {
		c := meta.FindStatusCondition(h.get(t).Status.Conditions, switchboardv1alpha1.ConditionProgressing)
		if c == nil || c.Status != metav1.ConditionTrue || !strings.Contains(c.Message, "2 shards") {
			return fmt.Errorf("progressing: %+v", c)
		}
		return nil
	})
	sts := &appsv1.StatefulSet{}
	h.read(t, sts, "agents-node")
	if *sts.Spec.Replicas != 3 {
		t.Errorf("the StatefulSet has %d replicas while histories are on their way, want 3", *sts.Spec.Replicas)
	}
	if pods = h.settle(t); len(pods) != 1 {
		t.Errorf("%d pods are left, want 1", len(pods))
	}
}

// Topics are on the volumes of all nodes that there were: with fewer of them a shard may
// lack its majority for ever.
func TestHubOnVolumesStartsSmaller(t *testing.T) {
	h := createHub(t, useCluster(t), "{replicas: 3, history: {maxArtifacts: 10}, storage: {size: 1Gi}}")
	h.bindClaims(t)
	h.settle(t)
	homes := func() int {
		settings := &corev1.ConfigMap{}
		h.read(t, settings, "agents-config")
		parsed, err := config.Parse([]byte(settings.Data["hubnode.yaml"]))
		if err != nil {
			t.Fatal(err)
		}
		return parsed.Replicas
	}
	h.change(t, func(spec *switchboardv1alpha1.HubSpec) { spec.Replicas = new(int32(0)) })
	if pods := h.settle(t); len(pods) != 0 || homes() != 3 {
		t.Fatalf("stopped with %d pods, and topics have their homes on %d nodes, want 3", len(pods), homes())
	}
	settings := &corev1.ConfigMap{}
	h.read(t, settings, "agents-config")
	if err := h.Delete(t.Context(), settings); err != nil {
		t.Fatal(err)
	}
	gone := settings.UID
	h.waitFor(t, settings, "agents-config", func() error {
		if settings.UID == gone {
			return errors.New("it is the one of before")
		}
		return nil
	})
	if got := homes(); got != 3 {
		t.Fatalf("without settings there are the volumes of three nodes, and topics have their homes on %d", got)
	}
	h.change(t, func(spec *switchboardv1alpha1.HubSpec) { spec.Replicas = new(int32(1)) })
	sts := &appsv1.StatefulSet{}
	h.waitFor(t, sts, "agents-node", func() error {
		switch *sts.Spec.Replicas {
		case 0:
			return errors.New("it is stopped")
		case 3:
			return nil
		}
		t.Fatalf("%d nodes start, want those that topics are on first", *sts.Spec.Replicas)
		return nil
	})
	h.waitForCondition(t, switchboardv1alpha1.ConditionProgressing, metav1.ConditionTrue, switchboardv1alpha1.ReasonRollingOut)
	if got := homes(); got != 3 {
		t.Errorf("before a node is there to be asked topics are to move to %d", got)
	}
	if pods := h.settle(t); len(pods) != 1 || homes() != 1 {
		t.Errorf("%d pods are left, and topics are on %d, want 1", len(pods), homes())
	}
}

// Where no node is ready nobody is asked, and nobody says that topics have moved.
func TestShrinkingWaitsForNodesThatAnswer(t *testing.T) {
	h := createHub(t, useCluster(t), "{replicas: 5, history: {maxArtifacts: 10}}")
	for _, pod := range h.settle(t) {
		h.fall(t, pod)
	}
	h.change(t, func(spec *switchboardv1alpha1.HubSpec) { spec.Replicas = new(int32(3)) })
	eventually(t, func() error {
		c := h.waitForCondition(t, switchboardv1alpha1.ConditionProgressing, metav1.ConditionTrue, switchboardv1alpha1.ReasonScaling)
		for _, want := range []string{"no node answers", "agents-node-0", "agents-node-4", "replicas: 0"} {
			if !strings.Contains(c.Message, want) {
				return fmt.Errorf("message %q, want it to say %q", c.Message, want)
			}
		}
		return nil
	})
	sts := &appsv1.StatefulSet{}
	h.read(t, sts, "agents-node")
	if *sts.Spec.Replicas != 5 {
		t.Errorf("the StatefulSet has %d replicas though no node was asked, want 5", *sts.Spec.Replicas)
	}
	for _, pod := range h.pods(t) { // they come back
		if err := h.Delete(t.Context(), &pod, client.GracePeriodSeconds(0)); err != nil {
			t.Fatal(err)
		}
	}
	if pods := h.settle(t); len(pods) != 3 {
		t.Errorf("%d pods are left, want 3", len(pods))
	}
}

// A hub whose image was wrong from the beginning holds nothing.
func TestHubThatNeverRanShrinks(t *testing.T) {
	h := createHub(t, useCluster(t), "{replicas: 3, image: 'no/such:image'}")
	for _, pod := range h.runPods(t) {
		h.crash(t, pod, "exec format error")
	}
	h.change(t, func(spec *switchboardv1alpha1.HubSpec) { spec.Replicas = new(int32(1)) })
	sts := &appsv1.StatefulSet{}
	h.waitFor(t, sts, "agents-node", func() error {
		if *sts.Spec.Replicas != 1 {
			return fmt.Errorf("%d nodes are asked for", *sts.Spec.Replicas)
		}
		return nil
	})
}

func TestDriftIsRepaired(t *testing.T) {
	h := createHub(t, useCluster(t), "")
	h.settle(t)
	service, settings, sts, policy, account := &corev1.Service{}, &corev1.ConfigMap{}, &appsv1.StatefulSet{}, &networkingv1.NetworkPolicy{}, &corev1.ServiceAccount{}
	tests := map[string]struct {
		obj    client.Object
		name   string
		spoil  func()
		intact func() bool
	}{
		"another target port": {
			service, "agents",
			func() { service.Spec.Ports[0].TargetPort = intstr.FromInt32(1) },
			func() bool { return service.Spec.Ports[0].TargetPort.String() == "client" },
		},
		"edited settings": {
			settings, "agents-config",
			func() { settings.Data["hubnode.yaml"] = "hub: mine" },
			func() bool { return settings.Data["hubnode.yaml"] != "hub: mine" },
		},
		"another image": {
			sts, "agents-node",
			func() { sts.Spec.Template.Spec.Containers[0].Image = "elsewhere:latest" },
			func() bool { return sts.Spec.Template.Spec.Containers[0].Image == nodeImage },
		},
		"open gossip": {
			policy, "agents-node",
			func() { policy.Spec.Ingress[1].From = nil },
			func() bool { return len(policy.Spec.Ingress[1].From) == 1 },
		},
		"a lost label": {
			account, "agents-node",
			func() { delete(account.Labels, "app.kubernetes.io/managed-by") },
			func() bool { return account.Labels["app.kubernetes.io/managed-by"] == "switchboard-operator" },
		},
		"a lost owner": {
			service, "agents-nodes",
			func() { service.OwnerReferences = nil },
			func() bool { return len(service.OwnerReferences) == 1 },
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h.read(t, tt.obj, tt.name)
			tt.spoil()
			if err := h.Update(t.Context(), tt.obj, client.FieldOwner("somebody")); err != nil {
				t.Fatal(err)
			}
			h.waitFor(t, tt.obj, tt.name, func() error {
				if !tt.intact() {
					return errors.New("it stays broken")
				}
				return nil
			})
		})
	}
	if text := h.waitForEvent(t, "Warning", switchboardv1alpha1.ReasonRepaired); !strings.Contains(text, "agents") || !strings.Contains(text, `"somebody"`) {
		t.Errorf("event %q names not what was changed, or not by whom", text)
	}
	for key, obj := range children() {
		t.Run("without "+key, func(t *testing.T) {
			h.read(t, obj, childName(key))
			uid := obj.GetUID()
			if err := h.Delete(t.Context(), obj); err != nil {
				t.Fatal(err)
			}
			h.waitFor(t, obj, childName(key), func() error {
				if obj.GetUID() == uid {
					return errors.New("the old one is still there")
				}
				return nil
			})
		})
	}
	if text := h.waitForEvent(t, "Normal", switchboardv1alpha1.ReasonRepaired); !strings.Contains(text, "was not there") {
		t.Errorf("event %q, want it to say what was not there", text)
	}
}

func TestWhatOthersAddStays(t *testing.T) {
	h := createHub(t, useCluster(t), "")
	h.settle(t)
	service := &corev1.Service{}
	h.read(t, service, "agents")
	service.Annotations = map[string]string{"example.com/dns": "agents.example.com"}
	service.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	if err := h.Update(t.Context(), service); err != nil {
		t.Fatal(err)
	}
	generation := h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Replicas = new(int32(4)) })
	eventually(t, func() error {
		if got := h.get(t).Status.ObservedGeneration; got != generation {
			return fmt.Errorf("observed generation %d, want %d", got, generation)
		}
		return nil
	})
	h.read(t, service, "agents")
	if service.Annotations["example.com/dns"] == "" || service.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		t.Errorf("annotations %v, affinity %s: somebody's fields are gone", service.Annotations, service.Spec.SessionAffinity)
	}
}

func TestSettledHubIsNotWritten(t *testing.T) {
	h := createHub(t, useCluster(t), `{
		replicas: 2,
		resources: {requests: {cpu: "0.5", memory: 1024Mi}, limits: {cpu: "2000m"}},
		image: "switchboard:own", imagePullPolicy: Always, imagePullSecrets: [{name: pull}],
		topics: [{pattern: a, history: {maxBytes: 1048576}}]}`)
	pods := h.settle(t)
	// The operator applies the Secret once more after creating it; from the
	// next look on there must be nothing to do.
	h.poke(t, pods[0])
	h.poke(t, pods[0])
	already := h.requests.in(h.key.Namespace)
	hub := h.get(t)
	for range 3 {
		h.poke(t, pods[0])
	}
	if writes := h.requests.in(h.key.Namespace)[len(already):]; len(writes) > 0 {
		t.Errorf("writes to a hub that is as it should be: %q", writes)
	}
	if got := h.get(t).ResourceVersion; got != hub.ResourceVersion {
		t.Errorf("the Hub went from version %s to %s", hub.ResourceVersion, got)
	}
}

func TestSomebodyElsesObjectIsLeftAlone(t *testing.T) {
	c := useCluster(t)
	h := &hubInTest{cluster: c, key: client.ObjectKey{Namespace: c.namespace(t), Name: "agents"}}
	theirs := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: h.key.Namespace, Name: "agents"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}
	if err := c.Create(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), rawHub(t, h.key.Namespace, h.key.Name, "")); err != nil {
		t.Fatal(err)
	}
	got := h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionTrue, switchboardv1alpha1.ReasonNameTaken)
	if want := `Service "agents" exists already and belongs to no Hub`; !strings.Contains(got.Message, want) {
		t.Errorf("message %q, want it to say %q", got.Message, want)
	}
	h.waitForCondition(t, switchboardv1alpha1.ConditionStalled, metav1.ConditionTrue, switchboardv1alpha1.ReasonNameTaken)
	h.waitForEvent(t, "Warning", switchboardv1alpha1.ReasonNameTaken)
	service := &corev1.Service{}
	h.read(t, service, "agents")
	if service.UID != theirs.UID || service.Spec.Ports[0].Port != 80 || len(service.OwnerReferences) > 0 {
		t.Errorf("their Service became %+v", service)
	}

	if err := c.Delete(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionFalse, switchboardv1alpha1.ReasonAsExpected)
}

func TestMissingRightIsNamed(t *testing.T) {
	c := useCluster(t)
	c.replaceOperator(t) // one that has only just begun names it, too
	h := &hubInTest{cluster: c, key: client.ObjectKey{Namespace: c.namespace(t), Name: "agents"}}
	c.setRules(t, slices.DeleteFunc(slices.Clone(c.role.Rules), func(rule rbacv1.PolicyRule) bool {
		return slices.Contains(rule.Resources, "statefulsets")
	}), false)
	restored := false
	restore := func() {
		if !restored {
			restored = true
			c.setRules(t, c.role.Rules, true)
		}
	}
	defer restore()

	if err := c.Create(t.Context(), rawHub(t, h.key.Namespace, h.key.Name, "")); err != nil {
		t.Fatal(err)
	}
	got := h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionTrue, switchboardv1alpha1.ReasonMissingPermission)
	for _, want := range []string{`cannot get resource "statefulsets"`, `API group "apps"`} {
		if !strings.Contains(got.Message, want) {
			t.Errorf("message %q, want it to say %q", got.Message, want)
		}
	}
	h.waitForCondition(t, switchboardv1alpha1.ConditionProgressing, metav1.ConditionFalse, switchboardv1alpha1.ReasonBlocked)
	if text := h.waitForEvent(t, "Warning", switchboardv1alpha1.ReasonMissingPermission); !strings.Contains(text, "statefulsets") {
		t.Errorf("event %q does not name the resource", text)
	}

	restore()
	h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionFalse, switchboardv1alpha1.ReasonAsExpected)
}

// setRules changes the operator's rights and waits until the API server goes by
// them.
func (c *cluster) setRules(t *testing.T, rules []rbacv1.PolicyRule, mayPatch bool) {
	t.Helper()
	role := &rbacv1.ClusterRole{}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(c.role), role); err != nil {
		t.Fatal(err)
	}
	role.Rules = rules
	if err := c.Update(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User:               operator,
			ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "patch", Group: "apps", Resource: "statefulsets", Namespace: "default"},
		}}
		if err := c.Create(t.Context(), review); err != nil {
			return err
		}
		if review.Status.Allowed != mayPatch {
			return fmt.Errorf("may patch: %v, want %v", review.Status.Allowed, mayPatch)
		}
		return nil
	})
}

func TestHistoryOnVolumes(t *testing.T) {
	h := createHub(t, useCluster(t), "storage: {size: 1Gi, storageClassName: fast, sync: Interval}")
	h.settle(t)
	sts := &appsv1.StatefulSet{}
	h.read(t, sts, "agents-node")
	if len(sts.Spec.VolumeClaimTemplates) != 1 {
		t.Fatalf("%d volume claims, want 1", len(sts.Spec.VolumeClaimTemplates))
	}
	claim := sts.Spec.VolumeClaimTemplates[0]
	if size := claim.Spec.Resources.Requests[corev1.ResourceStorage]; size.String() != "1Gi" || *claim.Spec.StorageClassName != "fast" {
		t.Errorf("claim of %s of class %s, want 1Gi of fast", size.String(), *claim.Spec.StorageClassName)
	}
	settings := &corev1.ConfigMap{}
	h.read(t, settings, "agents-config")
	for _, want := range []string{"dir: /var/lib/switchboard", "sync: Interval"} {
		if !strings.Contains(settings.Data["hubnode.yaml"], want) {
			t.Errorf("the nodes' settings lack %q:\n%s", want, settings.Data["hubnode.yaml"])
		}
	}
}

func TestDeletedHubIsLeftToKubernetes(t *testing.T) {
	h := createHub(t, useCluster(t), "")
	h.settle(t)
	hub := h.get(t)
	if len(hub.Finalizers) > 0 {
		t.Errorf("finalizers %v: a Hub could not be deleted without the operator", hub.Finalizers)
	}
	elsewhere := h.createTopic(t, "", "orders", h.ref(""))
	// In the foreground Kubernetes deletes the children first; none may come back.
	if err := h.Delete(t.Context(), hub, client.PropagationPolicy(metav1.DeletePropagationForeground)); err != nil {
		t.Fatal(err)
	}
	elsewhere.waitUntilRefused(t, switchboardv1alpha1.ReasonHubNotFound) // the operator has seen it
	already := len(h.requests.in(h.key.Namespace))
	for key, obj := range children() {
		h.read(t, obj, childName(key))
		if err := h.Delete(t.Context(), obj); err != nil {
			t.Fatal(err)
		}
	}
	hub = h.get(t)
	before := hub.DeepCopy()
	hub.Finalizers = nil
	if err := h.Patch(t.Context(), hub, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if err := h.Get(t.Context(), h.key, hub); !apierrors.IsNotFound(err) {
			return fmt.Errorf("get = %w, want it gone", err)
		}
		return nil
	})
	if writes := h.requests.in(h.key.Namespace)[already:]; len(writes) > 0 {
		t.Errorf("writes for a Hub that is being deleted: %q", writes)
	}
}
