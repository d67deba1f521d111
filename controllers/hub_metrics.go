package controllers

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

var (
	hubCondition = prometheus.NewDesc("switchboard_hub_condition",
		"1 for each condition that a Hub has, with the status and the reason that it has now.",
		[]string{"namespace", "hub", "type", "status", "reason"}, nil)
	hubReplicas = prometheus.NewDesc("switchboard_hub_replicas",
		"Nodes that a Hub asks for.", []string{"namespace", "hub"}, nil)
	hubReadyReplicas = prometheus.NewDesc("switchboard_hub_ready_replicas",
		"Nodes of a Hub that are ready.", []string{"namespace", "hub"}, nil)
)

// readForMetrics bounds how long a scrape waits for a cache that can't be
// filled, as when the right to list Hubs is missing.
const readForMetrics = time.Second

// HubMetrics tells of each Hub what its status says: at most thirteen conditions and
// two numbers. Among several operators only the one that acts tells it.
type HubMetrics struct {
	// Reader reads from the manager's cache: a scrape asks the API server nothing.
	Reader client.Reader
	// Acting is closed when this operator is the one that acts.
	Acting <-chan struct{}
}

// Describe implements prometheus.Collector.
func (m HubMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- hubCondition
	ch <- hubReplicas
	ch <- hubReadyReplicas
}

// Collect implements prometheus.Collector. Without Hubs to read it says nothing:
// an error here would take the other metrics with it.
func (m HubMetrics) Collect(ch chan<- prometheus.Metric) {
	select {
	case <-m.Acting:
	default:
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), readForMetrics)
	defer cancel()
	hubs := &switchboardv1alpha1.HubList{}
	if m.Reader.List(ctx, hubs, client.UnsafeDisableDeepCopy) != nil {
		return
	}
	for i := range hubs.Items {
		hub := &hubs.Items[i]
		gauge := func(d *prometheus.Desc, v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{hub.Namespace, hub.Name}, labels...)...)
		}
		gauge(hubReplicas, float64(manifests.Replicas(hub)))
		gauge(hubReadyReplicas, float64(hub.Status.ReadyReplicas))
		told := make(map[string]bool, len(hub.Status.Conditions))
		for _, c := range hub.Status.Conditions {
			if switchboardv1alpha1.IsHubCondition(c.Type) && !told[c.Type] {
				told[c.Type] = true
				gauge(hubCondition, 1, c.Type, string(c.Status), c.Reason)
			}
		}
	}
}
