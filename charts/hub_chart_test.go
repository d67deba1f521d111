package charts_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestHubChartRenders(t *testing.T) {
	for name, args := range map[string][]string{
		"hub":            {"--api-versions", "switchboard.dev/v1alpha1"},
		"hub-everything": {"--values", filepath.Join("testdata", "hub-everything-values.yaml")},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tool(t, "HELM", append([]string{"template", "agents", hubChart, "--namespace", "team-a"}, args...)...)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", name+".yaml"), got)
		})
	}
}

func TestWrongValuesOfAHubAreRefused(t *testing.T) {
	for set, named := range map[string]string{
		"replicas=5":                             "replicas", // which is spec.replicas
		"hubs[0].name=agents":                    "hubs",
		"name=5":                                 "/name",
		"name=Bad_Name":                          "/name",
		"name=5th":                               "/name", // names of Services begin with a letter
		"topics[0].name=Bad_Name":                "/topics/0/name",
		"spec=3":                                 "/spec",
		"keep=maybe":                             "/keep",
		"topics[0].pattern=orders":               "/topics/0",
		"topics[0].name=orders,topics[0].spec=x": "/topics/0/spec",
		`labels.app\.kubernetes\.io/name=mine`:   "app.kubernetes.io/name",
		`annotations.helm\.sh/resource-policy=keep`: "helm.sh/resource-policy", // which is keep
		"checkAPIs=true": "install the chart switchboard first",
	} {
		t.Run(set, func(t *testing.T) {
			_, err := tool(t, "HELM", "template", "agents", hubChart, "--set", set)
			refusal(t, err, named)
		})
	}
}

func TestTopicsAreOfThisHub(t *testing.T) {
	for set, refused := range map[string]bool{
		"pattern=orders.>":                           false,
		"hubRef.name=agents":                         false,
		"hubRef.name=agents,hubRef.namespace=team-a": false,
		"hubRef.namespace=team-a":                    false,
		"hubRef.name=others":                         true,
		"hubRef.name=agents,hubRef.namespace=team-b": true,
		"hubRef.namespace=team-b":                    true,
		"hubRef=others":                              true,
	} {
		t.Run(set, func(t *testing.T) {
			args := []string{"template", "agents", hubChart, "--namespace", "team-a", "--set", "checkAPIs=false,topics[0].name=orders"}
			for s := range strings.SplitSeq(set, ",") {
				args = append(args, "--set", "topics[0].spec."+s)
			}
			out, err := tool(t, "HELM", args...)
			if refused {
				refusal(t, err, "hubRef")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			ref := objects(t, out)["Topic orders"]["spec"].(map[string]any)["hubRef"].(map[string]any)
			if ref["name"] != "agents" {
				t.Errorf("got hubRef %v, want the Hub agents", ref)
			}
		})
	}
}

// TestFirstHubIsInstalled installs both charts on a cluster that has had neither.
func TestFirstHubIsInstalled(t *testing.T) {
	const team = "team-a"
	c := startCluster(t)
	refused := func(want string, args ...string) {
		t.Helper()
		_, err := c.helm(t, team, args...)
		refusal(t, err, want)
	}
	refused("install the chart switchboard first", "install", "agents", hubChart, "--create-namespace")

	c.mustHelm(t, namespace, "install", "switchboard", chart, "--create-namespace")
	var notes string
	eventually(t, "install a Hub", func(context.Context) (err error) {
		notes, err = c.helm(t, team, "install", "agents", hubChart, "--create-namespace", //nolint:contextcheck // it has the test's
			"--set", "spec.replicas=5", "--set", "topics[0].name=orders,topics[0].spec.pattern=orders.>")
		return err
	})
	for _, want := range []string{"hub/agents", "kubectl hub status agents -n team-a", "agents.team-a.svc:7400"} {
		if !strings.Contains(notes, want) {
			t.Errorf("the notes lack %q:\n%s", want, notes)
		}
	}
	agents, orders := hub(team, "agents"), object("Topic", team, "orders")
	see := func(obj *unstructured.Unstructured, want map[string]any) {
		t.Helper()
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(obj), obj); err != nil {
			t.Fatal(err)
		}
		for field, value := range want {
			got, _, _ := unstructured.NestedFieldNoCopy(obj.Object, "spec", field)
			if diff := cmp.Diff(value, got); diff != "" {
				t.Errorf("%s %s: spec.%s (-want +got):\n%s", obj.GetKind(), obj.GetName(), field, diff)
			}
		}
	}
	see(agents, map[string]any{"replicas": int64(5)})
	see(orders, map[string]any{"pattern": "orders.>", "hubRef": map[string]any{"name": "agents"}})

	refused("spec.replicas: Invalid value", "upgrade", "agents", hubChart, "--set", "spec.replicas=-1")
	refused(".spec.replica: field not declared", "upgrade", "agents", hubChart, "--set", "spec.replica=5")
	refused("spec.history.maxAge: Invalid value", "install", "others", hubChart, "--set", "spec.history.maxAge=soon")

	c.mustHelm(t, team, "upgrade", "agents", hubChart, "--set", "keep=true")
	see(agents, map[string]any{"replicas": int64(3)}) // the definition's default again
	gone := func(obj *unstructured.Unstructured, after string) {
		t.Helper()
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(obj), obj); !apierrors.IsNotFound(err) {
			t.Errorf("%s %s after %s: %v, want not found", obj.GetKind(), obj.GetName(), after, err)
		}
	}
	gone(orders, "it was taken out of the values")

	c.mustHelm(t, team, "uninstall", "agents")
	see(agents, nil)
	c.mustHelm(t, team, "install", "agents", hubChart, "--take-ownership")
	c.mustHelm(t, team, "uninstall", "agents")
	gone(agents, "uninstalling")
}
