package controllers_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// An API server that throttles, times out, breaks connections and sees conflicts
// holds a Hub up and does it no harm.
func TestHubComesThroughAFaultyAPIServer(t *testing.T) {
	c := useCluster(t)
	h := &hubInTest{cluster: c, key: client.ObjectKey{Namespace: c.namespace(t), Name: "agents"}}
	ways := []int{http.StatusConflict, http.StatusTooManyRequests, 0, http.StatusInternalServerError, http.StatusGatewayTimeout}
	c.faults.begin(h.key.Namespace, ways...)
	defer c.faults.begin("")
	if err := c.Create(t.Context(), rawHub(t, h.key.Namespace, h.key.Name, "replicas: 2")); err != nil {
		t.Fatal(err)
	}
	h.waitFor(t, &appsv1.StatefulSet{}, "agents-node", func() error { return nil })
	h.settle(t)
	c.faults.begin(h.key.Namespace, ways...)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Image = "switchboard:2" })
	h.settle(t)
	if left := c.faults.left(); left > 0 {
		t.Errorf("%d faults never came", left)
	}
	h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionFalse, switchboardv1alpha1.ReasonAsExpected)
	for key, obj := range children() {
		h.read(t, obj, childName(key))
	}
	for _, pod := range h.pods(t) {
		if got := pod.Spec.Containers[0].Image; got != "switchboard:2" {
			t.Errorf("%s runs %s", pod.Name, got)
		}
	}
}

func TestMalformedSecretIsNamed(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 1")
	pods := h.settle(t)
	secret := &corev1.Secret{}
	h.read(t, secret, "agents-gossip")
	good := secret.Data["key"]
	secret.Data["key"] = []byte("open sesame")
	if err := h.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	h.poke(t, pods[0])
	got := h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionTrue, switchboardv1alpha1.ReasonInvalidSecret)
	if want := `Secret "agents-gossip", key "key": must be 16, 24 or 32 bytes in base64`; !strings.Contains(got.Message, want) || strings.Contains(got.Message, "sesame") {
		t.Errorf("message %q, want it to say %q and not the key", got.Message, want)
	}
	h.read(t, secret, "agents-gossip")
	secret.Data["key"] = good
	if err := h.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionFalse, switchboardv1alpha1.ReasonAsExpected)
}

func TestHubInANamespaceThatGoes(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 1")
	pods := h.settle(t)
	if err := h.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: h.key.Namespace}}); err != nil {
		t.Fatal(err)
	}
	settings := &corev1.ConfigMap{}
	h.read(t, settings, "agents-config")
	if err := h.Delete(t.Context(), settings); err != nil {
		t.Fatal(err)
	}
	tried := func() (n int) {
		for _, w := range h.requests.in(h.key.Namespace) {
			if strings.HasSuffix(w, "/configmaps/agents-config") {
				n++
			}
		}
		return n
	}
	already := tried()
	eventually(t, func() error {
		if tried() == already {
			return fmt.Errorf("the operator has not tried to make it again")
		}
		return nil
	})
	// And not again at once: it looks when something happens.
	again := tried()
	h.poke(t, pods[0])
	if got := tried(); got > again+2 {
		t.Errorf("it tried %d times more", got-again)
	}
}
