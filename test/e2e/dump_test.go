//go:build e2e

package e2e

import (
	"context"
	"testing"
	"time"
)

// dump writes what a person asks for first to the log of a failed test, given the
// namespaces of the operator and the hub.
func (s *suite) dump(t *testing.T, operator, hub string) {
	t.Helper()
	if !t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // the test's own has ended
	defer cancel()
	dumping := *s
	dumping.ctx = ctx
	for _, args := range [][]string{
		{"get", "nodes", "-o", "wide"},
		{"-n", hub, "get", "all,configmaps,networkpolicies,poddisruptionbudgets", "-o", "wide"},
		{"-n", hub, "get", "hubs", "-o", "yaml"},
		{"-n", hub, "get", "configmaps", "-l", "app.kubernetes.io/instance=" + hubName, "-o", "yaml"},
		{"-n", operator, "get", "all", "-o", "wide"},
		{"-n", operator, "events"},
		{"-n", hub, "events"},
		{"-n", operator, "logs", "--tail=200", "--prefix", "--all-containers", "-l", "app.kubernetes.io/instance=" + release},
		{"-n", hub, "logs", "--tail=200", "--prefix", "--max-log-requests=20", "-l", "app.kubernetes.io/instance=" + hubName},
		{"-n", hub, "logs", "--tail=50", "--prefix", "-l", "app.kubernetes.io/name!=switchboard"},
		// Who sees only the end of it all sees these.
		{"-n", hub, "get", "pods,persistentvolumeclaims", "-o", "wide"},
		{"-n", hub, "get", "hubs", "-o", "jsonpath={range .items[*].status.conditions[*]}{.type}={.status} {.reason}: {.message}{'\\n'}{end}"},
	} {
		out, err := dumping.run(dumping.kubectl, "", args...)
		t.Logf("kubectl %v\n%s", args, out)
		if err != nil {
			t.Log(err)
		}
	}
	t.Logf("what was waited for last: %s", s.missed)
}
