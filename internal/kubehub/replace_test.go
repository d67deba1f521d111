package kubehub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/types"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/internal/kubectlhub"
	"github.com/switchboardhub/switchboard/internal/kubehub"
)

func TestDrainReplacesANode(t *testing.T) {
	h := startHub(t, switchboardv1alpha1.HubSpec{Replicas: new(int32(2))})
	moved := make(chan string, 10)
	c, err := client.Connect(t.Context(), h.ports[1]["7400"], client.WithID("agent-7"), client.OnConnect(func(s client.Server) { moved <- s.Node }))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-moved
	before, other := h.pod(t, "agents-node-1").UID, h.pod(t, "agents-node-0").UID
	out, notes := h.hubctl(t, 0, "drain", "1")
	if !strings.Contains(out, "agents-node-1: replaced within") || !strings.Contains(out, "2 of 2 nodes are ready, 4 of 4 shards have all replicas") {
		t.Errorf("drain says: %s", out)
	}
	if !strings.Contains(notes, "kubectl hub: agents-node-1 is evicted") {
		t.Errorf("drain tells: %s", notes)
	}
	if h.pod(t, "agents-node-1").UID == before || h.pod(t, "agents-node-0").UID != other {
		t.Error("not just agents-node-1 is another pod")
	}
	if node := <-moved; node != "agents-node-0" {
		t.Errorf("the client moved to %s", node)
	}
}

func TestDrainLeavesANodeAlone(t *testing.T) {
	h := startHub(t, switchboardv1alpha1.HubSpec{Replicas: new(int32(2))})
	h.freeze() // from here on nothing happens in the cluster by itself
	alone := func(t *testing.T) {
		t.Helper()
		if pod := h.pod(t, "agents-node-1"); pod.DeletionTimestamp != nil {
			t.Fatal("the pod is being deleted")
		}
	}
	budget := func(t *testing.T, allowed int32) {
		t.Helper()
		eventually(t, func() error {
			b := &policyv1.PodDisruptionBudget{}
			if err := h.Get(t.Context(), h.key("agents-node"), b); err != nil {
				return err
			}
			b.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: b.Generation, DisruptionsAllowed: allowed}
			return h.Status().Update(t.Context(), b)
		})
	}

	t.Run("while the disruption budget lets none go", func(t *testing.T) {
		budget(t, 0)
		_, notes := h.hubctl(t, 4, "drain", "agents", "1", "--timeout", "2s", "--force")
		if !strings.Contains(notes, "the disruption budget lets no node go now") || !strings.Contains(notes, "not done within 2s") {
			t.Errorf("drain tells: %s", notes)
		}
		alone(t)
	})
	t.Run("when another one is not ready", func(t *testing.T) {
		budget(t, 1)
		eventually(t, func() error {
			pod := h.pod(t, "agents-node-0")
			pod.Status.Conditions[0].Status = corev1.ConditionFalse
			return h.Status().Update(t.Context(), pod)
		})
		out, notes := h.hubctl(t, 1, "drain", "agents-node-1")
		if !strings.Contains(notes, "agents-node-1 is left alone") || !strings.Contains(notes, "agents-node-0 is not ready") || !strings.Contains(notes, "--force") {
			t.Errorf("drain says: %s%s", out, notes)
		}
		alone(t)
		if out, _ := h.hubctl(t, 0, "status"); !strings.Contains(out, "NO node may stop now: agents-node-0 is not ready") {
			t.Errorf("status says: %s", out)
		}
	})
	t.Run("unless it is forced to", func(t *testing.T) {
		_, notes := h.hubctl(t, 4, "drain", "1", "--force", "--timeout", "2s")
		if !strings.Contains(notes, "agents-node-1 is evicted") || !strings.Contains(notes, "what has begun goes on") {
			t.Errorf("drain tells: %s", notes)
		}
		if pod := h.pod(t, "agents-node-1"); pod.DeletionTimestamp == nil {
			t.Error("the pod is not being deleted")
		}
	})
}

func TestRestartReplacesEveryNode(t *testing.T) {
	h := startHub(t, switchboardv1alpha1.HubSpec{Replicas: new(int32(2))})
	before := map[string]types.UID{}
	for _, name := range []string{"agents-node-0", "agents-node-1"} {
		before[name] = h.pod(t, name).UID
	}
	out, notes := h.hubctl(t, 0, "restart", "-o", "json")
	var done kubehub.Replaced
	if err := json.Unmarshal([]byte(out), &done); err != nil || len(done.Nodes) != 2 || done.ReadyReplicas != 2 || done.Shards == nil || done.Shards.Whole != 4 {
		t.Errorf("restart says: %s (%v)", out, err)
	}
	for _, want := range []string{"restart of Hub agents asked for", "0 of 2 nodes are restarted", "1 of 2 nodes are restarted"} {
		if !strings.Contains(notes, want) {
			t.Errorf("restart does not tell %q: %s", want, notes)
		}
	}
	for name, uid := range before {
		pod := h.pod(t, name)
		if pod.UID == uid || pod.Annotations[manifests.AnnotationRestartedAt] == "" {
			t.Errorf("%s is as before", name)
		}
	}
}

func TestRestartGoesOnAfterCtrlC(t *testing.T) {
	h := startHub(t, switchboardv1alpha1.HubSpec{Replicas: new(int32(1))})
	h.freeze()
	ctx, cancel := context.WithCancel(t.Context())
	var out, notes lines
	ended := make(chan int, 1)
	go func() {
		ended <- kubectlhub.Run(ctx, "v1", []string{"restart", "agents", "-n", h.namespace, "--kubeconfig", h.kubeconfig}, strings.NewReader(""), &out, &notes)
	}()
	notes.await(t, "kubectl hub: waiting for the last node; Ctrl-C stops the waiting, not the restart")
	if err := h.Get(t.Context(), h.key("agents"), h.hub); err != nil {
		t.Fatal(err)
	}
	if h.hub.Annotations[manifests.AnnotationRestartedAt] == "" {
		t.Error("the Hub has no annotation")
	}
	cancel()
	if status := <-ended; status != 1 || !strings.Contains(notes.String(), "waiting is over, what has begun goes on") {
		t.Errorf("restart exited with %d and tells: %s", status, &notes)
	}
}

func TestRestartIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		spec switchboardv1alpha1.HubSpec
		want string
	}{
		"of a paused Hub":                 {switchboardv1alpha1.HubSpec{Paused: true}, "set spec.paused to false first"},
		"when a person replaces the pods": {switchboardv1alpha1.HubSpec{Updates: switchboardv1alpha1.UpdatesSpec{Strategy: switchboardv1alpha1.UpdateOnDelete}}, "use kubectl hub drain agents NODE"},
	} {
		t.Run(name, func(t *testing.T) {
			h := bareHub(t, test.spec, "agents")
			if _, notes := h.hubctl(t, 1, "restart"); !strings.Contains(notes, test.want) {
				t.Errorf("restart says: %s", notes)
			}
			if err := h.Get(t.Context(), h.key("agents"), h.hub); err != nil {
				t.Fatal(err)
			}
			if len(h.hub.Annotations) > 0 {
				t.Errorf("the Hub has the annotations %v", h.hub.Annotations)
			}
		})
	}
}

// bareHub makes Hubs whose nodes don't run, and returns the first.
func bareHub(t *testing.T, spec switchboardv1alpha1.HubSpec, names ...string) *hubInTest {
	t.Helper()
	h := &hubInTest{cluster: useCluster(t)}
	ns := &corev1.Namespace{}
	ns.GenerateName = "hub-"
	if err := h.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	h.namespace = ns.Name
	for _, name := range names {
		hub := &switchboardv1alpha1.Hub{Spec: spec}
		hub.Namespace, hub.Name = ns.Name, name
		if err := h.Create(t.Context(), hub); err != nil {
			t.Fatal(err)
		}
		if h.hub == nil {
			h.hub = hub
		}
	}
	return h
}

func TestMistakesAreExplained(t *testing.T) {
	none, two := bareHub(t, switchboardv1alpha1.HubSpec{}), bareHub(t, switchboardv1alpha1.HubSpec{}, "a", "b")
	for _, test := range []struct {
		hub    *hubInTest
		args   string
		status int
		want   string
	}{
		{none, "status", 1, "no Hub in namespace"},
		{two, "status", 1, "has 2 Hubs, say which: a, b"},
		{two, "logs c", 1, `no Hub "c" in namespace`},
		{two, "clients a", 1, "none of the 0 nodes of Hub a is ready; kubectl hub status a says more"},
		{two, "drain a", 2, "which node of Hub a?"},
		{two, "drain a 1", 1, "Hub a has no nodes now"},
		{two, "drain", 2, "Try 'kubectl hub drain --help'"},
		{two, "logs a -f --previous", 2, "a container that has ended writes no more"},
		{two, "stats", 2, "did you mean status?"},
		{two, "status a -o yaml", 2, "want text or json"},
		{two, "status a --context nowhere", 1, `context "nowhere" does not exist`},
	} {
		t.Run(test.args, func(t *testing.T) {
			if _, notes := test.hub.hubctl(t, test.status, strings.Fields(test.args)...); !strings.Contains(notes, test.want) {
				t.Errorf("got %s, want %s", notes, test.want)
			}
		})
	}
}

func TestWithFewRightsOneSeesWhatOneMay(t *testing.T) {
	h := startHub(t, switchboardv1alpha1.HubSpec{Replicas: new(int32(1))})
	kubeconfig := h.grantOnlyHubs(t)
	var out, notes bytes.Buffer
	status := kubectlhub.Run(t.Context(), "v1", []string{"status", "agents", "-n", h.namespace, "--kubeconfig", kubeconfig}, strings.NewReader(""), &out, &notes)
	if status != 0 {
		t.Fatalf("status exited with %d: %s", status, &notes)
	}
	for _, want := range []string{"MajorityReady", "1 of 1 ready", "Could not read pods: you have no right to", "Could not read events: you have no right to"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("status does not say %q:\n%s", want, &out)
		}
	}

	file := filepath.Join(t.TempDir(), "b.tar.gz")
	status = kubectlhub.Run(t.Context(), "v1", []string{"bundle", "agents", "-n", h.namespace, "--kubeconfig", kubeconfig, "--file", file}, strings.NewReader(""), &out, &notes)
	if status != 0 {
		t.Fatalf("bundle exited with %d: %s", status, &notes)
	}
	files := untar(t, file)
	if !strings.Contains(files["objects/hub.yaml"], "name: agents") {
		t.Errorf("the bundle lacks the Hub: %v", files)
	}
	for _, want := range []string{"objects/pods.yaml: ", "operator/deployment.yaml: ", "nodes: "} {
		if !strings.Contains(files["errors.txt"], want) {
			t.Errorf("errors.txt does not tell of %s\n%s", want, files["errors.txt"])
		}
	}
}
