//go:build e2e

package e2e

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// podWithin is how long a pod may take from its creation to what it is for.
const podWithin = 90 * time.Second

// agent is a pod that runs hubctl, as an application's pod would use the client.
type agent struct {
	s         *suite
	pod       string
	namespace string // empty: the hub's
}

func (a *agent) key() client.ObjectKey {
	return client.ObjectKey{Namespace: cmp.Or(a.namespace, hubNamespace), Name: a.pod}
}

// artifact is a line that hubctl prints with -o json.
type artifact struct {
	ID       string `json:"id"`
	From     string `json:"from"`
	To       string `json:"to"`
	Topic    string `json:"topic"`
	Sequence uint64 `json:"sequence"`
	Payload  string `json:"payload"`
}

// service is where clients connect: the hub's client Service.
func service() string { return fmt.Sprintf("%s.%s.svc:7400", hubName, hubNamespace) }

// member is the address of one node of the hub, for tests that must not leave to
// chance where a client is connected.
func member(ordinal int) string {
	return fmt.Sprintf("%s-node-%d.%s-nodes.%s.svc:7400", hubName, ordinal, hubName, hubNamespace)
}

// startAgent runs "hubctl ARGS" in a pod on a Kubernetes node of the given
// number, counted round the cluster's nodes, connected to server.
func (s *suite) startAgent(t *testing.T, name string, worker int, server string, args ...string) *agent {
	t.Helper()
	return s.startPod(t, name, worker, s.image, server, append([]string{"/hubctl"}, args...)...)
}

// startPod is startAgent for a command of any image.
func (s *suite) startPod(t *testing.T, name string, worker int, image, server string, command ...string) *agent {
	t.Helper()
	return s.start(t, s.podFor(name, worker, image, server, command...))
}

func (s *suite) start(t *testing.T, pod *corev1.Pod) *agent {
	t.Helper()
	if err := s.client.Create(s.ctx, pod); err != nil {
		t.Fatal(err)
	}
	return &agent{s: s, pod: pod.Name, namespace: pod.Namespace}
}

// podFor is the pod of an agent, not started yet.
func (s *suite) podFor(name string, worker int, image, server string, command ...string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: hubNamespace, Labels: map[string]string{"app": "agent"}},
		Spec: corev1.PodSpec{
			NodeSelector:                 map[string]string{corev1.LabelHostname: s.workers[worker%len(s.workers)]},
			RestartPolicy:                corev1.RestartPolicyNever,
			AutomountServiceAccountToken: new(false),
			// Nothing here needs an orderly end, and the suite waits for it.
			TerminationGracePeriodSeconds: new(int64(1)),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot:   new(true),
				RunAsUser:      new(int64(65532)),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name:            "agent",
				Image:           image,
				ImagePullPolicy: corev1.PullIfNotPresent,
				Command:         command,
				Env:             []corev1.EnvVar{{Name: "SWITCHBOARD_SERVER", Value: server}},
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: new(false),
					ReadOnlyRootFilesystem:   new(true),
					Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
}

// hubctl runs "hubctl ARGS" inside the agent's pod, beside what it is doing, and
// returns what that printed.
func (a *agent) hubctl(args ...string) (string, error) {
	return a.s.run(a.s.kubectl, "", append([]string{"-n", a.key().Namespace, "exec", a.pod, "--", "/hubctl"}, args...)...)
}

func (a *agent) mustHubctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := a.hubctl(args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.TrimSpace(out)
}

// waitServed waits until clients on every Kubernetes node reach the hub through its
// Service. kube-proxy has to hear of the hub's nodes first, on each by itself, and a
// client whose first connection is refused does not try again.
func (s *suite) waitServed(t *testing.T) {
	t.Helper()
	remove := []string{"-n", hubNamespace, "delete", "pod"}
	for i := range s.workers {
		pod := s.podFor(fmt.Sprintf("first-%d", i), i, s.image, service(), "/hubctl", "nodes")
		pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
		s.start(t, pod)
		remove = append(remove, pod.Name)
	}
	for i := range s.workers {
		(&agent{s: s, pod: fmt.Sprintf("first-%d", i)}).waitLogs(t)
	}
	s.mustRun(t, s.kubectl, "", remove...)
}

// waitRunning waits until the pod runs; that it is connected is another matter.
func (a *agent) waitRunning(t *testing.T) {
	t.Helper()
	a.s.eventually(t, podWithin, "agent "+a.pod+" runs", func(ctx context.Context) error {
		return a.phase(ctx, corev1.PodRunning)
	})
}

// waitArtifacts waits until hubctl has ended with status 0 and returns the
// artifacts it printed.
func (a *agent) waitArtifacts(t *testing.T) []artifact {
	t.Helper()
	a.waitLogs(t)
	return a.artifacts(t)
}

// waitLogs waits until hubctl has ended with status 0 and returns what it printed.
func (a *agent) waitLogs(t *testing.T) string {
	t.Helper()
	a.s.eventually(t, podWithin, "agent "+a.pod+" ends by itself", func(ctx context.Context) error {
		return a.phase(ctx, corev1.PodSucceeded)
	})
	return a.logs(t)
}

func (a *agent) logs(t *testing.T) string {
	t.Helper()
	logs, err := a.s.clientset.CoreV1().Pods(a.key().Namespace).GetLogs(a.pod, &corev1.PodLogOptions{}).DoRaw(a.s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	return string(logs)
}

// artifacts returns what hubctl has printed so far.
func (a *agent) artifacts(t *testing.T) []artifact {
	t.Helper()
	var all []artifact
	for lines := bufio.NewScanner(strings.NewReader(a.logs(t))); lines.Scan(); {
		// Notices for people, on standard error, are in the same log.
		if !strings.HasPrefix(lines.Text(), "{") {
			continue
		}
		var one artifact
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			t.Fatalf("agent %s printed %q: %v", a.pod, lines.Text(), err)
		}
		all = append(all, one)
	}
	return all
}

func (a *agent) phase(ctx context.Context, want corev1.PodPhase) error {
	var pod corev1.Pod
	if err := a.s.client.Get(ctx, a.key(), &pod); err != nil {
		return err
	}
	if pod.Status.Phase == want {
		return nil
	}
	for _, c := range pod.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil {
			return fmt.Errorf("it is waiting: %s %s", w.Reason, w.Message)
		}
		if e := c.State.Terminated; e != nil {
			return fmt.Errorf("it ended with status %d", e.ExitCode)
		}
	}
	return fmt.Errorf("it is %s", pod.Status.Phase)
}

// removeAgents removes all agents, so that the next step may use their names.
func (s *suite) removeAgents(t *testing.T) {
	t.Helper()
	s.mustRun(t, s.kubectl, "", "-n", hubNamespace, "delete", "pod", "-l", "app=agent", "--ignore-not-found")
}
