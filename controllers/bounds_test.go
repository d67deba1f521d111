package controllers_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/switchboardhub/switchboard/hubnode/config"
)

// What the API server takes at most is what nodes take at most, and what the operator
// counts with.
func TestNumbersHaveTheBoundsThatNodesHave(t *testing.T) {
	for resource, want := range map[string]map[string]float64{
		"hubs": {
			"replicas":                      config.MaxReplicas,
			"healthCheck.failureThreshold":  config.MaxFailureThreshold,
			"history.maxArtifacts":          config.MaxArtifacts,
			"topics[].history.maxArtifacts": config.MaxArtifacts,
			"storage.shards":                config.MaxShards,
			"storage.replicas":              config.MaxShardReplicas,
			"limits.maxClients":             config.MaxClients,
			"limits.connectionsPerSecond":   config.MaxRate,

			"limits.perAddress.connections":          config.MaxRate,
			"limits.perAddress.connectionsPerSecond": config.MaxRate,
			"limits.perIdentity.artifactsPerSecond":  config.MaxRate,
			"limits.perIdentity.subscriptions":       config.MaxRate,
			"limits.perIdentity.clients":             config.MaxClients, // nodes take more: there can't be as many
		},
		"topics": {"history.maxArtifacts": config.MaxArtifacts},
		"grants": {},
	} {
		got := make(map[string]float64)
		var walk func(schema apiextensionsv1.JSONSchemaProps, path string)
		walk = func(schema apiextensionsv1.JSONSchemaProps, path string) {
			if schema.Maximum != nil {
				got[path] = *schema.Maximum
			}
			if schema.Items != nil {
				walk(*schema.Items.Schema, path+"[]")
			}
			for name, property := range schema.Properties {
				walk(property, strings.TrimPrefix(path+"."+name, "."))
			}
		}
		walk(definition(t, "switchboard.dev_"+resource+".yaml")["spec"], "")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the most that numbers of %s can be (-nodes +API):\n%s", resource, diff)
		}
	}
}
