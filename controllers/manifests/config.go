package manifests

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/tenancy"
)

// ConfigMap holds the nodes' settings: rendered is what NodeConfig returns, as
// a file. clusterKeys are the cluster's public keys for tokens of ServiceAccounts, nil
// where these are not taken.
func ConfigMap(hub *switchboardv1alpha1.Hub, rendered, clusterKeys []byte) *corev1ac.ConfigMapApplyConfiguration {
	data := map[string]string{ConfigKey: string(rendered)}
	if len(clusterKeys) > 0 {
		data[ClusterKeysKey] = string(clusterKeys)
	}
	return ownedBy(hub, corev1ac.ConfigMap(ConfigMapName(hub), hub.Namespace)).WithData(data)
}

// NodeConfig is the settings that all nodes of the Hub share. What differs
// between them, name and address, comes from each pod's environment. It is not
// validated, and lacks who issues the cluster's tokens and what Topics and Grants say.
func NodeConfig(hub *switchboardv1alpha1.Hub) config.Config {
	spec := &hub.Spec
	c := config.Default()
	c.Hub = Identity(hub)
	c.Replicas = int(Replicas(hub))
	c.Peers = []string{fmt.Sprintf("%s.%s.svc:%d", PeerServiceName(hub), hub.Namespace, PortGossip)}
	c.GossipKeyFile = gossipDir + "/" + GossipKey
	if ServesTLS(hub) {
		c.TLS.Clients, c.TLS.Directory = config.TLSPolicy(spec.TLS.Clients), tlsDir
	}
	c.Authentication, c.Authorization = authentication(hub), authorization(hub)
	if spec.Tenancy != "" {
		c.Tenancy = config.Tenancy(spec.Tenancy)
	}
	c.HealthCheck = config.HealthCheck{
		Interval:         config.Duration(spec.HealthCheck.Interval.Duration),
		Timeout:          config.Duration(spec.HealthCheck.Timeout.Duration),
		FailureThreshold: int(spec.HealthCheck.FailureThreshold),
	}
	c.History = config.History{
		MaxArtifacts: int(spec.History.MaxArtifacts),
		MaxBytes:     config.Bytes(spec.History.MaxBytes.Value()),
		MaxAge:       config.Duration(spec.History.MaxAge.Duration),
	}
	for _, t := range spec.Topics {
		c.Topics = append(c.Topics, TopicConfig(string(t.Pattern), t.TopicSettings))
	}
	c.Storage = storage(spec.Storage)
	c.Sessions = config.Sessions{
		ResumeWindow: config.Duration(spec.Sessions.ResumeWindow.Duration),
		Rebalance:    spec.Sessions.Rebalance,
	}
	c.Limits = config.Limits{
		MaxClients:       int(spec.Limits.MaxClients),
		MaxArtifactSize:  config.Bytes(spec.Limits.MaxArtifactSize.Value()),
		MaxPendingBytes:  config.Bytes(spec.Limits.MaxPendingBytes.Value()),
		SlowClientPolicy: config.SlowClientPolicy(spec.Limits.SlowClientPolicy),
		ConflateKey:      spec.Limits.ConflateKey,

		ConnectionsPerSecond: int(spec.Limits.ConnectionsPerSecond),
	}
	if q := spec.Limits.PerAddress; q != nil {
		c.Limits.PerAddress = config.AddressQuota{Connections: int(q.Connections), ConnectionsPerSecond: int(q.ConnectionsPerSecond)}
	}
	if q := spec.Limits.PerNamespace; q != nil && q.HistoryBytes != nil {
		c.Limits.PerNamespace.HistoryBytes = config.Bytes(q.HistoryBytes.Value())
	}
	if q := spec.Limits.PerIdentity; q != nil {
		c.Limits.PerIdentity = config.Quota{
			Clients: int(q.Clients), Subscriptions: int(q.Subscriptions), ArtifactsPerSecond: int(q.ArtifactsPerSecond),
		}
		if q.BytesPerSecond != nil {
			c.Limits.PerIdentity.BytesPerSecond = config.Bytes(q.BytesPerSecond.Value())
		}
	}
	c.Drain.Timeout = config.Duration(spec.Drain.Timeout.Duration)
	return c
}

// TopicConfig is what nodes' settings say of the topics that match a pattern.
func TopicConfig(pattern string, s switchboardv1alpha1.TopicSettings) config.Topic {
	return config.Topic{Pattern: pattern, History: topicHistory(s.History), Filter: s.Filter}
}

// storage is how nodes keep history.
func storage(s *switchboardv1alpha1.StorageSpec) config.Storage {
	c := config.Default().Storage
	if s == nil {
		return c
	}
	if s.Size != nil {
		c.Dir = storageDir
	}
	if s.Sync != "" {
		c.Sync = config.SyncPolicy(s.Sync)
	}
	if s.SyncInterval.Duration != 0 {
		c.SyncInterval = config.Duration(s.SyncInterval.Duration)
	}
	if s.Replicas != 0 {
		c.Replicas = int(s.Replicas)
	}
	if s.Shards != 0 {
		c.Shards = int(s.Shards)
	}
	return c
}

// topicHistory keeps what is absent absent: a node fills it in from the hub's
// history.
func topicHistory(h *switchboardv1alpha1.TopicHistorySpec) *config.TopicHistory {
	if h == nil {
		return nil
	}
	return &config.TopicHistory{
		MaxArtifacts: convert(h.MaxArtifacts, func(n int64) int { return int(n) }),
		MaxBytes:     convert(h.MaxBytes, func(q resource.Quantity) config.Bytes { return config.Bytes(q.Value()) }),
		MaxAge:       convert(h.MaxAge, func(d metav1.Duration) config.Duration { return config.Duration(d.Duration) }),
	}
}

// convert returns nil for nil, and otherwise what to makes of the value.
func convert[A, B any](a *A, to func(A) B) *B {
	if a == nil {
		return nil
	}
	b := to(*a)
	return &b
}

// TenantOf returns whose names the resources of a namespace are in.
func TenantOf(hub *switchboardv1alpha1.Hub, namespace string) tenancy.Tenant {
	if hub.Spec.Tenancy == switchboardv1alpha1.TenancyNamespace {
		return tenancy.Tenant(namespace)
	}
	return ""
}

// TopicPattern returns what the hub calls the topics of a Topic.
func TopicPattern(hub *switchboardv1alpha1.Hub, t *switchboardv1alpha1.Topic) string {
	return TenantOf(hub, t.Namespace).Topic(t.Pattern())
}
