package alerts

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// TestDashboardKeepsHubsOfOneNameApart: a Hub has its name in its namespace only, and so
// have its pods.
func TestDashboardKeepsHubsOfOneNameApart(t *testing.T) {
	ambiguous := func(by []string) bool {
		return (slices.Contains(by, "pod") || slices.Contains(by, "hub")) && !slices.Contains(by, "namespace")
	}
	panels, _ := dashboard(t)
	for _, q := range panels {
		parsed, err := parser.NewParser(parser.Options{}).ParseExpr(q.expr)
		if err != nil {
			t.Fatalf("%s: %v", q.where, err)
		}
		parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
			if a, ok := node.(*parser.AggregateExpr); ok && ambiguous(a.Grouping) {
				t.Errorf("%s adds up what is of several namespaces: by (%s)", q.where, strings.Join(a.Grouping, ", "))
			}
			return nil
		})
		var shown []string
		for _, m := range regexp.MustCompile(`{{([a-z]+)}}`).FindAllStringSubmatch(q.legend, -1) {
			shown = append(shown, m[1])
		}
		if ambiguous(shown) {
			t.Errorf("%s does not say the namespace: %s", q.where, q.legend)
		}
	}
}

// TestDashboardShowsOurOperatorOnly: every operator of a cluster has metrics of
// controller-runtime.
func TestDashboardShowsOurOperatorOnly(t *testing.T) {
	panels, _ := dashboard(t)
	found := 0
	for _, q := range panels {
		parsed, err := parser.NewParser(parser.Options{}).ParseExpr(q.expr)
		if err != nil {
			t.Fatalf("%s: %v", q.where, err)
		}
		for _, selector := range parser.ExtractSelectors(parsed) {
			limits := map[string]string{}
			for _, m := range selector {
				limits[m.Name] = m.Value
			}
			if !strings.HasPrefix(limits[model.MetricNameLabel], "controller_runtime_") {
				continue
			}
			found++
			// As the profile of these tests names them.
			if limits["job"] != "hubs-metrics" || limits["namespace"] != "switchboard-system" {
				t.Errorf("%s: %s is not limited to the operator: %v", q.where, limits[model.MetricNameLabel], limits)
			}
		}
	}
	if found == 0 {
		t.Fatal("there is no panel about the operator")
	}
}

// faulty says of each condition of a Hub which status and reason are a fault; none: those
// that others stand for, or that tell of no fault.
var faulty = map[string][]string{
	"Available":           {`status="False",reason="TooFewNodesReady"`},
	"Progressing":         {`status="False",reason="RolloutStuck"`},
	"Degraded":            {`status="True",reason="NodesFailing"`},
	"ConfigApplied":       {`status="False",reason="Rejected"`, `status="Unknown",reason="NodesUnreachable"`},
	"UpdateAvailable":     nil,
	"TopicsAccepted":      {`status="False",reason="SomeRefused"`},
	"GrantsAccepted":      {`status="False",reason="SomeRefused"`},
	"CertificatesReady":   {`status="False",reason="SecretInvalid"`},
	"AuthenticationReady": {`status="False",reason="SourceNotFound"`},
	"LinksEncrypted":      {`status="False",reason="Expired"`, `status="False",reason="NodesWithoutTLS"`},
	"GossipKeyRotated":    {`status="False",reason="AwaitingNodes"`},
	"Reconciling":         nil,
	"Stalled":             {`status="True",reason="NameTaken"`},
}

// sound is what Hubs say that lack nothing: one that serves, one that is about to become
// another, and one that is stopped.
var sound = []string{
	`hub="agents",type="Available",status="True",reason="MajorityReady"`,
	`hub="agents",type="Progressing",status="True",reason="RollingOut"`,
	`hub="agents",type="Reconciling",status="True",reason="RollingOut"`,
	`hub="agents",type="Degraded",status="False",reason="AsExpected"`,
	`hub="agents",type="ConfigApplied",status="True",reason="Applied"`,
	`hub="agents",type="UpdateAvailable",status="True",reason="OperatorUpdated"`,
	`hub="agents",type="TopicsAccepted",status="True",reason="AllAccepted"`,
	`hub="agents",type="GrantsAccepted",status="True",reason="AllAccepted"`,
	`hub="agents",type="CertificatesReady",status="True",reason="Rotating"`,
	`hub="agents",type="AuthenticationReady",status="True",reason="Configured"`,
	`hub="agents",type="LinksEncrypted",status="True",reason="LinksRequireTLS"`,
	`hub="agents",type="GossipKeyRotated",status="False",reason="UsingKey"`,
	`hub="asleep",type="Available",status="False",reason="ScaledToZero"`,
	`hub="asleep",type="Progressing",status="False",reason="Complete"`,
	`hub="asleep",type="Degraded",status="False",reason="AsExpected"`,
	`hub="asleep",type="ConfigApplied",status="Unknown",reason="NoNodesReady"`,
	`hub="asleep",type="GossipKeyRotated",status="False",reason="AwaitingNodes"`,
}

func TestDashboardShowsFaultyConditions(t *testing.T) {
	panels, _ := dashboard(t)
	at := slices.IndexFunc(panels, func(q query) bool { return strings.HasPrefix(q.where, "panel Conditions") })
	if at < 0 {
		t.Fatal("there is no panel of conditions")
	}
	load := func(series ...string) string {
		var b strings.Builder
		b.WriteString("load 1m\n")
		for _, s := range append(slices.Clone(sound), series...) {
			fmt.Fprintf(&b, "\tswitchboard_hub_condition{namespace=\"team-a\",%s} 1x30\n", s)
		}
		return b.String()
	}
	if shown := firing(t, panels[at].expr, load()); len(shown) > 0 {
		t.Errorf("shows what is no fault: %v", shown)
	}

	types := regexp.MustCompile(`(?m)^\tCondition[A-Za-z]+ += "([A-Za-z]+)"$`).FindAllStringSubmatch(read(t, "api", "v1alpha1", "hub_conditions.go"), -1)
	if len(types) == 0 {
		t.Fatal("api has no conditions")
	}
	for _, m := range types {
		faults, known := faulty[m[1]]
		if !known {
			t.Errorf("this test does not know whether %s can be a fault", m[1])
		}
		for _, fault := range faults {
			series := fmt.Sprintf(`hub="other",type=%q,%s`, m[1], fault)
			if shown := firing(t, panels[at].expr, load(series)); len(shown) != 1 {
				t.Errorf("{%s}: got %v, want this alone", series, shown)
			}
		}
	}
}
