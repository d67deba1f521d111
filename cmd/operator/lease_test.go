package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchboardhub/switchboard/test/ports"
)

// TestOperatorsOfOneNamespace runs the programs of two releases in one namespace, each for
// a namespace of its own: they share a lease, or, as the chart renders it, they don't.
func TestOperatorsOfOneNamespace(t *testing.T) {
	env, c := start(t)
	makeNamespaces(t, c, "team-a", "team-b")
	createAll(t, c, rendered("namespaces"))
	createAll(t, c, rendered("second"))
	makeHubs(t, c, "team-a", "team-b")
	first := runOperator(t, env, "--node-image=switchboard:test", "--watch-namespaces=team-a", "--leader-elect", "--metrics-bind-address=127.0.0.1:0")
	first.waitForNodes(t, c, "team-a", "agents")

	t.Run("the same lease", func(t *testing.T) {
		metrics := ports.Free(t)
		p := runOperator(t, env, "--node-image=switchboard:test", "--watch-namespaces=team-b", "--leader-elect", "--metrics-secure=false", "--metrics-bind-address="+metrics)
		lease := &coordinationv1.Lease{}
		if err := c.Get(t.Context(), client.ObjectKey{Namespace: systemNamespace, Name: name}, lease); err != nil {
			t.Fatal(err)
		}
		p.eventually(t, func(context.Context) error {
			for line := range strings.Lines(p.said.String()) {
				if strings.Contains(line, "Standing by") && strings.Contains(line, `"lease":"`+systemNamespace+"/"+name+`"`) && strings.Contains(line, `"holder":"`+*lease.Spec.HolderIdentity+`"`) {
					return nil
				}
			}
			return fmt.Errorf("it does not say that %s holds the lease", *lease.Spec.HolderIdentity)
		})
		p.eventually(t, answers("http://"+metrics+"/metrics", http.StatusOK, "\nleader_election_master_status{name=\""+name+"\"} 0\n"))
		p.stop(t)
		if n := strings.Count(p.said.String(), "Standing by"); n != 1 {
			t.Errorf("it says %d times who holds the lease, which has not changed", n)
		}
	})

	t.Run("another lease", func(t *testing.T) {
		p := runRelease(t, env, c, "second-operator")
		p.waitForNodes(t, c, "team-b", "agents")
		p.stop(t)
		if strings.Contains(p.said.String(), "Standing by") {
			t.Error("it stood by for another release")
		}
	})
	first.stop(t)
}
