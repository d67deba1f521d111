package alerts

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

var root = filepath.Join("..", "..")

func read(t *testing.T, path ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{root}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// rendered returns what the chart renders of a kind with a part of the name. The
// chart's own tests keep the file as the chart is.
func rendered(t *testing.T, kind, name string) map[string]any {
	t.Helper()
	dec := yaml.NewDecoder(strings.NewReader(read(t, "charts", "testdata", "everything.yaml")))
	for {
		var obj struct {
			Kind     string
			Metadata struct{ Name string }
			Spec     map[string]any
			Data     map[string]any
		}
		err := dec.Decode(&obj)
		if errors.Is(err, io.EOF) {
			t.Fatalf("the chart renders no %s %s", kind, name)
		}
		if err != nil {
			t.Fatal(err)
		}
		if obj.Kind == kind && strings.Contains(obj.Metadata.Name, name) {
			if obj.Spec == nil {
				return obj.Data
			}
			return obj.Spec
		}
	}
}

func rules(t *testing.T) []rulefmt.Rule {
	t.Helper()
	spec, err := yaml.Marshal(rendered(t, "PrometheusRule", ""))
	if err != nil {
		t.Fatal(err)
	}
	groups, errs := rulefmt.Parse(spec, false, model.LegacyValidation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		t.Fatalf("Prometheus would refuse the rules: %v", errs)
	}
	var all []rulefmt.Rule
	for _, g := range groups.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) == 0 {
		t.Fatal("there are no rules")
	}
	return all
}

// query is one expression of the dashboard.
type query struct{ where, expr, legend string }

// dashboard returns the panels' expressions, and the variables' by label_values.
func dashboard(t *testing.T) (panels, variables []query) {
	t.Helper()
	var d struct {
		Panels []struct {
			Title   string `json:"title"`
			Targets []struct {
				Expr   string `json:"expr"`
				Legend string `json:"legendFormat"`
			} `json:"targets"`
		} `json:"panels"`
		Templating struct {
			List []struct {
				Name       string `json:"name"`
				Definition string `json:"definition"`
			} `json:"list"`
		} `json:"templating"`
	}
	text, _ := rendered(t, "ConfigMap", "dashboard")["switchboard.json"].(string)
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	set := strings.NewReplacer("$namespace", ".*", "$hub", ".*", "$__rate_interval", "5m")
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			panels = append(panels, query{"panel " + p.Title, set.Replace(target.Expr), target.Legend})
		}
	}
	for _, v := range d.Templating.List {
		if v.Definition != "" {
			variables = append(variables, query{where: "variable " + v.Name, expr: set.Replace(v.Definition)})
		}
	}
	if len(panels) == 0 || len(variables) == 0 {
		t.Fatal("the dashboard is empty")
	}
	return panels, variables
}

func TestEachAlertSaysWhatToDo(t *testing.T) {
	_, section, ok := strings.Cut(read(t, "docs", "operations.md"), "\n## Alerts\n")
	if !ok {
		t.Fatal("docs/operations.md has no section Alerts")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	described := make(map[string]string) // what is said, by alert
	for part := range strings.SplitSeq(section, "\n### ") {
		name, text, _ := strings.Cut(part, "\n")
		described[name] = text
	}
	for _, r := range rules(t) {
		text, ok := described[r.Alert]
		if !ok {
			t.Errorf("docs/operations.md has no section about %s", r.Alert)
		}
		delete(described, r.Alert)
		for _, part := range []string{"**Means**", "**Look at**", "**Do**"} {
			if !strings.Contains(text, part) {
				t.Errorf("what docs/operations.md says of %s lacks %s", r.Alert, part)
			}
		}
		// As GitHub makes anchors of headings.
		if want := "https://runbooks.example/switchboard#" + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want {
			t.Errorf("%s: runbook_url %s, want %s", r.Alert, r.Annotations["runbook_url"], want)
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s: severity %q", r.Alert, s)
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s: annotations %v, want a summary and a description", r.Alert, r.Annotations)
		}
	}
	for name := range described {
		if strings.HasPrefix(name, "Switchboard") {
			t.Errorf("docs/operations.md describes %s, which is no alert", name)
		}
	}
}

var (
	row         = regexp.MustCompile("(?m)^\\| `(switchboard_[a-z_]+)` \\| ([^|]*) \\|")
	named       = regexp.MustCompile("`([a-z]+(?:_[a-z]+)+)(?:\\{([a-z_]+)\\})?`")
	word        = regexp.MustCompile("[a-z_]+")
	labelValues = regexp.MustCompile(`^label_values\((.+), ([a-z_]+)\)$`)
)

// metrics returns the labels of each metric in the reference, which tests of the
// node and of the operator compare with what they expose; and those that
// Prometheus gives to each.
func metrics(t *testing.T) map[string]map[string]bool {
	t.Helper()
	page := read(t, "docs", "reference", "metrics.md")
	known := make(map[string]map[string]bool)
	add := func(name string, labels ...string) {
		known[name] = make(map[string]bool)
		for _, l := range append(labels, "namespace", "pod", "container", "endpoint", "job", "instance", "hub") {
			known[name][l] = true
		}
	}
	add("up")
	for _, rest := range strings.Split(page, "\n\n`GET /metrics`")[1:] {
		intro, _, _ := strings.Cut(rest, "\n| metric |") // tells of those that others define
		for _, m := range named.FindAllStringSubmatch(intro, -1) {
			add(m[1], m[2])
		}
	}
	for _, m := range row.FindAllStringSubmatch(page, -1) {
		name, labels := m[1], word.FindAllString(m[2], -1)
		add(name, labels...)
		if strings.HasSuffix(name, "_round_trip_seconds") { // the one summary
			add(name+"_sum", labels...)
			add(name+"_count", labels...)
		}
	}
	return known
}

// check reports each metric and label in an expression that does not exist.
func check(t *testing.T, where, expr string, known map[string]map[string]bool) {
	t.Helper()
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			labels, ok := known[n.Name]
			if !ok {
				t.Errorf("%s: nobody exposes %s", where, n.Name)
			}
			for _, m := range n.LabelMatchers {
				if m.Name != model.MetricNameLabel && !labels[m.Name] {
					t.Errorf("%s: %s has no label %s", where, n.Name, m.Name)
				}
			}
		case *parser.AggregateExpr:
			for _, selector := range parser.ExtractSelectors(n.Expr) {
				for _, m := range selector {
					for _, by := range n.Grouping {
						if m.Name == model.MetricNameLabel && !known[m.Value][by] {
							t.Errorf("%s: %s has no label %s", where, m.Value, by)
						}
					}
				}
			}
		}
		return nil
	})
}

func TestMetricsOfAlertsExist(t *testing.T) {
	known := metrics(t)
	for _, r := range rules(t) {
		check(t, r.Alert, r.Expr, known)
	}
}

func TestMetricsOfTheDashboardExist(t *testing.T) {
	known := metrics(t)
	panels, variables := dashboard(t)
	for _, q := range panels {
		check(t, q.where, q.expr, known)
	}
	for _, q := range variables {
		m := labelValues.FindStringSubmatch(q.expr)
		if m == nil {
			t.Fatalf("%s: %s", q.where, q.expr)
		}
		check(t, q.where, "count by ("+m[2]+") ("+m[1]+")", known)
	}
}

func TestUnknownMetricsAreFound(t *testing.T) {
	known := metrics(t)
	for _, name := range []string{"switchboard_clients", "switchboard_hub_condition", "controller_runtime_reconcile_errors_total", "process_cpu_seconds_total"} {
		if known[name] == nil {
			t.Errorf("the reference lacks %s", name)
		}
	}
	if known["switchboard_nodes"] != nil || known["switchboard_clients"]["shard"] || !known["switchboard_raft_leader"]["shard"] {
		t.Errorf("not what the reference says: %v", known)
	}
}
