//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/switchboardhub/switchboard/test/check"
)

const (
	// autoscaleWithin is some rounds of the autoscaler, 15 s each by default, and a rollout.
	autoscaleWithin = rolloutWithin
	customMetrics   = "v1beta2.custom.metrics.k8s.io"
	// Of so many clients at most so many belong on a node: that makes five nodes.
	scaledClients, clientsPerNode = 40, 9
)

// adapterYAML is the adapter of metrics that stands in for Prometheus and its own.
const adapterYAML = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: metricsadapter}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: metricsadapter}
rules:
- {apiGroups: [""], resources: [pods], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: metricsadapter}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: metricsadapter}
subjects:
- {kind: ServiceAccount, name: metricsadapter}
---
apiVersion: v1
kind: Pod
metadata:
  name: metricsadapter
  labels: {app: metricsadapter}
spec:
  serviceAccountName: metricsadapter
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: metricsadapter
    image: IMAGE
    imagePullPolicy: IfNotPresent
    command: [/metricsadapter]
    ports: [{containerPort: 6443}]
    readinessProbe: {tcpSocket: {port: 6443}}
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: metricsadapter}
spec:
  selector: {app: metricsadapter}
  ports: [{port: 443, targetPort: 6443}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: ` + customMetrics + `}
spec:
  group: custom.metrics.k8s.io
  version: v1beta2
  service: {namespace: ` + hubNamespace + `, name: metricsadapter}
  insecureSkipTLSVerify: true
  groupPriorityMinimum: 100
  versionPriority: 100
`

// TestAutoscale lets Kubernetes' own autoscaler scale a hub by its clients, as the sample
// says it, while these send to each other.
func TestAutoscale(t *testing.T) {
	s := newSuite(t)
	if out, err := s.run(s.kubectl, "", "get", "apiservice", customMetrics, "--ignore-not-found", "-o", "name"); err != nil || out != "" {
		t.Fatalf("the cluster has custom metrics already, which the test would take away: %s (%v)", out, err)
	}
	s.makeNamespaces(t, []string{"delete", "apiservice", customMetrics, "--ignore-not-found"})
	s.installChart(t)
	var load *crowd

	_ = t.Run("a hub of three becomes available", s.hubBecomesAvailable) &&
		t.Run("clients are a custom metric", s.installAdapter) &&
		t.Run("clients come", func(t *testing.T) { load = s.startCrowd(t, scaledClients) }) &&
		t.Run("the autoscaler grows the hub to five", s.autoscalerGrows) &&
		t.Run("the autoscaler shrinks the hub to three", s.autoscalerShrinks) &&
		t.Run("nothing was lost", func(t *testing.T) { load.judge(t, check.Allowed{}) })
}

func (s *suite) installAdapter(t *testing.T) {
	s.mustRun(t, s.kubectl, strings.ReplaceAll(adapterYAML, "IMAGE", s.checker), "-n", hubNamespace, "create", "-f", "-")
	s.eventually(t, podWithin, "each node has a number of clients", func(context.Context) error {
		out, err := s.run(s.kubectl, "", "get", "--raw",
			"/apis/custom.metrics.k8s.io/v1beta2/namespaces/"+hubNamespace+"/pods/%2A/switchboard_clients")
		if err != nil {
			return err
		}
		for i := range 3 {
			if !strings.Contains(out, fmt.Sprintf("%s-node-%d", hubName, i)) {
				return fmt.Errorf("got %s", out)
			}
		}
		return nil
	})
}

// autoscalerGrows applies the sample, with fewer clients for a node and less patience.
func (s *suite) autoscalerGrows(t *testing.T) {
	sample, err := os.ReadFile("../../config/samples/autoscaling_v2_horizontalpodautoscaler.yaml")
	if err != nil {
		t.Fatal(err)
	}
	hurried := string(sample)
	for _, change := range [][2]string{
		{`averageValue: "5000"`, fmt.Sprintf(`averageValue: "%d"`, clientsPerNode)},
		{"periodSeconds: 120", "periodSeconds: 15"},
		{"periodSeconds: 600", "periodSeconds: 15"},
		{"stabilizationWindowSeconds: 1800", "stabilizationWindowSeconds: 0"},
	} {
		if !strings.Contains(hurried, change[0]) {
			t.Fatalf("the sample has no %s:\n%s", change[0], sample)
		}
		hurried = strings.Replace(hurried, change[0], change[1], 1)
	}
	start := time.Now()
	s.mustRun(t, s.kubectl, hurried, "-n", hubNamespace, "apply", "-f", "-")
	s.waitAutoscaled(t, 5)
	t.Logf("the autoscaler has grown the hub to five nodes for %d clients %.1fs after it was asked", scaledClients, time.Since(start).Seconds())
}

// autoscalerShrinks lets all clients belong on fewer nodes than there are.
func (s *suite) autoscalerShrinks(t *testing.T) {
	start := time.Now()
	s.mustRun(t, s.kubectl, "", "-n", hubNamespace, "patch", "horizontalpodautoscaler", hubName, "--type=json", "-p",
		fmt.Sprintf(`[{"op": "replace", "path": "/spec/metrics/0/pods/target/averageValue", "value": "%d"}]`, scaledClients))
	s.waitAutoscaled(t, 3)
	t.Logf("the autoscaler has shrunk the hub to three nodes %.1fs after it was asked", time.Since(start).Seconds())
}

// waitAutoscaled waits until the autoscaler wants so many nodes, and they are there.
func (s *suite) waitAutoscaled(t *testing.T, nodes int32) {
	t.Helper()
	s.eventually(t, autoscaleWithin, fmt.Sprintf("the autoscaler wants %d nodes", nodes), func(ctx context.Context) error {
		var scaler autoscalingv2.HorizontalPodAutoscaler
		if err := s.client.Get(ctx, client.ObjectKey{Namespace: hubNamespace, Name: hubName}, &scaler); err != nil {
			return err
		}
		hub, err := s.hub(ctx)
		if err != nil {
			return err
		}
		if scaler.Status.DesiredReplicas != nodes || *hub.Spec.Replicas != nodes {
			return fmt.Errorf("the Hub asks for %d, the autoscaler for %d: %+v", *hub.Spec.Replicas, scaler.Status.DesiredReplicas, scaler.Status)
		}
		return nil
	})
	s.waitNodes(t, int(nodes))
}
