// Package charts_test checks the Helm chart: what it renders, that its
// documentation and schema are those of its values, and that kustomize renders
// the same operator.
package charts_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the expected files")

// The folders of the charts are their names.
const (
	chart    = "switchboard"
	hubChart = "switchboard-hub"
)

// tool runs the program that an environment variable names, and returns its
// output and what it said of an error.
func tool(t *testing.T, variable string, args ...string) (string, error) {
	t.Helper()
	readInputs(t)
	command := strings.Fields(os.Getenv(variable))
	if len(command) == 0 {
		t.Fatalf("%s is not set: it is the command to run; `make test` sets it", variable)
	}
	cmd := exec.CommandContext(t.Context(), command[0], append(command[1:], args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", variable, strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// readInputs reads what the tools will read: go test repeats a cached result as
// long as the files that the test itself read are the same.
func readInputs(t *testing.T) {
	t.Helper()
	for _, dir := range []string{chart, hubChart, filepath.Join("..", "config")} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			_, err = os.ReadFile(path)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func helmTemplate(t *testing.T, args ...string) string {
	t.Helper()
	out, err := tool(t, "HELM", append([]string{"template", "switchboard", chart, "--namespace", "switchboard-system"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// objects splits rendered YAML, keyed by kind and name.
func objects(t *testing.T, rendered string) map[string]map[string]any {
	t.Helper()
	found := map[string]map[string]any{}
	dec := yaml.NewDecoder(strings.NewReader(rendered))
	for {
		var obj map[string]any
		err := dec.Decode(&obj)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatalf("rendered YAML: %v", err)
		}
		if obj == nil {
			continue
		}
		meta := obj["metadata"].(map[string]any)
		found[fmt.Sprintf("%v %v", obj["kind"], meta["name"])] = obj
	}
}

func TestKustomizeRendersTheSameOperator(t *testing.T) {
	out, err := tool(t, "KUBECTL", "kustomize", filepath.Join("..", "config", "default"))
	if err != nil {
		t.Fatal(err)
	}
	kustomize, helm := objects(t, out), objects(t, helmTemplate(t))
	// Helm makes the namespace by its own flag.
	delete(kustomize, "Namespace switchboard-system")
	helms := []string{"app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"}
	for _, obj := range slices.Concat(slices.Collect(maps.Values(kustomize)), slices.Collect(maps.Values(helm))) {
		meta := obj["metadata"].(map[string]any)
		if obj["kind"] == "CustomResourceDefinition" {
			// It belongs to no one release.
			delete(meta, "labels")
			delete(meta["annotations"].(map[string]any), "helm.sh/resource-policy")
			continue
		}
		if labels, ok := meta["labels"].(map[string]any); ok {
			maps.DeleteFunc(labels, func(k string, _ any) bool { return slices.Contains(helms, k) })
		}
	}
	if diff := cmp.Diff(kustomize, helm); diff != "" {
		t.Errorf("config/default and the chart differ (-kustomize +helm):\n%s", diff)
	}
}

func TestChartRenders(t *testing.T) {
	for name, args := range map[string][]string{
		"default":    nil,
		"namespaces": {"--set", "watchNamespaces={team-a,team-b}", "--set", "replicas=2"},
		"second":     {"--set", "fullnameOverride=second-operator", "--set", "leaderElection.leaseName=second", "--set", "watchNamespaces={team-b}"},
		"everything": {"--values", filepath.Join("testdata", "everything-values.yaml"), "--api-versions", "monitoring.coreos.com/v1"},
		"bare":       {"--set", "rbac.create=false", "--set", "rbac.aggregate=false", "--set", "serviceAccount.create=false,serviceAccount.name=ours", "--set", "metrics.service.create=false", "--set", "metrics.secure=false", "--set", "networkPolicy.create=false"},
	} {
		t.Run(name, func(t *testing.T) {
			// The CRD is compared with config/crd elsewhere.
			got := helmTemplate(t, append(args, "--set", "crds.install=false")...)
			golden(t, filepath.Join("testdata", name+".yaml"), got)
		})
	}
}

func TestDefinitionIsKeptOnlyWhenAsked(t *testing.T) {
	crds := []string{"CustomResourceDefinition hubs.switchboard.dev", "CustomResourceDefinition topics.switchboard.dev", "CustomResourceDefinition grants.switchboard.dev"}
	for name, tt := range map[string]struct {
		args []string
		want any
	}{
		"by default": {nil, "keep"},
		"not kept":   {[]string{"--set", "crds.keep=false"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			rendered := objects(t, helmTemplate(t, tt.args...))
			for _, crd := range crds {
				meta := rendered[crd]["metadata"].(map[string]any)
				if got := meta["annotations"].(map[string]any)["helm.sh/resource-policy"]; got != tt.want {
					t.Errorf("resource policy %v of %s, want %v", got, crd, tt.want)
				}
			}
		})
	}
	for _, crd := range crds {
		if _, ok := objects(t, helmTemplate(t, "--set", "crds.install=false"))[crd]; ok {
			t.Errorf("crds.install=false installs %s", crd)
		}
	}
}

func TestWrongValuesAreRefused(t *testing.T) {
	for set, named := range map[string]string{
		"nope=1":                      "nope",
		"image.nope=1":                "/image",
		"image.pullPolicy=Sometimes":  "/image/pullPolicy",
		"image.repository=null":       "missing property 'repository'",
		"image.digest=v9":             "/image/digest",
		"image.tag=sha256:0123":       "set image.digest",
		"fullnameOverride=My_Name":    "/fullnameOverride",
		"serviceAccount.name=My_Name": "/serviceAccount/name",
		"metrics.readers[0].name=Bob,metrics.readers[0].namespace=monitoring": "/metrics/readers/0/name",
		"metrics.readers[0].name=bob,metrics.readers[0].namespace=a.b":        "/metrics/readers/0/namespace",
		"replicas=-1":                                "/replicas",
		"log.level=loud":                             "/log/level",
		"watchNamespaces={Team A}":                   "/watchNamespaces/0",
		"leaderElection.leaseName=My Lease":          "/leaderElection/leaseName",
		"metrics.port=80":                            "/metrics/port",
		"metrics.readers[0].name=bob":                "/metrics/readers/0",
		"monitoring.interval=often":                  "/monitoring/interval",
		"monitoring.interval=":                       "/monitoring/interval",
		"monitoring.interval=30s1m":                  "/monitoring/interval", // the larger units are first
		"crds.keep=maybe":                            "/crds/keep",
		`commonLabels.app\.kubernetes\.io/name=mine`: "app.kubernetes.io/name", // which selects pods
	} {
		t.Run(set, func(t *testing.T) {
			_, err := tool(t, "HELM", "template", "switchboard", chart, "--set", set)
			refusal(t, err, named)
		})
	}
}

// refusal checks that a tool refused what it was given, and what it said of it:
// the first line repeats the command.
func refusal(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil {
		t.Fatal("it is not refused")
	}
	if _, said, _ := strings.Cut(err.Error(), "\n"); !strings.Contains(said, want) {
		t.Errorf("error %q, want one that says %s", said, want)
	}
}

func TestWhatCantBeInstalledIsRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		want string // in the error; none: it renders
	}{
		"monitors without their resource":     {[]string{"--set", "monitoring.enabled=true"}, "install the Prometheus operator first"},
		"monitors, and the resource is there": {[]string{"--set", "monitoring.enabled=true", "--api-versions", "monitoring.coreos.com/v1"}, ""},
		"monitors, unseen":                    {[]string{"--set", "monitoring.enabled=true,checkAPIs=false"}, ""},
		"alerts on metrics nobody finds":      {[]string{"--set", "monitoring.enabled=true,checkAPIs=false,metrics.service.create=false"}, "set metrics.service.create=true, or monitoring.rules=false"},
		"the ServiceAccount of everybody":     {[]string{"--set", "serviceAccount.create=false"}, "needs serviceAccount.name"},
		"the same, wanted":                    {[]string{"--set", "serviceAccount.create=false,serviceAccount.name=default"}, ""},
		"readers without roles":               {[]string{"--set", "rbac.create=false,metrics.readers[0].name=prometheus-k8s,metrics.readers[0].namespace=monitoring"}, "needs rbac.create"},
		"readers of what everybody reads":     {[]string{"--set", "rbac.create=false,metrics.secure=false,metrics.readers[0].name=prometheus-k8s,metrics.readers[0].namespace=monitoring"}, ""},
		"monitors of nodes alone":             {[]string{"--set", "monitoring.enabled=true,checkAPIs=false,metrics.service.create=false,monitoring.rules=false"}, ""},
		"Hubs, which another chart makes now": {[]string{"--set", "hubs[0].name=agents"}, "a Hub is a release of the chart switchboard-hub now"},
		"no Hubs, as --reuse-values brings":   {[]string{"--set-json", "hubs=[]"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tool(t, "HELM", append([]string{"template", "switchboard", chart}, tt.args...)...)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestIntervalsArePrometheus(t *testing.T) {
	for _, interval := range []string{"500ms", "30s", "1m30s", "1h", "1d12h"} {
		rendered := helmTemplate(t, "--set", "monitoring.enabled=true,checkAPIs=false,monitoring.interval="+interval)
		spec := objects(t, rendered)["ServiceMonitor switchboard-operator"]["spec"].(map[string]any)
		if got := spec["endpoints"].([]any)[0].(map[string]any)["interval"]; got != interval {
			t.Errorf("got interval %v, want %s", got, interval)
		}
	}
}

func TestDigestWinsOverTheTag(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	for set, want := range map[string]string{
		"image.digest=" + digest:                       "ghcr.io/switchboardhub/switchboard@" + digest,
		"image.digest=" + digest + ",image.tag=v9":     "ghcr.io/switchboardhub/switchboard@" + digest,
		"image.tag=v9":                                 "ghcr.io/switchboardhub/switchboard:v9",
		"image.tag=9,image.repository=registry:5000/x": "registry:5000/x:9",
	} {
		t.Run(set, func(t *testing.T) {
			deployment := objects(t, helmTemplate(t, "--set-string", set))["Deployment switchboard-operator"]
			template := deployment["spec"].(map[string]any)["template"].(map[string]any)
			operator := template["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)
			if got := operator["image"]; got != want {
				t.Errorf("the operator's image is %v, want %s", got, want)
			}
			if got := operator["env"].([]any)[0].(map[string]any)["value"]; got != want {
				t.Errorf("the nodes' image is %v, want %s", got, want)
			}
		})
	}
}

// TestNamesOfDigitsAreText gives each name that a user chooses as a number looks: an
// unquoted one is no text, and the API server refuses it.
func TestNamesOfDigitsAreText(t *testing.T) {
	for chart, args := range map[string][]string{
		chart: {
			"--set-string", "watchNamespaces={1,2},fullnameOverride=3,serviceAccount.name=4,priorityClassName=5,nodeImage=6",
			"--set-string", "metrics.readers[0].name=7,metrics.readers[0].namespace=8", "--set", "replicas=2,monitoring.enabled=true,checkAPIs=false,crds.install=false",
		},
		hubChart: {"--set", "checkAPIs=false,name=agents", "--set-string", "topics[0].name=1"},
	} {
		t.Run(chart, func(t *testing.T) {
			out, err := tool(t, "HELM", append([]string{"template", "123", chart, "--namespace", "456"}, args...)...)
			if err != nil {
				t.Fatal(err)
			}
			for which, obj := range objects(t, out) {
				textOnly(t, which, obj)
			}
		})
	}
}

// textOnly reports each number where only text may stand.
func textOnly(t *testing.T, at string, v any) {
	t.Helper()
	switch v := v.(type) {
	case map[string]any:
		for key, val := range v {
			at := at + "." + key
			switch key {
			case "name", "namespace", "serviceAccountName", "priorityClassName", "value":
				if _, ok := val.(string); !ok {
					t.Errorf("%s is %v, a %T", at, val, val)
				}
			case "labels", "matchLabels", "selector":
				for label, val := range val.(map[string]any) {
					switch val.(type) {
					case string, map[string]any: // the latter where a selector has matchLabels
					default:
						t.Errorf("%s.%s is %v, a %T", at, label, val, val)
					}
				}
			}
			textOnly(t, at, val)
		}
	case []any:
		for i, val := range v {
			textOnly(t, fmt.Sprintf("%s[%d]", at, i), val)
		}
	}
}

// TestNullIsNone takes values away as `key:` with nothing behind it does.
func TestNullIsNone(t *testing.T) {
	for _, value := range []string{"commonLabels", "commonAnnotations", "podAnnotations", "nodeSelector", "imagePullSecrets", "watchNamespaces", "extraArgs", "metrics.readers", "monitoring.labels", "monitoring.dashboard.labels"} {
		t.Run(value, func(t *testing.T) {
			with := []string{"--set", "monitoring.enabled=true,checkAPIs=false"}
			want := objects(t, helmTemplate(t, with...))
			if value == "monitoring.dashboard.labels" { // the one that is not empty by default
				delete(want["ConfigMap switchboard-operator-dashboard"]["metadata"].(map[string]any)["labels"].(map[string]any), "grafana_dashboard")
			}
			if diff := cmp.Diff(want, objects(t, helmTemplate(t, append(with, "--set", value+"=null")...))); diff != "" {
				t.Errorf("(-empty +null):\n%s", diff)
			}
		})
	}
}

func TestNodesAreMonitoredWhereHubsAre(t *testing.T) {
	for namespaces, want := range map[string]map[string]any{
		"null":            {"any": true},
		"{team-a,team-b}": {"matchNames": []any{"team-a", "team-b"}},
	} {
		rendered := helmTemplate(t, "--set", "monitoring.enabled=true,checkAPIs=false", "--set", "watchNamespaces="+namespaces)
		spec := objects(t, rendered)["PodMonitor switchboard-operator-nodes"]["spec"].(map[string]any)
		if diff := cmp.Diff(want, spec["namespaceSelector"]); diff != "" {
			t.Errorf("namespaces %s (-want +got):\n%s", namespaces, diff)
		}
	}
}

// TestRightsAreTheLeast reads the roles of each profile. That the operator uses
// each verb is a test of controllers.
func TestRightsAreTheLeast(t *testing.T) {
	type rule struct {
		Resources, Verbs []string
		APIGroups        []string `yaml:"apiGroups"`
	}
	for _, profile := range []string{"default", "namespaces", "everything"} {
		rendered, err := os.ReadFile(filepath.Join("testdata", profile+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		roles := 0
		dec := yaml.NewDecoder(bytes.NewReader(rendered))
		for {
			var role struct {
				Kind     string
				Metadata struct {
					Name   string
					Labels map[string]string
				}
				Rules []rule
			}
			err := dec.Decode(&role)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if role.Kind != "Role" && role.Kind != "ClusterRole" {
				continue
			}
			roles++
			for _, r := range role.Rules {
				at := fmt.Sprintf("%s: %s %s: %+v", profile, role.Kind, role.Metadata.Name, r)
				if slices.Contains(slices.Concat(r.Resources, r.Verbs, r.APIGroups), "*") {
					t.Errorf("%s: a wildcard", at)
				}
				if slices.Contains(r.Resources, "secrets") && slices.ContainsFunc(r.Verbs, func(v string) bool { return v == "list" || v == "watch" || v == "delete" }) {
					t.Errorf("%s: Secrets are got by name only", at)
				}
				// Roles that others have are no right of the operator.
				others := role.Metadata.Labels["rbac.authorization.k8s.io/aggregate-to-admin"] != ""
				reviews := slices.Contains(r.Resources, "tokenreviews") || slices.Contains(r.Resources, "subjectaccessreviews")
				if profile == "namespaces" && role.Kind == "ClusterRole" && len(r.Resources) > 0 && !reviews && !others {
					t.Errorf("%s: a right in all namespaces", at)
				}
			}
		}
		if roles == 0 {
			t.Errorf("%s has no roles", profile)
		}
	}
}

func TestNotesSayTheNextCommand(t *testing.T) {
	// --dry-run=client would read the cluster's version; template has no notes.
	notes, err := os.ReadFile(filepath.Join(chart, "templates", "NOTES.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"kubectl apply", "kind: Hub", "kubectl wait"} {
		if !strings.Contains(string(notes), want) {
			t.Errorf("the notes lack %q", want)
		}
	}
}

// value is a leaf of values.yaml: what a user sets.
type value struct{ path, preset, about string }

// values lists the leaves of a chart's values.yaml with their comments. A mapping whose
// elements have no comment of their own is a leaf.
func values(t *testing.T, chart string) []value {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	var found []value
	var walk func(n *yaml.Node, path string)
	walk = func(n *yaml.Node, path string) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, val := n.Content[i], n.Content[i+1]
			at := strings.TrimPrefix(path+"."+key.Value, ".")
			if val.Kind == yaml.MappingNode && len(val.Content) > 0 && val.Content[0].HeadComment != "" {
				walk(val, at)
				continue
			}
			about := strings.Join(strings.Fields(strings.ReplaceAll(key.HeadComment, "#", " ")), " ")
			if about == "" {
				t.Errorf("values.yaml says nothing about %s", at)
			}
			var v any
			if err := val.Decode(&v); err != nil {
				t.Fatal(err)
			}
			preset, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, value{at, string(preset), about})
		}
	}
	walk(doc.Content[0], "")
	return found
}

func TestReadmeListsTheValues(t *testing.T) {
	for _, chart := range []string{chart, hubChart} {
		var table strings.Builder
		table.WriteString("| value | default | what it is |\n| --- | --- | --- |\n")
		for _, v := range values(t, chart) {
			fmt.Fprintf(&table, "| `%s` | `%s` | %s |\n", v.path, v.preset, v.about)
		}
		file := filepath.Join(chart, "README.md")
		readme, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		const end = "<!-- /values -->"
		before, rest, ok := strings.Cut(string(readme), "<!-- values:")
		marker, rest, ok2 := strings.Cut(rest, "\n")
		_, after, ok3 := strings.Cut(rest, end)
		if !ok || !ok2 || !ok3 {
			t.Fatalf("%s has no place for the table", file)
		}
		golden(t, file, before+"<!-- values:"+marker+"\n"+table.String()+end+after)
	}
}

func TestSchemaKnowsTheValues(t *testing.T) {
	type schema struct {
		Properties map[string]json.RawMessage `json:"properties"`
	}
	for _, chart := range []string{chart, hubChart} {
		data, err := os.ReadFile(filepath.Join(chart, "values.schema.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range values(t, chart) {
			at := json.RawMessage(data)
			for key := range strings.SplitSeq(v.path, ".") {
				var s schema
				if err := json.Unmarshal(at, &s); err != nil {
					t.Fatal(err)
				}
				if at = s.Properties[key]; at == nil {
					t.Errorf("%s/values.schema.json does not know %s", chart, v.path)
					break
				}
			}
		}
	}
}

// golden compares got with a file, or writes the file.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; go test ./charts -update writes it", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is stale; go test ./charts -update writes it (-file +now):\n%s", file, diff)
	}
}
