package kubehub_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/internal/kubehub"
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
}
