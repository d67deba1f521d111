package controllers_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers"
)

func hubMetrics(t *testing.T, acting bool, hubs ...client.Object) controllers.HubMetrics {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := switchboardv1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	elected := make(chan struct{})
	if acting {
		close(elected)
	}
	return controllers.HubMetrics{Reader: fake.NewClientBuilder().WithScheme(scheme).WithObjects(hubs...).Build(), Acting: elected}
}

func TestMetricsTellHowHubsAre(t *testing.T) {
	hub := rawHub(t, "team-a", "agents", "replicas: 5")
	hub.Object["status"] = map[string]any{
		"readyReplicas": int64(4),
		"conditions": []any{
			map[string]any{"type": "Available", "status": "True", "reason": "MajorityReady"},
			map[string]any{"type": "Progressing", "status": "False", "reason": "RolloutStuck"},
			map[string]any{"type": "UpdateAvailable", "status": "True", "reason": "OperatorUpdated"},
			map[string]any{"type": "TopicsAccepted", "status": "False", "reason": "SomeRefused"},
			map[string]any{"type": "SomebodyElses", "status": "True", "reason": "Because"},
		},
	}
	const want = `
# HELP switchboard_hub_condition 1 for each condition that a Hub has, with the status and the reason that it has now.
# TYPE switchboard_hub_condition gauge
switchboard_hub_condition{hub="agents",namespace="team-a",reason="MajorityReady",status="True",type="Available"} 1
switchboard_hub_condition{hub="agents",namespace="team-a",reason="RolloutStuck",status="False",type="Progressing"} 1
switchboard_hub_condition{hub="agents",namespace="team-a",reason="OperatorUpdated",status="True",type="UpdateAvailable"} 1
switchboard_hub_condition{hub="agents",namespace="team-a",reason="SomeRefused",status="False",type="TopicsAccepted"} 1
# HELP switchboard_hub_ready_replicas Nodes of a Hub that are ready.
# TYPE switchboard_hub_ready_replicas gauge
switchboard_hub_ready_replicas{hub="agents",namespace="team-a"} 4
# HELP switchboard_hub_replicas Nodes that a Hub asks for.
# TYPE switchboard_hub_replicas gauge
switchboard_hub_replicas{hub="agents",namespace="team-a"} 5
`
	metrics := hubMetrics(t, true, hub)
	if err := testutil.CollectAndCompare(metrics, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	problems, err := testutil.CollectAndLint(metrics)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// Each type that the API package names is told of, so that alerts can be made of it.
func TestMetricsTellEachCondition(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "api", "v1alpha1", "hub_conditions.go"), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var conditions []any
	ast.Inspect(file, func(n ast.Node) bool {
		if c, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(c.Names[0].Name, "Condition") {
			name, _ := strconv.Unquote(c.Values[0].(*ast.BasicLit).Value)
			conditions = append(conditions, map[string]any{"type": name, "status": "False", "reason": "Because"})
		}
		return true
	})
	hub := rawHub(t, "team-a", "agents", "")
	hub.Object["status"] = map[string]any{"conditions": conditions}
	if got := testutil.CollectAndCount(hubMetrics(t, true, hub), "switchboard_hub_condition"); got != len(conditions) || got < 13 {
		t.Errorf("%d conditions are told of, want all %d: %v", got, len(conditions), conditions)
	}
}

func TestOperatorThatStandsByTellsNoHubs(t *testing.T) {
	hub := rawHub(t, "team-a", "agents", "")
	for acting, want := range map[bool]int{true: 2, false: 0} {
		t.Run(fmt.Sprint(acting), func(t *testing.T) {
			if got := testutil.CollectAndCount(hubMetrics(t, acting, hub)); got != want {
				t.Errorf("%d time series, want %d", got, want)
			}
		})
	}
}
