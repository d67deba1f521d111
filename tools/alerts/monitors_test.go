package alerts

import (
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"go.yaml.in/yaml/v3"
	kyaml "sigs.k8s.io/yaml"
)

// TestMonitorsAreOfTheirKind reads them as the Prometheus operator does: a field
// that it does not know would be dropped without a word.
func TestMonitorsAreOfTheirKind(t *testing.T) {
	for kind, spec := range map[string]any{
		monitoringv1.ServiceMonitorsKind: &monitoringv1.ServiceMonitorSpec{},
		monitoringv1.PodMonitorsKind:     &monitoringv1.PodMonitorSpec{},
		monitoringv1.PrometheusRuleKind:  &monitoringv1.PrometheusRuleSpec{},
	} {
		t.Run(kind, func(t *testing.T) {
			data, err := yaml.Marshal(rendered(t, kind, ""))
			if err != nil {
				t.Fatal(err)
			}
			if err := kyaml.UnmarshalStrict(data, spec); err != nil {
				t.Error(err)
			}
		})
	}
}
