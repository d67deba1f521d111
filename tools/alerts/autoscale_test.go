package alerts

import (
	"regexp"
	"strings"
	"testing"
	"text/template"

	"go.yaml.in/yaml/v3"
)

// TestAutoscalingRule reads the rule that the docs give prometheus-adapter, and asks
// Prometheus what the adapter makes of it for the pods of a Hub.
func TestAutoscalingRule(t *testing.T) {
	block := regexp.MustCompile("(?s)```yaml\n(rules:\n.*?)```").FindStringSubmatch(read(t, "docs", "reference", "hub.md"))
	if block == nil {
		t.Fatal("the docs have no rule")
	}
	var values struct {
		Rules struct {
			Custom []struct {
				SeriesQuery  string `yaml:"seriesQuery"`
				MetricsQuery string `yaml:"metricsQuery"`
				Resources    struct {
					Overrides map[string]struct{ Resource string }
				}
			}
		}
	}
	decoder := yaml.NewDecoder(strings.NewReader(block[1]))
	decoder.KnownFields(true)
	if err := decoder.Decode(&values); err != nil {
		t.Fatal(err)
	}
	if len(values.Rules.Custom) != 1 {
		t.Fatalf("%d rules, want one", len(values.Rules.Custom))
	}
	rule := values.Rules.Custom[0]
	for _, label := range []string{"namespace", "pod"} {
		if got := rule.Resources.Overrides[label].Resource; got != label {
			t.Errorf("label %s is for the resource %q", label, got)
		}
	}

	const samples = `
load 1m
	switchboard_clients{namespace="team-a",hub="agents",pod="agents-node-0"} 4000x30
	switchboard_clients{namespace="team-a",hub="agents",pod="agents-node-1"} 6000x30
	switchboard_clients{namespace="team-a",hub="other",pod="other-node-0"} 7x30
	switchboard_clients{namespace="team-b",hub="agents",pod="agents-node-0"} 9x30
	switchboard_clients{job="by-hand"} 11x30
`
	if found := firing(t, rule.SeriesQuery, samples); len(found) != 4 {
		t.Errorf("the adapter finds %v, want the four series that have pods", found)
	}
	var query strings.Builder
	err := template.Must(template.New("").Delims("<<", ">>").Parse(rule.MetricsQuery)).Execute(&query, map[string]string{
		"Series": "switchboard_clients", "LabelMatchers": `namespace="team-a",pod=~"agents-node-0|agents-node-1"`, "GroupBy": "pod",
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, sample := range firing(t, query.String(), samples) {
		got[sample.Metric.Get("pod")] = sample.F
	}
	if len(got) != 2 || got["agents-node-0"] != 4000 || got["agents-node-1"] != 6000 {
		t.Errorf("the autoscaler is told %v", got)
	}
}
