//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// How long the steps may take on a slow and busy machine; what they really took
// is in the log.
const (
	installWithin = 3 * time.Minute
	rolloutWithin = 4 * time.Minute
	// The kubelet looks at changed ConfigMaps about once a minute.
	reloadWithin = 4 * time.Minute
	heardWithin  = time.Minute
)

const hubYAML = `apiVersion: switchboard.dev/v1alpha1
kind: Hub
metadata:
  name: agents
spec:
  replicas: 3
  drain:
    timeout: 10s
  topics:
  - pattern: news.>
    history: {maxArtifacts: 100}
`

// TestHub goes the way of a hub from the chart's installation to its removal.
// The steps build on each other: the first that fails is the last that runs.
func TestHub(t *testing.T) {
	s := newSuite(t)
	s.makeNamespaces(t)

	_ = t.Run("the chart installs the operator", s.installChart) &&
		t.Run("an invalid hub is refused with the field's path", s.invalidHubIsRefused) &&
		t.Run("a hub of three becomes available", s.hubBecomesAvailable) &&
		t.Run("a direct artifact reaches a client on any node", s.directArtifactsArrive) &&
		t.Run("a topic reaches subscribers on every node", s.topicArtifactsArrive) &&
		t.Run("late joiners replay history through the service", s.lateJoinersReplay) &&
		t.Run("history limits change without a restart", s.limitsChangeInPlace) &&
		t.Run("a rolling restart under load loses nothing", s.rollingRestartLosesNothing) &&
		t.Run("the hub grows to five", s.hubGrows) &&
		t.Run("the hub shrinks to three and keeps its clients", s.hubShrinks) &&
		t.Run("deleting the hub removes everything it made", s.hubIsDeleted) &&
		t.Run("uninstalling the chart removes the operator", s.uninstallChart)
}

func (s *suite) installChart(t *testing.T) {
	t.Helper()
	s.helmInstall(t, "../../charts/switchboard", s.image)
}

func (s *suite) helmInstall(t *testing.T, chart, image string) {
	t.Helper()
	repository, tag := splitImage(image)
	s.mustRun(t, s.helm, "", "install", release, chart, "--namespace", operatorNamespace,
		"--set", "image.repository="+repository, "--set", "image.tag="+tag, "--set", "image.pullPolicy=IfNotPresent",
		"--wait", "--timeout", installWithin.String())
}

func (s *suite) invalidHubIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ old, changed, path string }{
		"negative replicas":              {"replicas: 3", "replicas: -1", "spec.replicas"},
		"a pattern with an empty token":  {"news.>", "news..x", "spec.topics[0].pattern"},
		"an unknown slow client policy":  {"drain:", "limits: {slowClientPolicy: Ignore}\n  drain:", "spec.limits.slowClientPolicy"},
		"a timeout above its interval":   {"drain:", "healthCheck: {interval: 1s, timeout: 2s}\n  drain:", "spec.healthCheck.timeout"},
		"a field that there is not":      {"maxArtifacts: 100", "maxArtefacts: 100", "spec.topics[0].history.maxArtefacts"},
		"history without end in the age": {"maxArtifacts: 100", "maxArtifacts: 100, maxAge: -1s", "spec.topics[0].history.maxAge"},
	} {
		t.Run(name, func(t *testing.T) {
			invalid := strings.Replace(hubYAML, c.old, c.changed, 1)
			_, err := s.run(s.kubectl, invalid, "-n", hubNamespace, "apply", "--validate=strict", "-f", "-")
			if err == nil {
				t.Fatalf("it was taken:\n%s", invalid)
			}
			if !strings.Contains(err.Error(), c.path) {
				t.Errorf("got %v, want an error that names %s", err, c.path)
			}
		})
	}
}

func (s *suite) hubBecomesAvailable(t *testing.T) {
	start := time.Now()
	s.mustRun(t, s.kubectl, hubYAML, "-n", hubNamespace, "apply", "-f", "-")
	s.eventually(t, rolloutWithin, "the hub is available", func(ctx context.Context) error {
		return s.condition(ctx, switchboardv1alpha1.ConditionAvailable)
	})
	available := time.Since(start)
	s.waitNodes(t, 3)
	t.Logf("a hub of three is Available %.1fs after kubectl apply, all nodes are ready after %.1fs",
		available.Seconds(), time.Since(start).Seconds())
	s.waitServed(t)

	// Which is what a person looks at.
	out := s.mustRun(t, s.kubectl, "", "-n", hubNamespace, "get", "hubs")
	for _, want := range []string{"READY", "CLIENTS", "ADDRESS", "AVAILABLE", "AGE", "3/3", service(), "True"} {
		if !strings.Contains(out, want) {
			t.Errorf("kubectl get hubs shows no %q:\n%s", want, out)
		}
	}

	on := map[string]int{}
	for _, pod := range s.hubPods(t) {
		on[pod.Spec.NodeName]++
	}
	if want := min(3, len(s.workers)); len(on) != want {
		t.Errorf("the hub's pods are on %v, want them on %d different Kubernetes nodes", on, want)
	}
}

// directArtifactsArrive has a listener at each node of the hub, each on another
// Kubernetes node as far as there are enough, and sends through the service:
// wherever that leads, most of the listeners are somewhere else.
func (s *suite) directArtifactsArrive(t *testing.T) {
	defer s.removeAgents(t)
	sender := s.startAgent(t, "sender", 0, service(), "listen", "--id", "sender")
	var listeners []*agent
	for i := range 3 {
		name := fmt.Sprintf("listener-%d", i)
		listeners = append(listeners, s.startAgent(t, name, i, member(i), "listen", "--id", name, "--count", "1", "-o", "json"))
	}
	sender.waitRunning(t)
	for _, l := range listeners {
		s.waitConnected(t, sender, l.pod)
		sender.mustHubctl(t, "send", l.pod, "hello "+l.pod, "--id", "a")
	}
	for _, l := range listeners {
		got := l.waitArtifacts(t)
		if len(got) != 1 || got[0].From != "a" || got[0].To != l.pod || got[0].Payload != "hello "+l.pod {
			t.Errorf("%s: got %+v, want one artifact from a that says hello", l.pod, got)
		}
	}

	_, err := sender.hubctl("send", "nobody", "hello", "--id", "a")
	if err == nil || !strings.Contains(err.Error(), "exit code 3") {
		t.Errorf("send to nobody: got %v, want exit status 3: there is no such client", err)
	}
}

// topicArtifactsArrive uses a topic without history, which only those hear who
// are there: it publishes until everybody has heard.
func (s *suite) topicArtifactsArrive(t *testing.T) {
	defer s.removeAgents(t)
	publisher := s.startAgent(t, "publisher", 0, service(), "listen", "--id", "publisher")
	var subscribers []*agent
	for i := range 3 {
		name := fmt.Sprintf("subscriber-%d", i)
		subscribers = append(subscribers, s.startAgent(t, name, i, member(i), "sub", "weather.*", "--id", name, "--count", "1", "-o", "json"))
	}
	publisher.waitRunning(t)
	s.eventually(t, podWithin+heardWithin, "all subscribers have heard", func(ctx context.Context) error {
		if _, err := publisher.hubctl("pub", "weather.north", "rain", "--id", "p"); err != nil {
			return err
		}
		for _, sub := range subscribers {
			if err := sub.phase(ctx, corev1.PodSucceeded); err != nil {
				return fmt.Errorf("%s: %w", sub.pod, err)
			}
		}
		return nil
	})
	for _, sub := range subscribers {
		got := sub.artifacts(t)
		if len(got) != 1 || got[0].From != "p" || got[0].Topic != "weather.north" || got[0].Payload != "rain" {
			t.Errorf("%s: got %+v, want one artifact from p that says rain", sub.pod, got)
		}
	}
}

func (s *suite) lateJoinersReplay(t *testing.T) {
	defer s.removeAgents(t)
	publisher := s.startAgent(t, "publisher", 0, service(), "listen", "--id", "publisher")
	publisher.waitRunning(t)
	for i := 1; i <= 5; i++ {
		out := publisher.mustHubctl(t, "pub", "news.local", strconv.Itoa(i), "--id", "p")
		if out != strconv.Itoa(i) {
			t.Fatalf("pub: got %q, want sequence %d", out, i)
		}
	}
	var late []*agent
	for i := range 3 {
		late = append(late, s.startAgent(t, fmt.Sprintf("late-%d", i), i, service(),
			"sub", "news.>", "--since", "all", "--count", "5", "-o", "json"))
	}
	for _, l := range late {
		checkReplay(t, l.pod, l.waitArtifacts(t), 1, 5)
	}
}

// limitsChangeInPlace makes the history of news.> shorter and sees that the
// nodes follow as the same processes they were.
func (s *suite) limitsChangeInPlace(t *testing.T) {
	defer s.removeAgents(t)
	before := s.incarnations(t)
	start := time.Now()
	s.mustRun(t, s.kubectl, strings.Replace(hubYAML, "maxArtifacts: 100", "maxArtifacts: 3", 1), "-n", hubNamespace, "apply", "-f", "-")
	s.eventually(t, reloadWithin, "the nodes run the new settings", func(ctx context.Context) error {
		return s.condition(ctx, switchboardv1alpha1.ConditionConfigApplied)
	})
	t.Logf("all nodes run new settings %.1fs after kubectl apply", time.Since(start).Seconds())
	if after := s.incarnations(t); !maps.Equal(before, after) {
		t.Errorf("pods were restarted: had %v, have %v", before, after)
	}

	// One more, so that the limit has had an occasion to act.
	publisher := s.startAgent(t, "publisher", 0, service(), "listen", "--id", "publisher")
	publisher.waitRunning(t)
	if out := publisher.mustHubctl(t, "pub", "news.local", "6", "--id", "p"); out != "6" {
		t.Fatalf("pub: got %q, want sequence 6: history went on", out)
	}
	late := s.startAgent(t, "late", 1, service(), "sub", "news.>", "--since", "all", "--count", "3", "-o", "json")
	checkReplay(t, "late", late.waitArtifacts(t), 4, 6)
}

// rollingRestartLosesNothing replaces every pod of the hub while clients send to
// each other through its Service.
func (s *suite) rollingRestartLosesNothing(t *testing.T) {
	defer s.removeAgents(t)
	load := s.startAgent(t, "load", 0, service(), "bench", "pair", "--clients", "6", "--rate", "600", "--duration", "45s", "-o", "json")
	load.waitRunning(t)
	before := s.hubPods(t)
	start := time.Now()
	s.mustRun(t, s.kubectl, "", "-n", hubNamespace, "rollout", "restart", "statefulset/"+hubName+"-node")
	s.waitReplaced(t, before...)
	s.waitSafe(t)
	took := time.Since(start)
	t.Logf("all three nodes restarted in %.1fs", took.Seconds())
	checkBench(t, load.waitLogs(t), 10_000)
}

// checkBench wants that of so many artifacts at least that hubctl bench sent none was lost.
func checkBench(t *testing.T, logs string, atLeast int) {
	t.Helper()
	var result struct {
		Messages int  `json:"messages"`
		Lost     *int `json:"lost"`
	}
	if err := json.Unmarshal([]byte(lastLine(logs)), &result); err != nil || result.Lost == nil {
		t.Fatalf("bench printed no result: %v\n%s", err, logs)
	}
	t.Logf("%d artifacts, %d lost", result.Messages, *result.Lost)
	if *result.Lost != 0 || result.Messages < atLeast {
		t.Errorf("%d artifacts were sent, %d were lost; want none of over %d\n%s", result.Messages, *result.Lost, atLeast, logs)
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

func (s *suite) hubGrows(t *testing.T) {
	defer s.removeAgents(t)
	s.scale(t, 5)
	sender := s.startAgent(t, "sender", 0, service(), "listen", "--id", "sender")
	listener := s.startAgent(t, "listener", 1, member(4), "listen", "--id", "listener", "--count", "1", "-o", "json")
	sender.waitRunning(t)
	s.waitConnected(t, sender, "listener")
	sender.mustHubctl(t, "send", "listener", "hello", "--id", "a")
	if got := listener.waitArtifacts(t); len(got) != 1 || got[0].Payload != "hello" {
		t.Errorf("got %+v, want one artifact that says hello", got)
	}
	late := s.startAgent(t, "late", 2, member(4), "sub", "news.>", "--since", "all", "--count", "3", "-o", "json")
	checkReplay(t, "late", late.waitArtifacts(t), 4, 6)
}

// hubShrinks takes the node away that a client is connected to: the client goes
// on somewhere else under its name, as the same process. History is what it was,
// wherever it was kept.
func (s *suite) hubShrinks(t *testing.T) {
	defer s.removeAgents(t)
	sender := s.startAgent(t, "sender", 0, member(0), "listen", "--id", "sender")
	mover := s.startAgent(t, "mover", 1, member(4), "listen", "--id", "mover", "-o", "json")
	sender.waitRunning(t)
	s.waitConnected(t, sender, "mover")

	s.scale(t, 3)
	s.eventually(t, heardWithin, "the client of the removed node hears", func(context.Context) error {
		_, err := sender.hubctl("send", "mover", "still there", "--id", "a")
		return err
	})
	s.eventually(t, heardWithin, "the artifact is printed", func(ctx context.Context) error {
		if err := mover.phase(ctx, corev1.PodRunning); err != nil {
			return err
		}
		if got := mover.artifacts(t); len(got) == 0 || got[0].Payload != "still there" {
			return fmt.Errorf("got %+v", got)
		}
		return nil
	})

	late := s.startAgent(t, "late", 2, service(), "sub", "news.>", "--since", "all", "--count", "3", "-o", "json")
	checkReplay(t, "late", late.waitArtifacts(t), 4, 6)
}

func (s *suite) hubIsDeleted(t *testing.T) {
	s.mustRun(t, s.kubectl, "", "-n", hubNamespace, "delete", "hub", hubName)
	ours := []client.ListOption{client.InNamespace(hubNamespace), client.MatchingLabels{"app.kubernetes.io/instance": hubName}}
	s.eventually(t, rolloutWithin, "everything the hub made is gone", func(ctx context.Context) error {
		for _, list := range []client.ObjectList{
			&appsv1.StatefulSetList{}, &corev1.PodList{}, &corev1.ServiceList{}, &corev1.ConfigMapList{}, &corev1.SecretList{},
			&corev1.ServiceAccountList{}, &policyv1.PodDisruptionBudgetList{}, &networkingv1.NetworkPolicyList{},
		} {
			if err := s.client.List(ctx, list, ours...); err != nil {
				return err
			}
			if n := meta.LenList(list); n > 0 {
				return fmt.Errorf("%d of %T are left", n, list)
			}
		}
		return nil
	})
}

func (s *suite) uninstallChart(t *testing.T) {
	s.mustRun(t, s.helm, "", "uninstall", release, "--namespace", operatorNamespace, "--wait", "--timeout", installWithin.String())
	s.eventually(t, installWithin, "the operator is gone", func(ctx context.Context) error {
		var pods corev1.PodList
		if err := s.client.List(ctx, &pods, client.InNamespace(operatorNamespace)); err != nil {
			return err
		}
		if len(pods.Items) > 0 {
			return fmt.Errorf("pod %s is left", pods.Items[0].Name)
		}
		return nil
	})
}

// scale does what an autoscaler does, through the scale subresource.
func (s *suite) scale(t *testing.T, replicas int) {
	t.Helper()
	start := time.Now()
	s.mustRun(t, s.kubectl, "", "-n", hubNamespace, "scale", "hub", hubName, "--replicas", strconv.Itoa(replicas))
	s.waitNodes(t, replicas)
	t.Logf("scaled to %d nodes in %.1fs", replicas, time.Since(start).Seconds())
}

// waitNodes waits until the hub has exactly the wanted nodes, all are ready, and
// the status says so.
func (s *suite) waitNodes(t *testing.T, want int) {
	t.Helper()
	s.eventually(t, rolloutWithin, fmt.Sprintf("%d nodes are ready", want), func(ctx context.Context) error {
		hub, err := s.hub(ctx)
		if err != nil {
			return err
		}
		progressing := meta.FindStatusCondition(hub.Status.Conditions, switchboardv1alpha1.ConditionProgressing)
		switch {
		case hub.Status.ObservedGeneration != hub.Generation || progressing == nil:
			return fmt.Errorf("the operator has seen generation %d of %d", hub.Status.ObservedGeneration, hub.Generation)
		case int(hub.Status.Replicas) != want || int(hub.Status.ReadyReplicas) != want:
			return fmt.Errorf("%d of %d nodes are ready", hub.Status.ReadyReplicas, hub.Status.Replicas)
		case progressing.Status != metav1.ConditionFalse:
			return fmt.Errorf("progressing: %s", progressing.Message)
		}
		return nil
	})
}

// waitConnected waits until the hub knows a client, asked from the agent asker.
func (s *suite) waitConnected(t *testing.T, asker *agent, id string) {
	t.Helper()
	s.eventually(t, podWithin, "client "+id+" is connected", func(context.Context) error {
		out, err := asker.hubctl("clients")
		if err != nil {
			return err
		}
		if !slices.Contains(strings.Fields(out), id) {
			return fmt.Errorf("the hub has these clients:\n%s", out)
		}
		return nil
	})
}

// condition returns nil when the hub's condition is True for what the spec says now.
func (s *suite) condition(ctx context.Context, name string) error {
	hub, err := s.hub(ctx)
	if err != nil {
		return err
	}
	c := meta.FindStatusCondition(hub.Status.Conditions, name)
	switch {
	case c == nil || c.ObservedGeneration != hub.Generation:
		return fmt.Errorf("%s does not speak of generation %d yet", name, hub.Generation)
	case c.Status != metav1.ConditionTrue:
		return fmt.Errorf("%s is %s: %s: %s", name, c.Status, c.Reason, c.Message)
	}
	return nil
}

func (s *suite) hub(ctx context.Context) (*switchboardv1alpha1.Hub, error) {
	var hub switchboardv1alpha1.Hub
	err := s.client.Get(ctx, client.ObjectKey{Namespace: hubNamespace, Name: hubName}, &hub)
	return &hub, err
}

func (s *suite) hubPods(t *testing.T) []corev1.Pod {
	t.Helper()
	var pods corev1.PodList
	err := s.client.List(s.ctx, &pods, client.InNamespace(hubNamespace),
		client.MatchingLabels{"app.kubernetes.io/instance": hubName, "app.kubernetes.io/component": "node"})
	if err != nil {
		t.Fatal(err)
	}
	return pods.Items
}

// waitReplaced waits until others have taken the place of pods.
func (s *suite) waitReplaced(t *testing.T, pods ...corev1.Pod) {
	t.Helper()
	s.eventually(t, rolloutWithin, "pods are replaced", func(ctx context.Context) error {
		for i := range pods {
			var now corev1.Pod
			if err := s.client.Get(ctx, client.ObjectKeyFromObject(&pods[i]), &now); err != nil {
				return err
			}
			if now.UID == pods[i].UID {
				return fmt.Errorf("%s is still there", now.Name)
			}
			if now.DeletionTimestamp != nil {
				return fmt.Errorf("%s is just ending", now.Name)
			}
		}
		return nil
	})
}

// waitSafe waits until the Hub says that any one node may stop.
func (s *suite) waitSafe(t *testing.T) {
	t.Helper()
	s.eventually(t, rolloutWithin, "any one node may stop", func(ctx context.Context) error {
		hub, err := s.hub(ctx)
		if err == nil && !hub.Status.SafeToRestart {
			err = fmt.Errorf("status %+v", hub.Status)
		}
		return err
	})
}

// incarnation is other when a pod was replaced, or its process started again.
type incarnation struct {
	pod      types.UID
	restarts int32
}

func (s *suite) incarnations(t *testing.T) map[string]incarnation {
	t.Helper()
	all := map[string]incarnation{}
	for _, pod := range s.hubPods(t) {
		one := incarnation{pod: pod.UID}
		for _, c := range pod.Status.ContainerStatuses {
			one.restarts += c.RestartCount
		}
		all[pod.Name] = one
	}
	return all
}

// checkReplay wants the artifacts with sequences first to last, in this order,
// each with its sequence as payload.
func checkReplay(t *testing.T, who string, got []artifact, first, last uint64) {
	t.Helper()
	var sequences []uint64
	for _, a := range got {
		sequences = append(sequences, a.Sequence)
		if a.Payload != strconv.FormatUint(a.Sequence, 10) {
			t.Errorf("%s: sequence %d says %q", who, a.Sequence, a.Payload)
		}
	}
	var want []uint64
	for n := first; n <= last; n++ {
		want = append(want, n)
	}
	if !slices.Equal(sequences, want) {
		t.Errorf("%s: replayed sequences %v, want %v", who, sequences, want)
	}
}
