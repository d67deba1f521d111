package manifests_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

func tlsHub(tls switchboardv1alpha1.TLSSpec) *switchboardv1alpha1.Hub {
	hub := plainHub()
	hub.Spec.TLS = &tls
	return hub
}

func TestCertificateNames(t *testing.T) {
	names := manifests.CertificateNames(tlsHub(switchboardv1alpha1.TLSSpec{
		// Some are there anyway.
		ExtraNames: []string{"*.hub.example.com", "192.0.2.7", "localhost", "::1", "2001:db8::1", "agents.default.svc.example.org"},
	}))
	wantDNS := []string{
		"agents", "agents.default", "agents.default.svc", "agents.default.svc.cluster.local",
		"*.agents-nodes", "*.agents-nodes.default", "*.agents-nodes.default.svc", "*.agents-nodes.default.svc.cluster.local",
		"localhost", "*.hub.example.com", "agents.default.svc.example.org",
	}
	if diff := cmp.Diff(wantDNS, names.DNS); diff != "" {
		t.Errorf("DNS names (-want +got):\n%s", diff)
	}
	var ips, uris []string
	for _, ip := range names.IPs {
		ips = append(ips, ip.String())
	}
	for _, uri := range names.URIs {
		uris = append(uris, uri.String())
	}
	if diff := cmp.Diff([]string{"127.0.0.1", "::1", "192.0.2.7", "2001:db8::1"}, ips); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"spiffe://switchboard.dev/ns/default/hub/agents/node"}, uris); diff != "" {
		t.Errorf("URIs (-want +got):\n%s", diff)
	}
}

func TestHubWithoutTLSIsAsItWas(t *testing.T) {
	want := manifests.StatefulSet(plainHub(), "i")
	for name, hub := range map[string]*switchboardv1alpha1.Hub{
		"nothing said": tlsHub(switchboardv1alpha1.TLSSpec{}),
		"disabled":     tlsHub(switchboardv1alpha1.TLSSpec{Clients: switchboardv1alpha1.ClientTLSDisabled, SecretName: "mine"}),
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(want, manifests.StatefulSet(hub, "i")); diff != "" {
				t.Errorf("the StatefulSet changes (-without +with):\n%s", diff)
			}
			// Nodes of before there was TLS refuse what they don't know.
			if got := rendered(t, hub); strings.Contains(got, "tls") {
				t.Errorf("settings are\n%s", got)
			}
		})
	}
}

// Between Optional and Required nodes change over in place, and where the certificate
// comes from is no matter of theirs.
func TestWhatNodesReloadOfTLSLeavesTemplateAlone(t *testing.T) {
	optional := tlsHub(switchboardv1alpha1.TLSSpec{Clients: switchboardv1alpha1.ClientTLSOptional})
	required := tlsHub(switchboardv1alpha1.TLSSpec{Clients: switchboardv1alpha1.ClientTLSRequired, SecretName: "mine"})
	if diff := cmp.Diff(manifests.StatefulSet(optional, "i"), manifests.StatefulSet(required, "i")); diff != "" {
		t.Errorf("the StatefulSet changes (-optional +required):\n%s", diff)
	}
	if manifests.KeepTemplate(manifests.StatefulSet(optional, "i"), manifests.StatefulSet(plainHub(), "i")) {
		t.Error("nodes go on without a certificate")
	}
	if changed := config.Reloadable(manifests.NodeConfig(optional), manifests.NodeConfig(required)); len(changed) > 0 {
		t.Errorf("a node can't reload %v", changed)
	}
	for clients, hub := range map[string]*switchboardv1alpha1.Hub{"Optional": optional, "Required": required} {
		if got := rendered(t, hub); !strings.Contains(got, "clients: "+clients+"\n") || !strings.Contains(got, "directory: /etc/switchboard/tls\n") {
			t.Errorf("settings of %s are\n%s", clients, got)
		}
	}
}

func TestRotationIsReadAsItWasWritten(t *testing.T) {
	since := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	for name, tt := range map[string]struct {
		annotations map[string]string
		want        manifests.Rotation
	}{
		"nothing":           {nil, manifests.Rotation{}},
		"a phase":           {manifests.NodeTLSSecret(plainHub(), nil, manifests.Rotation{Phase: manifests.RotationIssue}).Annotations, manifests.Rotation{Phase: manifests.RotationIssue}},
		"and its time":      {manifests.NodeTLSSecret(plainHub(), nil, manifests.Rotation{Phase: manifests.RotationTrust, Since: since}).Annotations, manifests.Rotation{Phase: manifests.RotationTrust, Since: since}},
		"another phase":     {map[string]string{"switchboard.dev/rotation-phase": "Done", "switchboard.dev/rotation-since": "2026-02-03T04:05:06Z"}, manifests.Rotation{}},
		"no time at all":    {map[string]string{"switchboard.dev/rotation-phase": "Trust", "switchboard.dev/rotation-since": "yesterday"}, manifests.Rotation{Phase: manifests.RotationTrust}},
		"a time of its own": {map[string]string{"switchboard.dev/rotation-since": "2026-02-03T04:05:06Z"}, manifests.Rotation{}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, manifests.RotationIn(tt.annotations)); diff != "" {
				t.Errorf("rotation (-want +got):\n%s", diff)
			}
		})
	}
}

// rendered is what nodes of a Hub read.
func rendered(t *testing.T, hub *switchboardv1alpha1.Hub) string {
	t.Helper()
	text, err := manifests.NodeConfig(hub).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
