package controllers_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers"
)

// A watch that says nothing any more lets the operator wait for what it has written
// itself. It gives up, says so where people look, and goes on when the watch does.
func TestReconciliationThatWaitsForEverRunsOutOfTime(t *testing.T) {
	c := useCluster(t)
	c.limitReconciliations(t, 3*time.Second)
	said := c.log.listen(t)
	h := createHub(t, c, "replicas: 1")
	h.settle(t)
	before := reconcileTimeouts(t, "hub")

	c.watches.hold(t, "/statefulsets")
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Image = "switchboard:2" })
	const waitedFor = "ran out of time: read the StatefulSet: failed to wait for cache to catch up"
	got := h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionTrue, switchboardv1alpha1.ReasonApplyFailed)
	if !strings.Contains(got.Message, waitedFor) {
		t.Errorf("message %q, want it to say %q", got.Message, waitedFor)
	}
	if got := reconcileTimeouts(t, "hub"); got <= before {
		t.Errorf("%v reconciliations are counted to have run out of time, %v before", got, before)
	}
	eventually(t, func() error {
		if n := bytes.Count(h.errorsIn(said()), []byte(waitedFor)); n < 2 {
			return fmt.Errorf("%d lines say what was waited for, want one of the first try and one of the next:\n%s", n, h.errorsIn(said()))
		}
		return nil
	})
	// What it could not see it does not make up.
	status := h.get(t).Status
	if progressing := meta.FindStatusCondition(status.Conditions, switchboardv1alpha1.ConditionProgressing); progressing.Reason == switchboardv1alpha1.ReasonComplete && progressing.ObservedGeneration == h.get(t).Generation {
		t.Errorf("it says that the rollout is complete: %+v", progressing)
	}
	if !meta.IsStatusConditionTrue(status.Conditions, switchboardv1alpha1.ConditionAvailable) || status.Replicas != 1 || status.ReadyReplicas != 1 {
		t.Errorf("the node that runs is told to be gone: %+v", status)
	}

	c.watches.release()
	h.settle(t)
	h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionFalse, switchboardv1alpha1.ReasonAsExpected)
}

// That the operator stops is no mistake of anybody's, also while it waits.
func TestStoppedWhileItWaits(t *testing.T) {
	c := useCluster(t)
	h := createHub(t, c, "replicas: 1")
	h.settle(t)
	said := c.log.listen(t)
	c.watches.hold(t, "/statefulsets")
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Image = "switchboard:2" })
	h.waitFor(t, &appsv1.StatefulSet{}, "agents-node", func() error {
		if !bytes.Contains(said(), []byte(`"kind":"StatefulSet"`)) {
			return fmt.Errorf("it has not applied the StatefulSet")
		}
		return nil
	})
	was := h.get(t).Status
	if err := c.halt(); err != nil {
		t.Fatal(err)
	}
	c.watches.release() // or the next one reads nothing
	if err := c.startOperator(); err != nil {
		t.Fatal(err)
	}
	if lines := h.errorsIn(said()); len(lines) > 0 {
		t.Errorf("it reports:\n%s", lines)
	}
	if degraded := meta.FindStatusCondition(was.Conditions, switchboardv1alpha1.ConditionDegraded); degraded.Status == metav1.ConditionTrue {
		t.Errorf("it says %+v", degraded)
	}
	h.settle(t)
}

// Likewise in the very first thing that a reconciliation reads.
func TestStoppedWhileItReadsTheHub(t *testing.T) {
	c := useCluster(t)
	said := c.log.listen(t)
	h := createHub(t, c, "replicas: 1")
	x := h.createTopic(t, h.key.Namespace, "orders", "{hubRef: {name: agents}, deletionPolicy: Purge}")
	x.waitForFinalizer(t, true)
	h.holdHub(t)
	x.delete(t)
	eventually(t, func() error {
		if controllerMetric(t, "controller_runtime_active_workers", "hub") == 0 || controllerMetric(t, "controller_runtime_active_workers", "topic") == 0 {
			return errors.New("the operator reconciles nothing")
		}
		return nil
	})
	if err := c.halt(); err != nil {
		t.Fatal(err)
	}
	c.watches.release()
	if err := c.startOperator(); err != nil {
		t.Fatal(err)
	}
	if lines := h.errorsIn(said()); len(lines) > 0 {
		t.Errorf("it reports:\n%s", lines)
	}
	x.waitUntilGone(t)
}

// A purge that can't find out where to purge says so, too.
func TestPurgeThatWaitsForItsHubRunsOutOfTime(t *testing.T) {
	c := useCluster(t)
	c.limitReconciliations(t, 3*time.Second)
	h := createHub(t, c, "replicas: 1")
	x := h.createTopic(t, h.key.Namespace, "orders", "{hubRef: {name: agents}, deletionPolicy: Purge}")
	x.waitForFinalizer(t, true)
	h.holdHub(t)
	x.delete(t)
	waiting := x.waitForCondition(t, switchboardv1alpha1.ConditionPurged, metav1.ConditionFalse, switchboardv1alpha1.ReasonPurgeFailed)
	const waitedFor = "can't be deleted yet: ran out of time: read the Hub: failed to wait for cache to catch up"
	if !strings.Contains(waiting.Message, waitedFor) {
		t.Errorf("message %q, want it to say %q", waiting.Message, waitedFor)
	}
	c.watches.release()
	x.waitUntilGone(t)
}

// holdHub lets the operator wait for what it has written of the Hub, until the watches are
// released.
func (h *hubInTest) holdHub(t *testing.T) {
	t.Helper()
	pod := h.settle(t)[0]
	h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionFalse, switchboardv1alpha1.ReasonAsExpected)
	h.watches.hold(t, "/hubs")
	h.nodes.change(pod.Status.PodIP, func(r *controllers.NodeReport) { r.Clients = 7 })
	h.poke(t, pod)
	eventually(t, func() error {
		if got := h.get(t).Status.Clients; got != 7 {
			return fmt.Errorf("the operator tells of %d clients", got)
		}
		return nil
	})
}

// A purge that gets no answer is given up, says so, and is tried again.
func TestPurgeThatWaitsForEverRunsOutOfTime(t *testing.T) {
	c := useCluster(t)
	c.limitReconciliations(t, 3*time.Second)
	said := c.log.listen(t)
	h := createHub(t, c, "replicas: 1")
	h.settle(t)
	x := h.createTopic(t, h.key.Namespace, "orders", "{hubRef: {name: agents}, deletionPolicy: Purge}")
	x.waitForFinalizer(t, true)
	x.waitUntilAccepted(t)
	before := reconcileTimeouts(t, "topic")
	h.purger.fail(h.identity(t), errNoAnswer)
	x.delete(t)
	const waitedFor = "ran out of time: connect to the hub: context deadline exceeded"
	waiting := x.waitForCondition(t, switchboardv1alpha1.ConditionPurged, metav1.ConditionFalse, switchboardv1alpha1.ReasonPurgeFailed)
	if !strings.Contains(waiting.Message, waitedFor) {
		t.Errorf("message %q, want it to say %q", waiting.Message, waitedFor)
	}
	eventually(t, func() error {
		if !bytes.Contains(h.errorsIn(said()), []byte(waitedFor)) {
			return fmt.Errorf("no error says what was waited for:\n%s", h.errorsIn(said()))
		}
		return nil
	})
	if got := reconcileTimeouts(t, "topic"); got <= before {
		t.Errorf("%v reconciliations are counted to have run out of time, %v before", got, before)
	}
	h.purger.fail(h.identity(t), nil)
	x.waitUntilGone(t)
}

// limitReconciliations bounds reconciliations until the end of the test.
func (c *cluster) limitReconciliations(t *testing.T, to time.Duration) {
	t.Helper()
	c.reconcileTime = to
	c.replaceOperator(t)
	t.Cleanup(func() {
		c.reconcileTime = 0
		c.replaceOperator(t)
	})
}

// errorsIn returns the lines of a log that report mistakes with the Hub.
func (h *hubInTest) errorsIn(log []byte) []byte {
	var found []byte
	for line := range bytes.Lines(log) {
		if bytes.Contains(line, []byte(`"level":"ERROR"`)) && bytes.Contains(line, []byte(h.key.Namespace)) {
			found = append(found, line...)
		}
	}
	return found
}

// reconcileTimeouts returns how many reconciliations of a controller have run out of time.
func reconcileTimeouts(t *testing.T, controller string) float64 {
	t.Helper()
	return controllerMetric(t, "controller_runtime_reconcile_timeouts_total", controller)
}

// controllerMetric returns what a counter or gauge of controller-runtime says of a controller.
func controllerMetric(t *testing.T, name, controller string) float64 {
	t.Helper()
	families, err := metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == controller {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() // it is one of them
			}
		}
	}
	t.Fatalf("no %s of %s", name, controller)
	return 0
}

// heldWatches holds back what the API server tells those who watch, as a connection
// does that is dead and not known to be.
type heldWatches struct {
	mu     sync.Mutex // guards the fields below
	path   string     // how the paths of those that are held end
	opened chan struct{}
}

// hold holds watches of paths with this end, until release or the end of the test.
func (w *heldWatches) hold(t *testing.T, path string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.path, w.opened = path, make(chan struct{})
	t.Cleanup(w.release)
}

func (w *heldWatches) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.opened != nil {
		close(w.opened)
		w.path, w.opened = "", nil
	}
}

// held returns what is closed when a watch of the path may go on; nil: it may.
func (w *heldWatches) held(path string) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.opened == nil || !strings.HasSuffix(path, w.path) {
		return nil
	}
	return w.opened
}

func (w *heldWatches) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		if err == nil && req.URL.Query().Get("watch") != "" {
			resp.Body = &watchBody{ReadCloser: resp.Body, of: w, path: req.URL.Path, done: req.Context().Done()}
		}
		return resp, err
	})
}

// watchBody is the body of an answer to a watch.
type watchBody struct {
	io.ReadCloser
	of   *heldWatches
	path string
	done <-chan struct{}
}

func (b *watchBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if opened := b.of.held(b.path); opened != nil {
		select {
		case <-opened:
		case <-b.done:
		}
	}
	return n, err
}
