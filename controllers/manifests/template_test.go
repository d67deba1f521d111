package manifests_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	"sigs.k8s.io/yaml"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

// Whatever of a spec goes into the pod template, a change of it reaches nodes that an
// earlier operator has started; and nothing else does.
func TestTemplateIsKeptUntilAFieldChangesThatGoesIntoIt(t *testing.T) {
	replacing := make(map[string]bool)
	for _, c := range specChanges(t) {
		before, after := manifests.StatefulSet(c.before, "switchboard:1"), manifests.StatefulSet(c.after, "switchboard:1")
		same := cmp.Equal(before.Spec.Template, after.Spec.Template)
		if c.what == "pod" {
			same = false // an empty one has counted as a change since the first version
		}
		if !same {
			replacing[c.what] = true
		}
		updated := manifests.StatefulSet(c.after, "switchboard:2")
		if kept := manifests.KeepTemplate(updated, before); kept != same {
			t.Errorf("%s: the template is kept: %v; want %v", c.what, kept, same)
		}
		updated = manifests.StatefulSet(c.after, "switchboard:2")
		if kept, err := manifests.KeepRevision(updated, revisionOf(t, before)); err != nil || kept != same {
			t.Errorf("%s: the template of a revision is kept: %v, %v; want %v", c.what, kept, err, same)
		}
	}
	for _, want := range []string{
		"image", "imagePullPolicy=Never", "imagePullSecrets[].name", "resources", "resources.limits", "drain.timeout", "storage.size", "tls.clients=Required",
		"authentication.serviceAccount.tokenReview=Fallback", "authentication.mutualTLS.secretName", "authentication.static.key", "authentication.oidc[].caConfigMapName",
		"pod.annotations", "pod.env[].value", "pod.volumes[].claimName", "pod.tolerations[].key",
	} {
		if !replacing[want] {
			t.Errorf("%s changes no template, or was not looked at", want)
		}
	}
}

// The operator before knew nothing of it, and wrote the same of a Hub that has it as of
// one that has not: what it wrote does not say which.
func TestNodesGetWhatTheyNeedToAskTheAPIServer(t *testing.T) {
	with := func(review switchboardv1alpha1.TokenReview) *switchboardv1alpha1.Hub {
		hub := plainHub()
		hub.Spec.Authentication = &switchboardv1alpha1.AuthenticationSpec{
			ServiceAccount: &switchboardv1alpha1.ServiceAccountAuthentication{TokenReview: review},
			Static:         &switchboardv1alpha1.StaticAuthentication{SecretName: "tokens"}, // which is in the same volume
		}
		return hub
	}
	const never, fallback = switchboardv1alpha1.TokenReviewNever, switchboardv1alpha1.TokenReviewFallback
	for what, tt := range map[string]struct {
		before, now switchboardv1alpha1.TokenReview
		want        bool
	}{
		"never":                   {never, never, true},
		"from the start":          {fallback, fallback, true},
		"set on a running hub":    {never, fallback, false},
		"removed from one":        {fallback, never, false},
		"never, and then said so": {"", never, true},
	} {
		t.Run(what, func(t *testing.T) {
			earlier := manifests.StatefulSet(with(tt.before), "switchboard:1")
			if got, want := earlier.Annotations[manifests.AnnotationInputs], "44d095b1eb61cc9f"; got != want {
				t.Errorf("the template's inputs are %s; the version before wrote %s, and its nodes would be restarted", got, want)
			}
			desired := manifests.StatefulSet(with(tt.now), "switchboard:2")
			wanted := desired.Spec.Template
			if got := manifests.KeepTemplate(desired, earlier); got != tt.want {
				t.Errorf("the template is kept: %v; want %v", got, tt.want)
			}
			template := earlier.Spec.Template
			if !tt.want {
				template = wanted
			}
			if diff := cmp.Diff(template, desired.Spec.Template); diff != "" {
				t.Errorf("the template (-want +got):\n%s", diff)
			}
		})
	}
}

// revisionOf is what Kubernetes keeps of a StatefulSet.
func revisionOf(t *testing.T, set *appsv1ac.StatefulSetApplyConfiguration) *appsv1.ControllerRevision {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"spec": map[string]any{"template": set.Spec.Template}})
	if err != nil {
		t.Fatal(err)
	}
	return &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Annotations: set.Annotations}, Data: runtime.RawExtension{Raw: raw}}
}

// specChange is a Hub with one field, and before it had it.
type specChange struct {
	what          string
	before, after *switchboardv1alpha1.Hub
}

// specChanges sets each field that a spec can have, by itself, and each word that it
// can be where there are only some.
func specChanges(t *testing.T) []specChange {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "config", "crd", "bases", "switchboard.dev_hubs.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(data, crd); err != nil {
		t.Fatal(err)
	}
	var all []specChange
	// in puts a value where it belongs in a spec.
	var walk func(schema *apiextensionsv1.JSONSchemaProps, path string, in func(value any) any)
	walk = func(schema *apiextensionsv1.JSONSchemaProps, path string, in func(value any) any) {
		if schema.Items != nil {
			walk(schema.Items.Schema, path+"[]", func(value any) any { return in([]any{value}) })
			return
		}
		for name, property := range schema.Properties {
			field, inField := name, func(value any) any { return in(map[string]any{name: value}) }
			if path != "" {
				field = path + "." + name
			}
			before, err := hubWith(in(map[string]any{}))
			if err != nil {
				t.Fatalf("without %s: %v", field, err)
			}
			set := false
			for _, value := range samples(&property) {
				after, err := hubWith(inField(value))
				if err != nil {
					continue // a word where a number, a time or an amount has to be
				}
				what := field
				if len(property.Enum) > 0 {
					what = fmt.Sprintf("%s=%v", field, value)
				} else if set {
					continue
				}
				all, set = append(all, specChange{what, before, after}), true
			}
			if !set {
				t.Errorf("no value is known for %s", field)
			}
			walk(&property, field, inField)
		}
	}
	spec := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
	walk(&spec, "", func(value any) any { return value })
	return all
}

// samples are values of a schema's type, one of which fits.
func samples(schema *apiextensionsv1.JSONSchemaProps) []any {
	var all []any
	switch {
	case len(schema.Enum) > 0:
		for _, word := range schema.Enum {
			all = append(all, string(bytes.Trim(word.Raw, `"`)))
		}
	case schema.Items != nil:
		for _, item := range samples(schema.Items.Schema) {
			all = append(all, []any{item})
		}
	case schema.AdditionalProperties != nil:
		for _, value := range samples(schema.AdditionalProperties.Schema) {
			all = append(all, map[string]any{"k": value})
		}
	case schema.Type == "object":
		return []any{map[string]any{}}
	default:
		return []any{"x", "7s", "7", 7, true}
	}
	return all
}

// hubWith is a Hub whose spec says this beside what every spec has.
func hubWith(spec any) (*switchboardv1alpha1.Hub, error) {
	hub := plainHub()
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	return hub, json.Unmarshal(text, &hub.Spec)
}
