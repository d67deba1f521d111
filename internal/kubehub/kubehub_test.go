package kubehub_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kube "sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/internal/kubehub"
	"github.com/switchboardhub/switchboard/test/ports"
)

// whole runs a command until it sees all shards whole: they may change their leader
// while it looks.
func (h *hubInTest) whole(t *testing.T, args ...string) (out, errOut string) {
	t.Helper()
	eventually(t, func() error {
		out, errOut = h.hubctl(t, 0, args...)
		if !strings.Contains(out, "any one node may stop now") && !strings.Contains(out, `"safeToRestart":true`) {
			return fmt.Errorf("it says:\n%s", out)
		}
		return nil
	})
	return out, errOut
}

func TestLookingAtAHub(t *testing.T) {
	h := startHub(t, switchboardv1alpha1.HubSpec{Replicas: new(int32(2))})
	c, err := client.Connect(t.Context(), h.ports[1]["7400"], client.WithID("agent-7"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	t.Run("status says how it is", func(t *testing.T) {
		out, errOut := h.whole(t, "status")
		for _, want := range []string{
			"Hub agents in " + h.namespace + ": ", "2 of 2 ready", "agents." + h.namespace + ".svc:7400",
			"4 of 4 have all replicas", "any one node may stop now", "MajorityReady: 2 of 2 nodes are ready",
			"agents-node-0", "agents-node-1", "switchboard:test", machine, "Newest events:", "Hub agents",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("status does not say %q:\n%s", want, out)
			}
		}
		if errOut != "" || strings.Contains(out, "Could not read") || strings.Contains(out, "does not answer") {
			t.Errorf("status complains: %s\n%s", errOut, out)
		}
	})
	t.Run("status in JSON", func(t *testing.T) {
		out, _ := h.whole(t, "status", "agents", "-o", "json")
		var r kubehub.Report
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatalf("%v:\n%s", err, out)
		}
		if !r.SafeToRestart || len(r.Nodes) != 2 || r.Nodes[1].Status == nil || r.Nodes[1].Status.Clients != 1 || r.Shards == nil || r.Shards.Whole != 4 || len(r.Events) == 0 {
			t.Errorf("got %s", out)
		}
	})
	for list, want := range map[string]string{"nodes": "agents-node-1", "clients": "agent-7", "topics": "TOPIC"} {
		t.Run(list, func(t *testing.T) {
			if out, _ := h.hubctl(t, 0, list); !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		})
	}
	t.Run("logs", func(t *testing.T) {
		out, _ := h.hubctl(t, 0, "logs")
		for _, want := range []string{"[agents-node-0] listening\n", "[agents-node-1] listening\n"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
	})
	t.Run("logs of a pod with a sidecar", func(t *testing.T) {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: "agents-node-7", Labels: manifests.Labels(h.hub)}}
		pod.Spec = corev1.PodSpec{NodeName: machine, Containers: []corev1.Container{{Name: sidecar, Image: "istio:1"}, {Name: "hubnode", Image: "switchboard:test"}}}
		must(t, h.Create(t.Context(), pod))
		h.kubelet.set(h.namespace, pod.Name, &podOnMachine{log: []string{"beside a sidecar"}, ended: make(chan struct{})})
		out, _ := h.hubctl(t, 0, "logs", "7")
		if out != "beside a sidecar\n" {
			t.Errorf("got %s", out)
		}
		must(t, h.Delete(t.Context(), pod, kube.GracePeriodSeconds(0)))
	})

	kubernetes, err := kubehub.Connect(kubehub.Options{Kubeconfig: h.kubeconfig, Namespace: h.namespace})
	must(t, err)
	t.Run("a node by the address that nodes call it", func(t *testing.T) {
		conn, err := kubernetes.HubDialer(h.hub)(t.Context(), "tcp", h.pod(t, "agents-node-1").Status.PodIP+":7480")
		must(t, err)
		_, err = io.WriteString(conn, "GET /v1/status HTTP/1.0\r\n\r\n")
		must(t, err)
		answer, err := io.ReadAll(conn)
		must(t, err)
		if !strings.Contains(string(answer), `"node":"agents-node-1"`) {
			t.Errorf("it answers %s", answer)
		}
		must(t, conn.Close())
		if _, err := kubernetes.HubDialer(h.hub)(t.Context(), "tcp", "10.255.0.1:7400"); err == nil || !strings.Contains(err.Error(), "no node of Hub agents has the address 10.255.0.1 now") {
			t.Errorf("an address that no node has: %v", err)
		}
	})
	t.Run("a connection that nobody reads is given up in time", func(t *testing.T) {
		conn, err := kubernetes.Dial(t.Context(), "agents-node-1", 7480)
		must(t, err)
		must(t, conn.SetReadDeadline(time.Now()))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		must(t, conn.Close())
	})
	t.Run("a node that does not listen", func(t *testing.T) {
		h.freeze()
		h.kubelet.set(h.namespace, "agents-node-1", &podOnMachine{ended: make(chan struct{}), ports: map[string]string{"7480": ports.Free(t)}})
		for range 20 { // the refusal comes before, while or after the question is written
			out, _ := h.hubctl(t, 0, "status")
			if want := "! agents-node-1 does not answer: ask agents-node-1: connect to port 7480 inside the pod"; !strings.Contains(out, want) {
				t.Fatalf("status does not say %q:\n%s", want, out)
			}
		}
	})
}
