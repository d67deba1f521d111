package controllers_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// TestReferenceNamesEveryField compares the pages of docs/reference with the schemas.
func TestReferenceNamesEveryField(t *testing.T) {
	for resource, page := range map[string]string{"hubs": "hub.md", "topics": "topic.md", "grants": "grant.md"} {
		t.Run(page, func(t *testing.T) { compareReference(t, "switchboard.dev_"+resource+".yaml", page) })
	}
}

// definition returns the schemas of a resource, by the names of their fields.
func definition(t *testing.T, file string) map[string]apiextensionsv1.JSONSchemaProps {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "config", "crd", "bases", file))
	if err != nil {
		t.Fatal(err)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(data, crd); err != nil {
		t.Fatal(err)
	}
	return crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties
}

func compareReference(t *testing.T, file, name string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "docs", "reference", name))
	if err != nil {
		t.Fatal(err)
	}
	// Kubernetes' own types and lists of words, which the pages do not take apart.
	whole := map[string]bool{
		"resources.requests": true, "resources.limits": true, "imagePullSecrets": true, "conditions": true, "allowedTopicNamespaces": true, "tls.extraNames": true,
		"authentication.oidc[].audiences": true, "authorization.delegations[].namespaces": true, "authorization.delegations[].topics": true, "authorization.delegations[].clients": true,
		"authorization.rules[].connectAs": true, "authorization.rules[].sendTo": true, "authorization.rules[].publish": true, "authorization.rules[].subscribe": true, "authorization.rules[].history": true,
		"rules[].connectAs": true, "rules[].sendTo": true, "rules[].publish": true, "rules[].subscribe": true, "rules[].history": true,
		"pod.affinity": true, "pod.tolerations": true, "pod.topologySpreadConstraints": true,
		"pod.env[].secretKeyRef": true, "pod.env[].configMapKeyRef": true,
	}
	var walk func(schema apiextensionsv1.JSONSchemaProps, path string)
	walk = func(schema apiextensionsv1.JSONSchemaProps, path string) {
		if schema.Items != nil && !whole[path] {
			if !strings.Contains(string(page), "| `"+path+"` |") {
				t.Errorf("the page does not list %s", path)
			}
			schema, path = *schema.Items.Schema, path+"[]"
		}
		if len(schema.Properties) == 0 || whole[path] {
			if !strings.Contains(string(page), "| `"+path+"` |") {
				t.Errorf("the page does not list %s", path)
			}
			return
		}
		for name, property := range schema.Properties {
			walk(property, strings.TrimPrefix(path+"."+name, "."))
		}
	}
	top := definition(t, file)
	walk(top["spec"], "")
	walk(top["status"], "")
}
