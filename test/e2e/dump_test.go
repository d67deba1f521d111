//go:build e2e

package e2e

import (
	"context"
	"testing"
	"time"
)

// dump writes what a person asks for first to the log of a failed test.
func (s *suite) dump(t *testing.T) {
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
		{"-n", hubNamespace, "get", "all,configmaps,networkpolicies,poddisruptionbudgets", "-o", "wide"},
		{"-n", hubNamespace, "get", "hubs", "-o", "yaml"},
		{"-n", hubNamespace, "get", "configmaps", "-l", "app.kubernetes.io/instance=" + hubName, "-o", "yaml"},
		{"-n", operatorNamespace, "get", "all", "-o", "wide"},
		{"-n", operatorNamespace, "get", "events", "--sort-by=.lastTimestamp"},
		{"-n", hubNamespace, "get", "events", "--sort-by=.lastTimestamp"},
		{"-n", operatorNamespace, "logs", "--tail=200", "--prefix", "--all-containers", "-l", "app.kubernetes.io/instance=" + release},
		{"-n", hubNamespace, "logs", "--tail=200", "--prefix", "--max-log-requests=20", "-l", "app.kubernetes.io/instance=" + hubName},
		{"-n", hubNamespace, "logs", "--tail=50", "--prefix", "-l", "app=agent"},
	} {
		out, err := dumping.run(dumping.kubectl, "", args...)
		t.Logf("kubectl %v\n%s", args, out)
		if err != nil {
			t.Log(err)
		}
	}
}
