package controllers_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/controllers/pki"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

// fakePurger purges hubs without nodes.
type fakePurger struct {
	mu     sync.Mutex // guards the fields below
	fails  map[string]error
	calls  []string
	proofs map[string]*pki.Credentials // by which the operator proved who it was, last
}

// errNoAnswer lets a purge wait until its time is over.
var errNoAnswer = errors.New("no answer")

func (f *fakePurger) PurgeTopics(ctx context.Context, hub controllers.PurgedHub, pattern string) (controllers.Purged, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fails[hub.Identity]; errors.Is(err, errNoAnswer) {
		f.mu.Unlock()
		<-ctx.Done()
		f.mu.Lock()
		return controllers.Purged{}, fmt.Errorf("connect to the hub: %w", ctx.Err())
	} else if err != nil {
		return controllers.Purged{}, err
	}
	call := fmt.Sprintf("%s %s on %d nodes", hub.Identity, pattern, len(hub.Addresses))
	if hub.TLS != nil {
		call += ", which are " + hub.TLS.ServerName
	}
	if hub.Credentials != nil {
		call += ", with a proof"
		if f.proofs == nil {
			f.proofs = map[string]*pki.Credentials{}
		}
		f.proofs[hub.Identity] = hub.Credentials
	}
	f.calls = append(f.calls, call)
	return controllers.Purged{Topics: 2, Artifacts: 30}, nil
}

// fail makes purges on a hub fail, with nil no longer.
func (f *fakePurger) fail(hub string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fails == nil {
		f.fails = map[string]error{}
	}
	f.fails[hub] = err
}

// on returns the purges on a hub so far.
func (f *fakePurger) on(hub string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.calls), func(call string) bool { return !strings.HasPrefix(call, hub+" ") })
}

// proof returns what the operator proved who it was by to a hub.
func (f *fakePurger) proof(hub string) *pki.Credentials {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.proofs[hub]
}

// rawTopic is a Topic as a person writes it.
func rawTopic(t *testing.T, namespace, name, spec string) *unstructured.Unstructured {
	t.Helper()
	topic := &unstructured.Unstructured{Object: map[string]any{}}
	var fields map[string]any
	if err := yaml.Unmarshal([]byte(spec), &fields); err != nil {
		t.Fatalf("the test's YAML: %v", err)
	}
	topic.SetGroupVersionKind(switchboardv1alpha1.GroupVersion.WithKind("Topic"))
	topic.SetNamespace(namespace)
	topic.SetName(name)
	topic.Object["spec"] = fields
	return topic
}

// topicInTest is a Topic in the cluster.
type topicInTest struct {
	*cluster
	key client.ObjectKey
}

// createTopic creates a Topic; an empty namespace is a new one.
func (c *cluster) createTopic(t *testing.T, namespace, name, spec string) *topicInTest {
	t.Helper()
	if namespace == "" {
		namespace = c.namespace(t)
	}
	if err := c.Create(t.Context(), rawTopic(t, namespace, name, spec)); err != nil {
		t.Fatalf("create the Topic: %v", err)
	}
	return &topicInTest{c, client.ObjectKey{Namespace: namespace, Name: name}}
}

func (x *topicInTest) get(t *testing.T) *switchboardv1alpha1.Topic {
	t.Helper()
	topic := &switchboardv1alpha1.Topic{}
	if err := x.Get(t.Context(), x.key, topic); err != nil {
		t.Fatalf("get the Topic: %v", err)
	}
	return topic
}

// waitForCondition waits until the current generation has the condition.
func (x *topicInTest) waitForCondition(t *testing.T, condition string, status metav1.ConditionStatus, reason string) *metav1.Condition {
	t.Helper()
	var got *metav1.Condition
	eventually(t, func() error {
		topic := x.get(t)
		got = meta.FindStatusCondition(topic.Status.Conditions, condition)
		if got == nil || got.Status != status || got.Reason != reason || got.ObservedGeneration != topic.Generation {
			return fmt.Errorf("generation %d, status %+v: want %s=%s for %s", topic.Generation, topic.Status, condition, status, reason)
		}
		return nil
	})
	return got
}

func (x *topicInTest) waitUntilAccepted(t *testing.T) {
	t.Helper()
	x.waitForCondition(t, switchboardv1alpha1.ConditionAccepted, metav1.ConditionTrue, switchboardv1alpha1.ReasonAccepted)
}

// waitUntilRefused waits until the Topic is refused and returns why.
func (x *topicInTest) waitUntilRefused(t *testing.T, reason string) string {
	t.Helper()
	return x.waitForCondition(t, switchboardv1alpha1.ConditionAccepted, metav1.ConditionFalse, reason).Message
}

// age waits until what is made now is younger: creation times are whole seconds.
func (x *topicInTest) age(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		if !time.Now().Truncate(time.Second).After(x.get(t).CreationTimestamp.Time) {
			return errors.New("it is still the same second")
		}
		return nil
	})
}

func (x *topicInTest) change(t *testing.T, mutate func(*switchboardv1alpha1.TopicSpec)) {
	t.Helper()
	topic := x.get(t)
	before := topic.DeepCopy()
	mutate(&topic.Spec)
	if err := x.Patch(t.Context(), topic, client.MergeFrom(before)); err != nil {
		t.Fatalf("change the Topic: %v", err)
	}
}

func (x *topicInTest) delete(t *testing.T) {
	t.Helper()
	if err := x.Delete(t.Context(), x.get(t)); err != nil {
		t.Fatalf("delete the Topic: %v", err)
	}
}

func (x *topicInTest) waitUntilGone(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		topic := &switchboardv1alpha1.Topic{}
		err := x.Get(t.Context(), x.key, topic)
		if err == nil {
			return fmt.Errorf("it is still there: %+v", topic)
		}
		return client.IgnoreNotFound(err)
	})
}

func (x *topicInTest) waitForFinalizer(t *testing.T, want bool) {
	t.Helper()
	eventually(t, func() error {
		if got := x.get(t).Finalizers; slices.Contains(got, controllers.PurgeFinalizer) != want {
			return fmt.Errorf("finalizers %v, want the one for purging: %v", got, want)
		}
		return nil
	})
}

// waitForEvent waits for an event about the Topic and returns its text.
func (x *topicInTest) waitForEvent(t *testing.T, kind, reason string) string {
	t.Helper()
	return x.cluster.waitForEvent(t, "Topic", x.key, kind, reason)
}

// topics returns what the nodes' settings say of topics, as pattern and filter.
func (h *hubInTest) topics(t *testing.T) []string {
	t.Helper()
	settings := &corev1.ConfigMap{}
	h.read(t, settings, "agents-config")
	parsed, err := config.Parse([]byte(settings.Data["hubnode.yaml"]))
	if err != nil {
		t.Fatalf("a node refuses the settings: %v", err)
	}
	found := []string{}
	for _, topic := range parsed.Topics {
		found = append(found, strings.TrimSpace(topic.Pattern+" "+topic.Filter))
	}
	return found
}

func (h *hubInTest) waitForTopics(t *testing.T, want ...string) {
	t.Helper()
	if want == nil {
		want = []string{}
	}
	eventually(t, func() error {
		if diff := cmp.Diff(want, h.topics(t)); diff != "" {
			return fmt.Errorf("topics in the settings (-want +got):\n%s", diff)
		}
		return nil
	})
}

// identity is how the hub's nodes name it.
func (h *hubInTest) identity(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("%s/%s/%s", h.key.Namespace, h.key.Name, h.get(t).UID)
}

// ref is a spec that refers to the Hub.
func (h *hubInTest) ref(rest string) string {
	return fmt.Sprintf("{hubRef: {name: %s, namespace: %s}%s}", h.key.Name, h.key.Namespace, rest)
}

func TestTopicReachesTheNodes(t *testing.T) {
	h := createHub(t, useCluster(t), "{replicas: 2, topics: [{pattern: own}]}")
	pods := h.settle(t)
	x := h.createTopic(t, h.key.Namespace, "orders", "{hubRef: {name: agents}, pattern: orders.>, filter: 'true', history: {maxArtifacts: 10}}")
	x.waitUntilAccepted(t)
	h.waitForTopics(t, "own", "orders.> true")
	if got := x.get(t).Status.Pattern; got != "orders.>" {
		t.Errorf("status.pattern %q, want orders.>", got)
	}
	x.waitForCondition(t, switchboardv1alpha1.ConditionApplied, metav1.ConditionFalse, switchboardv1alpha1.ReasonApplying)

	h.reload(t, pods[0])
	h.poke(t, pods[0])
	if c := meta.FindStatusCondition(x.get(t).Status.Conditions, switchboardv1alpha1.ConditionApplied); c.Status != metav1.ConditionFalse {
		t.Errorf("%+v while one of two nodes has the settings", c)
	}
	h.reload(t, pods...)
	x.waitForCondition(t, switchboardv1alpha1.ConditionApplied, metav1.ConditionTrue, switchboardv1alpha1.ReasonApplied)
	h.waitForCondition(t, switchboardv1alpha1.ConditionTopicsAccepted, metav1.ConditionTrue, switchboardv1alpha1.ReasonAllAccepted)
	x.waitForEvent(t, corev1.EventTypeNormal, switchboardv1alpha1.ReasonAccepted)
	x.waitForEvent(t, corev1.EventTypeNormal, switchboardv1alpha1.ReasonApplied)
	for _, pod := range pods {
		current := &corev1.Pod{}
		h.read(t, current, pod.Name)
		if current.UID != pod.UID {
			t.Errorf("pod %s was replaced", pod.Name)
		}
	}

	// A change of it has to reach the nodes anew, one of another Topic not.
	x.change(t, func(s *switchboardv1alpha1.TopicSpec) { s.Filter = "artifact.size > 1" })
	h.waitForTopics(t, "own", "orders.> artifact.size > 1")
	x.waitForCondition(t, switchboardv1alpha1.ConditionApplied, metav1.ConditionFalse, switchboardv1alpha1.ReasonApplying)
	h.reload(t, pods...)
	x.waitForCondition(t, switchboardv1alpha1.ConditionApplied, metav1.ConditionTrue, switchboardv1alpha1.ReasonApplied)
	before := x.get(t).ResourceVersion
	other := h.createTopic(t, h.key.Namespace, "bills", "{hubRef: {name: agents}}")
	h.waitForTopics(t, "own", "orders.> artifact.size > 1", "bills")
	other.waitForCondition(t, switchboardv1alpha1.ConditionApplied, metav1.ConditionFalse, switchboardv1alpha1.ReasonApplying)
	if after := x.get(t).ResourceVersion; after != before {
		t.Error("a Topic was written because of another one")
	}

	x.delete(t)
	x.waitUntilGone(t)
	h.waitForTopics(t, "own", "bills")
	other.delete(t)
	h.waitForTopics(t, "own")
	eventually(t, func() error {
		if c := meta.FindStatusCondition(h.get(t).Status.Conditions, switchboardv1alpha1.ConditionTopicsAccepted); c != nil {
			return fmt.Errorf("%+v without Topics", c)
		}
		return nil
	})
}

func TestHubChoosesTheNamespacesOfItsTopics(t *testing.T) {
	h := createHub(t, useCluster(t), "")
	x := h.createTopic(t, "", "orders", h.ref(""))
	if why := x.waitUntilRefused(t, switchboardv1alpha1.ReasonNamespaceNotAllowed); !strings.Contains(why, "spec.allowedTopicNamespaces") {
		t.Errorf("message %q does not say what to do", why)
	}
	x.waitForEvent(t, corev1.EventTypeWarning, switchboardv1alpha1.ReasonNamespaceNotAllowed)
	h.waitForCondition(t, switchboardv1alpha1.ConditionTopicsAccepted, metav1.ConditionFalse, switchboardv1alpha1.ReasonSomeRefused)
	h.waitForTopics(t)

	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.AllowedTopicNamespaces = []string{x.key.Namespace} })
	x.waitUntilAccepted(t)
	h.waitForTopics(t, "orders")

	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.AllowedTopicNamespaces = nil })
	x.waitUntilRefused(t, switchboardv1alpha1.ReasonNamespaceNotAllowed)
	h.waitForTopics(t)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.AllowedTopicNamespaces = []string{"*"} })
	h.waitForTopics(t, "orders")
}

func TestOlderTopicWins(t *testing.T) {
	h := createHub(t, useCluster(t), "{allowedTopicNamespaces: ['*']}")
	older := h.createTopic(t, "", "z", h.ref(", pattern: orders.>"))
	older.waitUntilAccepted(t)
	older.age(t)
	younger := h.createTopic(t, "", "a", h.ref(", pattern: orders.*"))
	if why := younger.waitUntilRefused(t, switchboardv1alpha1.ReasonConflict); !strings.Contains(why, older.key.String()) {
		t.Errorf("message %q does not name %s", why, older.key)
	}
	younger.waitForEvent(t, corev1.EventTypeWarning, switchboardv1alpha1.ReasonConflict)
	won := older.waitForCondition(t, switchboardv1alpha1.ConditionConflicted, metav1.ConditionTrue, switchboardv1alpha1.ReasonTopicsRefused)
	if !strings.Contains(won.Message, younger.key.String()) {
		t.Errorf("message %q does not name %s", won.Message, younger.key)
	}
	told := h.waitForCondition(t, switchboardv1alpha1.ConditionTopicsAccepted, metav1.ConditionFalse, switchboardv1alpha1.ReasonSomeRefused)
	if !strings.Contains(told.Message, younger.key.String()) {
		t.Errorf("message %q does not name %s", told.Message, younger.key)
	}
	h.waitForTopics(t, "orders.>")

	older.delete(t)
	younger.waitUntilAccepted(t)
	h.waitForTopics(t, "orders.*")
}

func TestHubsOwnTopicsWin(t *testing.T) {
	h := createHub(t, useCluster(t), "")
	x := h.createTopic(t, h.key.Namespace, "orders.new", "{hubRef: {name: agents}}")
	x.waitUntilAccepted(t)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) {
		s.Topics = []switchboardv1alpha1.HubTopicSpec{{Pattern: "orders.>"}}
	})
	if why := x.waitUntilRefused(t, switchboardv1alpha1.ReasonConflict); !strings.Contains(why, "spec.topics[0]") {
		t.Errorf("message %q does not name the entry", why)
	}
	h.waitForTopics(t, "orders.>")
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Topics = nil })
	x.waitUntilAccepted(t)
	h.waitForTopics(t, "orders.new")
}

func TestWrongFilterOfATopicHarmsNoOther(t *testing.T) {
	h := createHub(t, useCluster(t), "")
	x := h.createTopic(t, h.key.Namespace, "a", "{hubRef: {name: agents}, filter: artifact.size < 9}")
	x.waitUntilAccepted(t)
	wrong := h.createTopic(t, h.key.Namespace, "b", "{hubRef: {name: agents}, filter: artifact.sise < 9}")
	if why := wrong.waitUntilRefused(t, switchboardv1alpha1.ReasonInvalidFilter); !strings.Contains(why, "spec.filter: ") || !strings.Contains(why, "undefined field 'sise'") {
		t.Errorf("message %q does not have the compiler's words", why)
	}
	h.createTopic(t, h.key.Namespace, "c", "{hubRef: {name: agents}}").waitUntilAccepted(t)
	h.waitForTopics(t, "a artifact.size < 9", "c")

	// What was good stays until it is followed by something good.
	x.change(t, func(s *switchboardv1alpha1.TopicSpec) { s.Filter = "nonsense" })
	if why := x.waitUntilRefused(t, switchboardv1alpha1.ReasonInvalidFilter); !strings.Contains(why, "last good settings") {
		t.Errorf("message %q does not say what goes on", why)
	}
	wrong.change(t, func(s *switchboardv1alpha1.TopicSpec) { s.Filter = "true" })
	wrong.waitUntilAccepted(t)
	h.waitForTopics(t, "a artifact.size < 9", "b true", "c")
	x.change(t, func(s *switchboardv1alpha1.TopicSpec) { s.Filter = "" })
	x.waitUntilAccepted(t)
	h.waitForTopics(t, "a", "b true", "c")
}

func TestTopicWaitsForItsHub(t *testing.T) {
	c := useCluster(t)
	ns := c.namespace(t)
	x := c.createTopic(t, ns, "orders", "{hubRef: {name: agents}}")
	if why := x.waitUntilRefused(t, switchboardv1alpha1.ReasonHubNotFound); !strings.Contains(why, "there is no Hub agents") {
		t.Errorf("message %q", why)
	}
	x.waitForCondition(t, switchboardv1alpha1.ConditionReconciling, metav1.ConditionTrue, switchboardv1alpha1.ReasonHubNotFound)
	if err := c.Create(t.Context(), rawHub(t, ns, "agents", "")); err != nil {
		t.Fatal(err)
	}
	x.waitUntilAccepted(t)
	h := &hubInTest{cluster: c, key: client.ObjectKey{Namespace: ns, Name: "agents"}}
	if err := c.Delete(t.Context(), h.get(t)); err != nil {
		t.Fatal(err)
	}
	x.waitUntilRefused(t, switchboardv1alpha1.ReasonHubNotFound)
}

func TestPurge(t *testing.T) {
	h := createHub(t, useCluster(t), "{replicas: 2, allowedTopicNamespaces: ['*']}")
	h.settle(t)
	kept := h.createTopic(t, h.key.Namespace, "kept", h.ref(""))
	x := h.createTopic(t, "", "orders", h.ref(", pattern: orders.>, deletionPolicy: Purge"))
	x.age(t)
	other := h.createTopic(t, "", "orders", h.ref(", pattern: orders.new, deletionPolicy: Purge"))
	x.waitForFinalizer(t, true)
	other.waitForFinalizer(t, true)
	kept.waitUntilAccepted(t)
	x.waitUntilAccepted(t)
	other.waitUntilRefused(t, switchboardv1alpha1.ReasonConflict)
	if got := kept.get(t).Finalizers; len(got) > 0 {
		t.Errorf("finalizers %v of a Topic that asks for no purge", got)
	}

	t.Run("not what is another one's", func(t *testing.T) {
		other.delete(t)
		other.waitUntilGone(t)
		if why := other.waitForEvent(t, corev1.EventTypeWarning, switchboardv1alpha1.ReasonNotPurged); !strings.Contains(why, x.key.String()) {
			t.Errorf("event %q does not name %s", why, x.key)
		}
		if got := h.purger.on(h.identity(t)); len(got) > 0 {
			t.Errorf("purged %q for a Topic that was refused", got)
		}
	})
	t.Run("when the nodes can do it", func(t *testing.T) {
		h.purger.fail(h.identity(t), errors.New("out of order"))
		x.delete(t)
		waiting := x.waitForCondition(t, switchboardv1alpha1.ConditionPurged, metav1.ConditionFalse, switchboardv1alpha1.ReasonPurgeFailed)
		text := x.waitForEvent(t, corev1.EventTypeWarning, switchboardv1alpha1.ReasonPurgeFailed)
		for _, said := range []string{waiting.Message, text} {
			if !strings.Contains(said, "out of order") || !strings.Contains(said, "set spec.deletionPolicy to Retain") {
				t.Errorf("%q does not say what is wrong and what to do", said)
			}
		}
		if got := h.topics(t); !slices.Contains(got, "orders.>") {
			t.Errorf("the settings %q lack a Topic that is not gone yet", got)
		}
		h.purger.fail(h.identity(t), nil)
		x.waitUntilGone(t)
		if got, want := h.purger.on(h.identity(t)), []string{h.identity(t) + " orders.> on 2 nodes"}; !slices.Equal(got, want) {
			t.Errorf("purged %q, want %q", got, want)
		}
		x.waitForEvent(t, corev1.EventTypeNormal, switchboardv1alpha1.ReasonPurged)
		h.waitForTopics(t, "kept")
	})
	t.Run("until somebody gives up", func(t *testing.T) {
		x := h.createTopic(t, "", "orders", h.ref(", deletionPolicy: Purge"))
		x.waitForFinalizer(t, true)
		h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Paused = true })
		// Before the operator has seen that, it would purge.
		h.waitForCondition(t, switchboardv1alpha1.ConditionProgressing, metav1.ConditionFalse, switchboardv1alpha1.ReasonPaused)
		x.delete(t)
		x.waitForCondition(t, switchboardv1alpha1.ConditionPurged, metav1.ConditionFalse, switchboardv1alpha1.ReasonHubPaused)
		x.change(t, func(s *switchboardv1alpha1.TopicSpec) { s.DeletionPolicy = switchboardv1alpha1.TopicRetain })
		x.waitUntilGone(t)
		h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Paused = false })
	})
	t.Run("not when it is taken back", func(t *testing.T) {
		x := h.createTopic(t, "", "orders", h.ref(", deletionPolicy: Purge"))
		x.waitForFinalizer(t, true)
		x.change(t, func(s *switchboardv1alpha1.TopicSpec) { s.DeletionPolicy = switchboardv1alpha1.TopicRetain })
		x.waitForFinalizer(t, false)
	})
	if got := h.purger.on(h.identity(t)); len(got) != 1 {
		t.Errorf("purged %q, want nothing more", got)
	}
}

func TestPurgeConnectsAsTheHubAsks(t *testing.T) {
	for clients, over := range map[string]string{"Optional": "", "Required": ", which are agents.NS.svc"} {
		t.Run(clients, func(t *testing.T) {
			h, _ := secureHub(t, "{clients: "+clients+"}")
			x := h.createTopic(t, h.key.Namespace, "orders", "{hubRef: {name: agents}, deletionPolicy: Purge}")
			x.waitForFinalizer(t, true)
			x.waitUntilAccepted(t)
			x.delete(t)
			x.waitUntilGone(t)
			want := h.identity(t) + " orders on 2 nodes" + strings.ReplaceAll(over, "NS", h.key.Namespace)
			if got := h.purger.on(h.identity(t)); !slices.Equal(got, []string{want}) {
				t.Errorf("purged %q, want %q", got, want)
			}
		})
	}
}

func TestPurgeWaitsForNodesThatAnswer(t *testing.T) {
	h := createHub(t, useCluster(t), "{replicas: 1}") // without pods
	x := h.createTopic(t, h.key.Namespace, "orders", "{hubRef: {name: agents}, deletionPolicy: Purge}")
	x.waitForFinalizer(t, true)
	x.delete(t)
	waiting := x.waitForCondition(t, switchboardv1alpha1.ConditionPurged, metav1.ConditionFalse, switchboardv1alpha1.ReasonPurgeFailed)
	if !strings.Contains(waiting.Message, "no node of Hub") {
		t.Errorf("message %q", waiting.Message)
	}
	pods := h.settle(t)
	x.waitUntilGone(t)
	if got := h.purger.on(h.identity(t)); len(got) != 1 {
		t.Errorf("purged %q, want once", got)
	}

	h.nodes.change(pods[0].Status.PodIP, func(r *controllers.NodeReport) { r.History = controllers.HistoryReport{Shards: 16, Led: 15} })
	x = h.createTopic(t, h.key.Namespace, "orders", "{hubRef: {name: agents}, deletionPolicy: Purge}")
	x.waitForFinalizer(t, true)
	x.delete(t)
	waiting = x.waitForCondition(t, switchboardv1alpha1.ConditionPurged, metav1.ConditionFalse, switchboardv1alpha1.ReasonPurgeFailed)
	if !strings.Contains(waiting.Message, "1 of the hub's 16 shards have no leader") {
		t.Errorf("message %q", waiting.Message)
	}
}

func TestPurgeNeverWaitsForAHubThatIsNoMore(t *testing.T) {
	c := useCluster(t)
	for name, test := range map[string]struct {
		hub string // none: there is no hub
		end func(*testing.T, *hubInTest)
	}{
		"there was none":       {},
		"it is scaled to zero": {hub: "{replicas: 0, allowedTopicNamespaces: ['*']}"},
		"it is deleted": {hub: "{allowedTopicNamespaces: ['*']}", end: func(t *testing.T, h *hubInTest) {
			t.Helper()
			if err := h.Delete(t.Context(), h.get(t)); err != nil {
				t.Fatal(err)
			}
		}},
		"it allows the namespace no longer": {hub: "{allowedTopicNamespaces: ['*']}", end: func(t *testing.T, h *hubInTest) {
			t.Helper()
			h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.AllowedTopicNamespaces = nil })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := &hubInTest{cluster: c, key: client.ObjectKey{Namespace: c.namespace(t), Name: "agents"}}
			if test.hub != "" {
				h = createHub(t, c, test.hub)
			}
			x := h.createTopic(t, "", "orders", h.ref(", deletionPolicy: Purge"))
			x.waitForFinalizer(t, true)
			if test.end != nil {
				test.end(t, h)
			}
			x.delete(t)
			x.waitUntilGone(t)
			x.waitForEvent(t, corev1.EventTypeWarning, switchboardv1alpha1.ReasonNotPurged)
		})
	}
}

func TestSettledTopicsAreNotWritten(t *testing.T) {
	h := createHub(t, useCluster(t), "{replicas: 1, allowedTopicNamespaces: ['*']}")
	team := h.namespace(t)
	for i, spec := range []string{"", ", pattern: t0", ", filter: nonsense", ", deletionPolicy: Purge", ", history: {maxBytes: 1024Ki, maxAge: 60m}"} {
		h.createTopic(t, team, fmt.Sprintf("t%d", i), h.ref(spec))
	}
	(&topicInTest{h.cluster, client.ObjectKey{Namespace: team, Name: "t3"}}).waitForFinalizer(t, true)
	h.waitForTopics(t, "t0", "t3", "t4")
	pods := h.settle(t)
	for _, name := range []string{"t0", "t3", "t4"} {
		(&topicInTest{h.cluster, client.ObjectKey{Namespace: team, Name: name}}).waitForCondition(t, switchboardv1alpha1.ConditionApplied, metav1.ConditionTrue, switchboardv1alpha1.ReasonApplied)
	}
	h.poke(t, pods[0])
	h.poke(t, pods[0])
	before := len(h.requests.in(h.key.Namespace)) + len(h.requests.in(team))
	for range 3 {
		h.poke(t, pods[0])
	}
	writes := append(h.requests.in(h.key.Namespace), h.requests.in(team)...)
	if len(writes) != before {
		t.Errorf("writes while all is as it should be: %d, of %q", len(writes)-before, writes)
	}
}

// The operator proves who it is by what nodes have by then, also while another authority
// is on its way to them.
func TestPurgeOfAHubThatAsksWhoItsClientsAre(t *testing.T) {
	h := createHub(t, useCluster(t), "{replicas: 1, authentication: {serviceAccount: {}}}")
	h.settle(t)
	old := h.linkAuthority(t)
	purge := func() *pki.Credentials {
		t.Helper()
		x := h.createTopic(t, h.key.Namespace, "orders", "{hubRef: {name: agents}, deletionPolicy: Purge}")
		x.waitForFinalizer(t, true)
		x.waitUntilAccepted(t)
		x.delete(t)
		x.waitUntilGone(t)
		return h.purger.proof(h.identity(t))
	}
	if proof, nodes := purge(), h.linkCredentials(t); !pki.SameCertificate(proof, nodes) {
		t.Errorf("the operator proves who it is by %v, nodes have %v", proof.Leaf().SerialNumber, nodes.Leaf().SerialNumber)
	}
	h.annotate(t, manifests.RotateAuthority)
	h.waitUntilTaken(t)
	h.waitForLinks(t, anyCredentials, h.linkAuthority(t), old)
	if err := purge().Verify([]*x509.Certificate{old}, time.Now()); err != nil {
		t.Errorf("while nodes may not yet have heard of the new authority, the operator proves who it is by that: %v", err)
	}
	if got, want := h.purger.on(h.identity(t)), h.identity(t)+" orders on 1 nodes, with a proof"; !slices.Equal(got, []string{want, want}) {
		t.Errorf("purged %q, want %q twice", got, want)
	}
}
