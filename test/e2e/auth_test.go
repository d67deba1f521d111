//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

const (
	// audience is that of the hub by default.
	audience = hubName + "." + hubNamespace + ".switchboard.dev"
	// tokenDir is where clients look for a token by themselves.
	tokenDir = "/var/run/secrets/switchboard.dev"
)

// rulesPatch is what turns authentication on: workers have ids of their namespace, work on
// orders, read what was ordered and see who is there; what else there is, the namespace may grant.
const rulesPatch = `{"spec": {"authentication": {"serviceAccount": {}}, "authorization": {
  "rules": [{"name": "workers", "when": "identity.serviceAccount == 'worker'", "connectAs": ["{namespace}/*"],
    "sendTo": ["{namespace}/*"], "publish": ["orders.>"], "subscribe": ["orders.>"], "history": ["orders.>"], "admin": "View"}],
  "delegations": [{"namespaces": ["` + hubNamespace + `"], "topics": ["{namespace}.>"], "clients": ["{namespace}/*"]}]}}}`

const grantYAML = `
apiVersion: switchboard.dev/v1alpha1
kind: Grant
metadata: {name: guests}
spec:
  hubRef: {name: ` + hubName + `}
  rules:
  - name: guests
    when: identity.serviceAccount == "guest"
    connectAs: ["` + hubNamespace + `/guest"]
    publish: [` + hubNamespace + `.guests]
    subscribe: [` + hubNamespace + `.>]
`

// neighbour is the namespace of another team.
const neighbour = hubNamespace + "-neighbour"

// tenantsPatch makes namespaces tenants, which may do everything in what is theirs.
const tenantsPatch = `{"spec": {"tenancy": "Namespace", "authorization": {"delegations": null,
  "rules": [{"name": "all", "connectAs": ["*"], "sendTo": ["*"], "publish": [">"], "subscribe": [">"], "admin": "View"}]}}}`

// TestAuthentication turns authentication on in a hub that runs. Its clients are pods with
// tokens of their kubelets, and pods with other ones and with none.
func TestAuthentication(t *testing.T) {
	s := newSuite(t)
	s.makeNamespaces(t, []string{"delete", "namespace", neighbour, "--ignore-not-found"})
	s.installChart(t)
	for _, account := range []string{"worker", "guest"} {
		if err := s.client.Create(s.ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account, Namespace: hubNamespace}}); err != nil {
			t.Fatal(err)
		}
	}

	_ = t.Run("a hub of three becomes available", s.hubBecomesAvailable) &&
		t.Run("it asks clients who they are", s.asksWhoTheyAre) &&
		t.Run("it knows who does not belong", s.refusesStrangers) &&
		t.Run("rules allow what they say", s.rulesAllow) &&
		t.Run("a Topic that is deleted takes what it keeps along", s.topicIsPurged) &&
		t.Run("a namespace grants what is delegated to it", s.namespaceGrants) &&
		t.Run("who is no longer allowed is out", s.ruleIsTaken) &&
		t.Run("namespaces become tenants", s.becomeTenants)
}

// withToken gives a pod a token of a ServiceAccount for an audience, where clients look for it.
func withToken(pod *corev1.Pod, account, audience string) *corev1.Pod {
	pod.Spec.ServiceAccountName = account
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "hub-token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
			Audience: audience, ExpirationSeconds: new(int64(600)), Path: "token",
		}}},
	}}})
	c := &pod.Spec.Containers[0]
	c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "hub-token", MountPath: tokenDir, ReadOnly: true})
	return pod
}

// startMember is startAgent for a client with a token for the hub.
func (s *suite) startMember(t *testing.T, name, account string, worker int, args ...string) *agent {
	t.Helper()
	return s.start(t, withToken(s.podFor(name, worker, s.image, service(), append([]string{"/hubctl"}, args...)...), account, audience))
}

func (s *suite) asksWhoTheyAre(t *testing.T) {
	before := s.incarnations(t)
	start := time.Now()
	s.mustRun(t, s.kubectl, "", "-n", hubNamespace, "patch", "hub", hubName, "--type=merge", "-p", rulesPatch)
	for _, condition := range []string{switchboardv1alpha1.ConditionAuthenticationReady, switchboardv1alpha1.ConditionConfigApplied} {
		s.eventually(t, reloadWithin, condition, func(ctx context.Context) error { return s.condition(ctx, condition) })
	}
	t.Logf("all nodes ask clients who they are after %.1fs", time.Since(start).Seconds())
	if after := s.incarnations(t); !maps.Equal(before, after) {
		t.Errorf("pods were restarted: had %v, have %v", before, after)
	}
	hub, err := s.hub(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if hub.Status.Audience != audience {
		t.Errorf("the Hub says that tokens are for %q, want %q", hub.Status.Audience, audience)
	}
}

func (s *suite) refusesStrangers(t *testing.T) {
	defer s.removeAgents(t)
	id := hubNamespace + "/stranger"
	listen := func(name, as string) *corev1.Pod {
		return s.podFor(name, 0, s.image, service(), "/hubctl", "listen", "--id", as)
	}
	for _, one := range []struct {
		pod  *corev1.Pod
		says string
	}{
		{listen("no-token", id), "a token is needed"},
		{withToken(listen("wrong-audience", id), "worker", "https://kubernetes.default.svc"), "audience"},
		{withToken(listen("other-namespace", "kube-system/worker"), "worker", audience), `is not allowed to connect as "kube-system/worker"`},
		{withToken(listen("other-account", id), "guest", audience), "is not allowed to connect as"},
	} {
		refused := s.start(t, one.pod)
		s.eventually(t, podWithin, one.pod.Name+" is refused", func(ctx context.Context) error { return refused.phase(ctx, corev1.PodFailed) })
		if said := refused.logs(t); !strings.Contains(said, one.says) {
			t.Errorf("%s is told:\n%s\nwant %q", one.pod.Name, said, one.says)
		}
	}
}

func (s *suite) rulesAllow(t *testing.T) {
	first := s.startMember(t, "first", "worker", 0, "listen", "--id", hubNamespace+"/first", "-o", "json")
	second := s.startMember(t, "second", "worker", 1, "listen", "--id", hubNamespace+"/second", "-o", "json")
	first.waitRunning(t)
	second.waitRunning(t)
	as := func(id string) string { return hubNamespace + "/" + id }
	s.eventually(t, podWithin, "both are connected", func(context.Context) error {
		out, err := first.hubctl("clients", "--id", as("asker"))
		if err != nil {
			return err
		}
		for _, id := range []string{as("first"), as("second")} {
			if !strings.Contains(out, id) {
				return fmt.Errorf("the hub has these clients:\n%s", out)
			}
		}
		return nil
	})
	first.mustHubctl(t, "send", as("second"), "hello", "--id", as("asker"))
	second.waitHeard(t, "hello")
	first.mustHubctl(t, "pub", "orders.new", "x", "--id", as("asker"))
	for _, refused := range [][]string{{"pub", "news", "x"}, {"send", "kube-system/x", "x"}, {"topics", "purge", "orders.new"}} {
		out, err := first.hubctl(append(refused, "--id", as("asker"))...)
		if err == nil || !strings.Contains(err.Error()+out, "ask for a rule with") {
			t.Errorf("hubctl %v: %v\n%s", refused, err, out)
		}
	}
}

const keptYAML = `
apiVersion: switchboard.dev/v1alpha1
kind: Topic
metadata: {name: kept}
spec:
  hubRef: {name: ` + hubName + `}
  pattern: orders.kept.>
  history: {maxArtifacts: 10}
  deletionPolicy: Purge
`

// topicIsPurged deletes a Topic: the operator, which proves who it is by the key of the nodes'
// links, takes away what matches it. All topics keep something by the Hub's own settings, so
// that nothing goes because it is no longer wanted.
func (s *suite) topicIsPurged(t *testing.T) {
	s.mustRun(t, s.kubectl, "", "-n", hubNamespace, "patch", "hub", hubName, "--type=merge", "-p", `{"spec": {"history": {"maxArtifacts": 10}}}`)
	s.mustRun(t, s.kubectl, keptYAML, "-n", hubNamespace, "create", "-f", "-")
	s.mustRun(t, s.kubectl, "", "-n", hubNamespace, "wait", "--for=condition=Applied", "topic/kept", fmt.Sprintf("--timeout=%ds", int(reloadWithin.Seconds())))
	for _, condition := range []string{switchboardv1alpha1.ConditionConfigApplied, switchboardv1alpha1.ConditionLinksEncrypted} {
		s.eventually(t, reloadWithin, condition, func(ctx context.Context) error { return s.condition(ctx, condition) })
	}

	worker := &agent{s: s, pod: "first"}
	publish := func(topic, sequence string) {
		t.Helper()
		if out := worker.mustHubctl(t, "pub", topic, sequence, "--id", hubNamespace+"/asker"); out != sequence {
			t.Fatalf("pub %s: got %q, want sequence %s", topic, out, sequence)
		}
	}
	read := func(name, topic string, first, last uint64) {
		t.Helper()
		reader := s.startMember(t, name, "worker", 1, "sub", topic, "--since", "all", "--count", fmt.Sprint(last-first+1), "--id", hubNamespace+"/"+name, "-o", "json")
		checkReplay(t, name, reader.waitArtifacts(t), first, last)
	}
	for _, sequence := range []string{"1", "2", "3"} {
		publish("orders.kept.a", sequence)
		publish("orders.other", sequence)
	}
	read("before", "orders.kept.a", 1, 3)

	start := time.Now()
	s.mustRun(t, s.kubectl, "", "-n", hubNamespace, "delete", "topic", "kept", "--wait=false")
	s.eventually(t, reloadWithin, "the Topic is gone", func(ctx context.Context) error {
		var topic switchboardv1alpha1.Topic
		err := s.client.Get(ctx, client.ObjectKey{Namespace: hubNamespace, Name: "kept"}, &topic)
		if err == nil {
			return fmt.Errorf("conditions %+v", topic.Status.Conditions)
		}
		return client.IgnoreNotFound(err)
	})
	t.Logf("a Topic whose deletion purges is gone after %.1fs", time.Since(start).Seconds())

	s.eventually(t, heardWithin, "no replica keeps any", func(context.Context) error { // a majority does at once
		out, err := worker.hubctl("topics", "describe", "orders.kept.a", "--id", hubNamespace+"/asker", "-o", "json")
		if err != nil {
			return err
		}
		var described struct {
			Replicas []struct {
				Artifacts *int `json:"artifacts"`
			} `json:"replicas"`
		}
		if err := json.Unmarshal([]byte(out), &described); err != nil {
			return err
		}
		empty := 0
		for _, r := range described.Replicas {
			if r.Artifacts != nil && *r.Artifacts == 0 {
				empty++
			}
		}
		if empty != 3 {
			return fmt.Errorf("%d of three replicas are empty: %s", empty, out)
		}
		return nil
	})
	publish("orders.kept.a", "4")
	read("after", "orders.kept.a", 4, 4)
	read("other", "orders.other", 1, 3)
}

func (s *suite) namespaceGrants(t *testing.T) {
	start := time.Now()
	s.mustRun(t, s.kubectl, grantYAML, "-n", hubNamespace, "create", "-f", "-")
	s.mustRun(t, s.kubectl, "", "-n", hubNamespace, "wait", "--for=condition=Applied", "grant/guests", fmt.Sprintf("--timeout=%ds", int(reloadWithin.Seconds())))
	t.Logf("a Grant is in force on all nodes after %.1fs", time.Since(start).Seconds())
	guest := s.startMember(t, "guest", "guest", 2, "sub", hubNamespace+".>", "--id", hubNamespace+"/guest", "-o", "json")
	guest.waitRunning(t)
	s.waitConnectedAs(t, "first", hubNamespace+"/asker", hubNamespace+"/guest")
	greedy := strings.Replace(strings.Replace(grantYAML, "guests}", "greedy}", 1), "publish: ["+hubNamespace+".guests]", "publish: [orders.new]", 1)
	s.mustRun(t, s.kubectl, greedy, "-n", hubNamespace, "create", "-f", "-")
	s.mustRun(t, s.kubectl, "", "-n", hubNamespace, "wait", "--for=condition=Accepted=False", "grant/greedy", fmt.Sprintf("--timeout=%ds", int(reloadWithin.Seconds())))
}

// waitConnectedAs is waitConnected for an asker that has to prove who it is.
func (s *suite) waitConnectedAs(t *testing.T, pod, as, id string) {
	t.Helper()
	asker := &agent{s: s, pod: pod}
	s.eventually(t, podWithin, "client "+id+" is connected", func(context.Context) error {
		out, err := asker.hubctl("clients", "--id", as)
		if err != nil {
			return err
		}
		if !strings.Contains(out, id) {
			return fmt.Errorf("the hub has these clients:\n%s", out)
		}
		return nil
	})
}

// ruleIsTaken deletes a Grant: who was let in by it is disconnected, and not let in again.
func (s *suite) ruleIsTaken(t *testing.T) {
	defer s.removeAgents(t)
	start := time.Now()
	s.mustRun(t, s.kubectl, "", "-n", hubNamespace, "delete", "grant", "guests", "greedy")
	asker := &agent{s: s, pod: "first"}
	s.eventually(t, reloadWithin, "the guest is out", func(context.Context) error {
		out, err := asker.hubctl("clients", "--id", hubNamespace+"/asker")
		if err != nil {
			return err
		}
		if strings.Contains(out, hubNamespace+"/guest") {
			return fmt.Errorf("the hub has these clients:\n%s", out)
		}
		return nil
	})
	t.Logf("whom the deleted Grant let in is out after %.1fs", time.Since(start).Seconds())
	second := &agent{s: s, pod: "second"}
	asker.mustHubctl(t, "send", hubNamespace+"/second", "still there", "--id", hubNamespace+"/asker")
	second.waitHeard(t, "still there")
}

// becomeTenants turns tenancy on: two namespaces use the same names, and hear nothing of each
// other.
func (s *suite) becomeTenants(t *testing.T) {
	for _, object := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: neighbour, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "worker", Namespace: neighbour}},
	} {
		if err := s.client.Create(s.ctx, object); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	s.mustRun(t, s.kubectl, "", "-n", hubNamespace, "patch", "hub", hubName, "--type=merge", "-p", tenantsPatch)
	s.eventually(t, reloadWithin, "all nodes run it", func(ctx context.Context) error { return s.condition(ctx, switchboardv1alpha1.ConditionConfigApplied) })
	t.Logf("namespaces have names of their own after %.1fs", time.Since(start).Seconds())

	var workers []*agent
	for i, namespace := range []string{hubNamespace, neighbour} {
		pod := withToken(s.podFor("tenant", i, s.image, service(), "/hubctl", "listen", "--id", "worker", "-o", "json"), "worker", audience)
		pod.Namespace = namespace
		workers = append(workers, s.start(t, pod))
	}
	for _, w := range workers {
		w.waitRunning(t)
		s.eventually(t, podWithin, "the worker of "+w.namespace+" is reached", func(context.Context) error {
			_, err := w.hubctl("send", "worker", "for "+w.namespace, "--id", "asker")
			return err
		})
		w.waitHeard(t, "for "+w.namespace)
	}
	for i, w := range workers {
		if all := w.artifacts(t); len(all) != 1 || all[0].From != "asker" || all[0].To != "worker" {
			t.Errorf("the worker of %s got %+v, want its own artifact alone, by its own names", w.namespace, all)
		}
		for said, refused := range map[string][]string{
			"no client":         {"send", "/" + workers[1-i].namespace + "/worker", "x"},
			"is not allowed to": {"clients"},
		} {
			if out, err := w.hubctl(append(refused, "--id", "asker")...); err == nil || !strings.Contains(err.Error()+out, said) {
				t.Errorf("%s: hubctl %v: %v\n%s", w.namespace, refused, err, out)
			}
		}
	}
}
