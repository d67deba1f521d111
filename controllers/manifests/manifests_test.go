package manifests_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

var update = flag.Bool("update", false, "write the expected files")

// plainHub is a Hub without a spec, as the API server completes it.
func plainHub() *switchboardv1alpha1.Hub {
	d := func(d time.Duration) metav1.Duration { return metav1.Duration{Duration: d} }
	return &switchboardv1alpha1.Hub{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "agents", UID: "0b5c7f8a"},
		Spec: switchboardv1alpha1.HubSpec{
			Replicas:    new(int32(3)),
			HealthCheck: switchboardv1alpha1.HealthCheckSpec{Interval: d(10 * time.Second), Timeout: d(5 * time.Second), FailureThreshold: 3},
			History:     switchboardv1alpha1.HistorySpec{MaxBytes: resource.MustParse("64Mi"), MaxAge: d(time.Hour)},
			Sessions:    switchboardv1alpha1.SessionsSpec{ResumeWindow: d(30 * time.Second)},
			Limits: switchboardv1alpha1.LimitsSpec{
				MaxClients:       100000,
				MaxArtifactSize:  resource.MustParse("1Mi"),
				MaxPendingBytes:  resource.MustParse("16Mi"),
				SlowClientPolicy: switchboardv1alpha1.SlowClientDisconnect,
				ConflateKey:      "key",
			},
			Drain: switchboardv1alpha1.DrainSpec{Timeout: d(time.Minute)},
		},
	}
}

// fullHub says something about everything.
func fullHub() *switchboardv1alpha1.Hub {
	hub := plainHub()
	hub.Spec.Replicas = new(int32(5))
	hub.Spec.HealthCheck.FailureThreshold = 7
	hub.Spec.History.MaxArtifacts = 100
	hub.Spec.Topics = []switchboardv1alpha1.HubTopicSpec{
		{
			Pattern: "orders.>",
			TopicSettings: switchboardv1alpha1.TopicSettings{
				History: &switchboardv1alpha1.TopicHistorySpec{
					MaxArtifacts: new(int64(10000)),
					MaxBytes:     new(resource.MustParse("256Mi")),
					MaxAge:       &metav1.Duration{Duration: 24 * time.Hour},
				},
				Filter: `artifact.size <= 65536 && "tenant" in artifact.attributes`,
			},
		},
		{Pattern: "logs.*", TopicSettings: switchboardv1alpha1.TopicSettings{History: &switchboardv1alpha1.TopicHistorySpec{MaxArtifacts: new(int64(0))}}},
		{Pattern: "plain"},
	}
	hub.Spec.Limits.SlowClientPolicy = switchboardv1alpha1.SlowClientConflate
	hub.Spec.Limits.ConflateKey = "symbol"
	hub.Spec.Limits.ConnectionsPerSecond = 2000
	hub.Spec.Limits.PerAddress = &switchboardv1alpha1.AddressQuotaSpec{Connections: 500, ConnectionsPerSecond: 50}
	hub.Spec.Limits.PerNamespace = &switchboardv1alpha1.NamespaceQuotaSpec{HistoryBytes: new(resource.MustParse("10Gi"))}
	hub.Spec.Limits.PerIdentity = &switchboardv1alpha1.QuotaSpec{Clients: 100, Subscriptions: 1000, ArtifactsPerSecond: 5000, BytesPerSecond: new(resource.MustParse("8Mi"))}
	hub.Spec.Drain.Timeout.Duration = 1500 * time.Millisecond
	hub.Spec.Image = "registry.example/switchboard:1"
	hub.Spec.ImagePullPolicy = corev1.PullAlways
	hub.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
	hub.Spec.Service = &switchboardv1alpha1.ServiceSpec{
		Type:                  corev1.ServiceTypeLoadBalancer,
		Annotations:           map[string]string{"lb.example/kind": "internal"},
		LoadBalancerClass:     new("lb.example/fast"),
		ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal,
	}
	hub.Spec.ServiceAccount = &switchboardv1alpha1.ServiceAccountSpec{Annotations: map[string]string{"cloud.example/role": "hub"}}
	hub.Spec.Storage = &switchboardv1alpha1.StorageSpec{
		Size: new(resource.MustParse("10Gi")), StorageClassName: new("fast"), DeletionPolicy: switchboardv1alpha1.DeletionDelete,
	}
	hub.Spec.Pod = &switchboardv1alpha1.PodSpec{
		Labels:       map[string]string{"team": "blue"},
		Annotations:  map[string]string{"scrape.example/port": "7480"},
		NodeSelector: map[string]string{"disk": "fast"},
		Affinity: &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
				TopologyKey:   corev1.LabelHostname,
				LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "blue"}},
			}},
		}},
		Tolerations: []corev1.Toleration{{Key: "hubs", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}},
		TopologySpreadConstraints: []corev1.TopologySpreadConstraint{
			{MaxSkew: 1, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule},
		},
		PriorityClassName: "high",
		Env: []switchboardv1alpha1.EnvVar{
			{Name: "GOGC", Value: new("50")},
			{Name: "FROM_SECRET", SecretKeyRef: &switchboardv1alpha1.KeyRef{Name: "s", Key: "k"}},
			{Name: "FROM_CONFIG", ConfigMapKeyRef: &switchboardv1alpha1.KeyRef{Name: "c", Key: "k"}},
		},
		Volumes: []switchboardv1alpha1.Volume{
			{Name: "secret", MountPath: "/secret", SecretName: "s"},
			{Name: "settings", MountPath: "/settings", ConfigMapName: "c"},
			{Name: "shared", MountPath: "/shared", ClaimName: "p"},
		},
	}
	hub.Spec.TLS = &switchboardv1alpha1.TLSSpec{
		Clients:    switchboardv1alpha1.ClientTLSRequired,
		IssuerRef:  &switchboardv1alpha1.IssuerRef{Name: "corporate", Kind: "ClusterIssuer", Group: "cert-manager.io"},
		ExtraNames: []string{"hub.example.com", "192.0.2.7"},
	}
	hub.Spec.Authentication = &switchboardv1alpha1.AuthenticationSpec{
		ServiceAccount: &switchboardv1alpha1.ServiceAccountAuthentication{TokenReview: switchboardv1alpha1.TokenReviewFallback},
		OIDC: []switchboardv1alpha1.OIDCAuthentication{
			{Issuer: "https://login.example.com", Audiences: []string{"hub"}, NameClaim: "email", GroupsClaim: "groups", CAConfigMapName: "login-ca"},
			{Issuer: "https://ci.example.com", Audiences: []string{"hub", "ci"}, NameClaim: "sub"},
		},
		MutualTLS: &switchboardv1alpha1.MutualTLSAuthentication{SecretName: "clients-ca"},
		Static:    &switchboardv1alpha1.StaticAuthentication{SecretName: "tokens", Key: "list"},
	}
	hub.Spec.Tenancy = switchboardv1alpha1.TenancyNamespace
	hub.Spec.Authorization = &switchboardv1alpha1.AuthorizationSpec{Rules: []switchboardv1alpha1.HubRule{
		{
			Rule: switchboardv1alpha1.Rule{
				Name: "workers", When: `identity.serviceAccount == "worker"`,
				ConnectAs: []switchboardv1alpha1.ClientTemplate{"{namespace}/*"}, SendTo: []switchboardv1alpha1.ClientTemplate{"desk"},
				Publish: []switchboardv1alpha1.TopicTemplate{"jobs.{namespace}.>"}, Subscribe: []switchboardv1alpha1.TopicTemplate{"jobs.{namespace}.*"},
				History: []switchboardv1alpha1.TopicTemplate{"jobs.{namespace}.>"},
			},
		},
		{Rule: switchboardv1alpha1.Rule{Name: "keepers", When: `"keepers" in identity.groups`}, Admin: switchboardv1alpha1.AdminManage},
	}}
	hub.Spec.Resources = &switchboardv1alpha1.ResourcesSpec{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("4Gi")},
	}
	return hub
}

func TestBuilders(t *testing.T) {
	const image = "switchboard:1"
	builders := map[string]func(*switchboardv1alpha1.Hub) runtime.ApplyConfiguration{
		"configmap": func(h *switchboardv1alpha1.Hub) runtime.ApplyConfiguration {
			rendered, err := nodeConfig(h).Marshal()
			if err != nil {
				t.Fatal(err)
			}
			var keys []byte
			if manifests.TakesServiceAccounts(h) {
				keys = []byte(`{"keys":[]}`)
			}
			return manifests.ConfigMap(h, rendered, keys)
		},
		"secret": func(h *switchboardv1alpha1.Hub) runtime.ApplyConfiguration {
			return manifests.GossipSecret(h, []byte("key"), "")
		},
		"secret-rotating": func(h *switchboardv1alpha1.Hub) runtime.ApplyConfiguration {
			return manifests.GossipSecret(h, []byte("new\nold"), manifests.KeyUse)
		},
		"secret-ca": func(h *switchboardv1alpha1.Hub) runtime.ApplyConfiguration {
			return manifests.AuthoritySecret(h, map[string][]byte{"tls.crt": []byte("certificate"), "tls.key": []byte("key")})
		},
		"secret-node-tls": func(h *switchboardv1alpha1.Hub) runtime.ApplyConfiguration {
			rotation := manifests.Rotation{Phase: manifests.RotationTrust, Since: time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)}
			return manifests.NodeTLSSecret(h, map[string][]byte{"tls.crt": []byte("certificate"), "tls.key": []byte("key"), "ca.crt": []byte("authorities")}, rotation)
		},
		"secret-cluster-tls": func(h *switchboardv1alpha1.Hub) runtime.ApplyConfiguration {
			return manifests.ClusterTLSSecret(h, map[string][]byte{"tls.crt": []byte("certificate"), "tls.key": []byte("key"), "ca.crt": []byte("authorities")}, manifests.Rotation{Phase: manifests.RotationIssue})
		},
		"secret-cluster-authority": func(h *switchboardv1alpha1.Hub) runtime.ApplyConfiguration {
			return manifests.ClusterAuthoritySecret(h, map[string][]byte{"tls.crt": []byte("certificate"), "tls.key": []byte("key")})
		},
		"configmap-ca": func(h *switchboardv1alpha1.Hub) runtime.ApplyConfiguration {
			return manifests.TrustConfigMap(h, []byte("authorities"))
		},
		"serviceaccount":      func(h *switchboardv1alpha1.Hub) runtime.ApplyConfiguration { return manifests.ServiceAccount(h) },
		"service":             func(h *switchboardv1alpha1.Hub) runtime.ApplyConfiguration { return manifests.Service(h) },
		"service-peers":       func(h *switchboardv1alpha1.Hub) runtime.ApplyConfiguration { return manifests.PeerService(h) },
		"networkpolicy":       func(h *switchboardv1alpha1.Hub) runtime.ApplyConfiguration { return manifests.NetworkPolicy(h) },
		"poddisruptionbudget": func(h *switchboardv1alpha1.Hub) runtime.ApplyConfiguration { return manifests.PodDisruptionBudget(h) },
		"statefulset":         func(h *switchboardv1alpha1.Hub) runtime.ApplyConfiguration { return manifests.StatefulSet(h, image) },
	}
	for name, build := range builders {
		t.Run(name, func(t *testing.T) { golden(t, name+".yaml", build(plainHub())) })
	}
	// What a spec can change.
	for _, name := range []string{"configmap", "service", "serviceaccount", "statefulset"} {
		t.Run(name+" of a full spec", func(t *testing.T) { golden(t, name+"-full.yaml", builders[name](fullHub())) })
	}
	t.Run("certificate", func(t *testing.T) {
		golden(t, "certificate.yaml", client.ApplyConfigurationFromUnstructured(manifests.Certificate(fullHub())))
	})
}

// nodeConfig is what nodes get: the settings, and who issues the cluster's tokens.
func nodeConfig(hub *switchboardv1alpha1.Hub) config.Config {
	c := manifests.NodeConfig(hub)
	if sa := c.Authentication.ServiceAccount; sa != nil {
		sa.Issuer = "https://kubernetes.default.svc.cluster.local"
	}
	return c
}

// golden compares an object with a file, or writes the file.
func golden(t *testing.T, name string, obj runtime.ApplyConfiguration) {
	t.Helper()
	got, err := yaml.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; go test ./controllers/manifests -update writes it", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func TestPlainHubIsTheDefaultConfig(t *testing.T) {
	want := config.Default()
	want.Hub = "default/agents/0b5c7f8a"
	want.Replicas = 3
	want.Peers = []string{"agents-nodes.default.svc:7402"}
	want.GossipKeyFile = "/etc/switchboard/gossip/key"
	if diff := cmp.Diff(want, manifests.NodeConfig(plainHub())); diff != "" {
		t.Errorf("the Hub's defaults are not a node's (-node +hub):\n%s", diff)
	}
}

func TestNodesAcceptTheConfig(t *testing.T) {
	for name, hub := range map[string]*switchboardv1alpha1.Hub{"plain": plainHub(), "full": fullHub()} {
		t.Run(name, func(t *testing.T) {
			want := nodeConfig(hub)
			data, err := want.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			got, err := config.Parse(data)
			if err != nil {
				t.Fatalf("a node refuses it: %v", err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("it changes on the way (-rendered +parsed):\n%s", diff)
			}
		})
	}
}

func TestReloadableSpecLeavesTemplateAlone(t *testing.T) {
	reloaded := plainHub()
	full := fullHub()
	reloaded.Spec.HealthCheck = full.Spec.HealthCheck
	reloaded.Spec.History = full.Spec.History
	reloaded.Spec.Topics = full.Spec.Topics
	reloaded.Spec.Sessions.ResumeWindow.Duration *= 3
	reloaded.Spec.Limits = full.Spec.Limits
	if changed := config.Reloadable(manifests.NodeConfig(plainHub()), manifests.NodeConfig(reloaded)); len(changed) > 0 {
		t.Errorf("a node can't reload %v", changed)
	}
	want, got := manifests.StatefulSet(plainHub(), "i"), manifests.StatefulSet(reloaded, "i")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the StatefulSet changes (-before +after):\n%s", diff)
	}
	// Replicas are reloaded too, and part of the StatefulSet, not of its template.
	reloaded.Spec.Replicas = new(int32(9))
	if diff := cmp.Diff(want.Spec.Template, manifests.StatefulSet(reloaded, "i").Spec.Template); diff != "" {
		t.Errorf("scaling changes the template (-before +after):\n%s", diff)
	}
}

// A Hub that is stopped keeps its history, whatever becomes of what nodes leave that
// were scaled away.
func TestClaimsFollowTheDeletionPolicy(t *testing.T) {
	for what, tt := range map[string]struct {
		policy          switchboardv1alpha1.DeletionPolicy
		replicas        int32
		deleted, scaled appsv1.PersistentVolumeClaimRetentionPolicyType
	}{
		"by default": {"", 3, appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.RetainPersistentVolumeClaimRetentionPolicyType},
		"retained":   {switchboardv1alpha1.DeletionRetain, 3, appsv1.RetainPersistentVolumeClaimRetentionPolicyType, appsv1.RetainPersistentVolumeClaimRetentionPolicyType},
		"deleted":    {switchboardv1alpha1.DeletionDelete, 3, appsv1.DeletePersistentVolumeClaimRetentionPolicyType, appsv1.DeletePersistentVolumeClaimRetentionPolicyType},
		"deleted, but not yet: the hub is stopped": {switchboardv1alpha1.DeletionDelete, 0, appsv1.DeletePersistentVolumeClaimRetentionPolicyType, appsv1.RetainPersistentVolumeClaimRetentionPolicyType},
	} {
		t.Run(what, func(t *testing.T) {
			hub := plainHub()
			hub.Spec.Replicas = &tt.replicas
			hub.Spec.Storage = &switchboardv1alpha1.StorageSpec{Size: new(resource.MustParse("1Gi")), DeletionPolicy: tt.policy}
			got := manifests.StatefulSet(hub, "switchboard:1").Spec.PersistentVolumeClaimRetentionPolicy
			if *got.WhenDeleted != tt.deleted || *got.WhenScaled != tt.scaled {
				t.Errorf("when deleted %s, when scaled %s; want %s, %s", *got.WhenDeleted, *got.WhenScaled, tt.deleted, tt.scaled)
			}
		})
	}
}
