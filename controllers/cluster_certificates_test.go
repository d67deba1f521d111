package controllers_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/controllers/pki"
)

// linkCredentials returns what nodes know each other by, which has to be good.
func (h *hubInTest) linkCredentials(t *testing.T) *pki.Credentials {
	t.Helper()
	secret := &corev1.Secret{}
	h.read(t, secret, "agents-cluster-tls")
	creds, err := pki.ParseCredentials(secret.Data)
	if err != nil {
		t.Fatalf("what nodes have: %v", err)
	}
	if err := creds.Verify(creds.Authorities, creds.Leaf().NotBefore); err != nil {
		t.Fatal(err)
	}
	return creds
}

// linkAuthority returns the Hub's authority for the cluster port.
func (h *hubInTest) linkAuthority(t *testing.T) *x509.Certificate {
	t.Helper()
	secret := &corev1.Secret{}
	h.read(t, secret, "agents-cluster-authority")
	authority, err := pki.ParseAuthority(secret.Data)
	if err != nil {
		t.Fatalf("the authority: %v", err)
	}
	return authority.Certificate
}

// waitForLinks waits until nodes have other credentials, which trust just these
// authorities.
func (h *hubInTest) waitForLinks(t *testing.T, other func(*pki.Credentials) bool, authorities ...*x509.Certificate) *pki.Credentials {
	t.Helper()
	var creds *pki.Credentials
	eventually(t, func() error {
		if creds = h.linkCredentials(t); !pki.Equal(creds.Authorities, authorities) {
			return fmt.Errorf("nodes trust %d authorities, want these %d", len(creds.Authorities), len(authorities))
		}
		if !other(creds) {
			return errors.New("nodes have the certificate of before")
		}
		return nil
	})
	return creds
}

func anyCredentials(*pki.Credentials) bool { return true }

func otherThan(before *pki.Credentials) func(*pki.Credentials) bool {
	return func(now *pki.Credentials) bool { return !pki.SameCertificate(now, before) }
}

// linksEncrypted waits for the condition, with a message that has the text.
func (h *hubInTest) linksEncrypted(t *testing.T, status metav1.ConditionStatus, reason, text string) {
	t.Helper()
	eventually(t, func() error {
		c := h.waitForCondition(t, switchboardv1alpha1.ConditionLinksEncrypted, status, reason)
		if !strings.Contains(c.Message, text) {
			return fmt.Errorf("message %q, want it to say %q", c.Message, text)
		}
		return nil
	})
}

// settingsText returns the nodes' settings as they are written.
func (h *hubInTest) settingsText(t *testing.T) string {
	t.Helper()
	settings := &corev1.ConfigMap{}
	h.read(t, settings, "agents-config")
	return settings.Data["hubnode.yaml"]
}

const linksRequireTLS = "  cluster: Required\n"

// Whatever the spec says of clients: a new Hub comes to refuse plain links by itself,
// and no node is replaced for it.
func TestLinksOfANewHubAreEncrypted(t *testing.T) {
	for _, tls := range []string{"{}", "{clients: Optional}", "{clients: Disabled, secretName: mine}"} {
		t.Run(tls, func(t *testing.T) {
			h := createHub(t, useCluster(t), "{replicas: 2, tls: "+tls+"}")
			if text := h.settingsText(t); strings.Contains(text, "cluster: Req") {
				t.Errorf("settings before a node has said what it speaks:\n%s", text)
			}
			h.settle(t)
			h.linksEncrypted(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonLinksRequireTLS, "renewed at")
			h.settle(t)
			if text := h.settingsText(t); !strings.Contains(text, linksRequireTLS) {
				t.Errorf("settings are\n%s", text)
			}
			if len(h.evictions()) > 0 {
				t.Errorf("evicted %q", h.evictions())
			}
			creds, ca := h.linkCredentials(t), h.linkAuthority(t)
			if !pki.Equal(creds.Authorities, []*x509.Certificate{ca}) || !creds.Covers(manifests.ClusterNames(h.get(t))) {
				t.Errorf("nodes have a certificate for %v", creds.Leaf().URIs)
			}
			hub := h.get(t)
			if want := fmt.Sprintf("spiffe://switchboard.dev/hub/%s/agents/%s/cluster", h.key.Namespace, hub.UID); creds.Leaf().URIs[0].String() != want || len(creds.Leaf().DNSNames) > 0 {
				t.Errorf("it is for %v and %v, want %s alone", creds.Leaf().URIs, creds.Leaf().DNSNames, want)
			}
			for _, name := range []string{"agents-cluster-authority", "agents-cluster-tls"} {
				secret := &corev1.Secret{}
				if h.read(t, secret, name); !metav1.IsControlledBy(secret, hub) {
					t.Errorf("%s is not the Hub's", name)
				}
			}
			if manifests.ServesTLS(hub) && h.authority(t).Equal(ca) {
				t.Error("clients and nodes have the same authority")
			}
		})
	}
}

// Nodes of before know nothing of it, and would refuse settings that name it: they go
// on as they are, until they are replaced for another reason.
func TestLinksWithNodesOfBefore(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 2")
	h.before = func(pod *corev1.Pod) bool { return pod.Annotations[manifests.AnnotationRestartedAt] == "" }
	pods := h.settle(t)
	h.linksEncrypted(t, metav1.ConditionFalse, switchboardv1alpha1.ReasonNodesWithoutTLS, "agents-node-0, agents-node-1")
	h.poke(t, pods[0])
	if text := h.settingsText(t); strings.Contains(text, "\ntls:") || len(h.evictions()) > 0 {
		t.Errorf("evicted %q, settings are\n%s", h.evictions(), text)
	}

	hub := h.get(t)
	before := hub.DeepCopy()
	hub.Annotations = map[string]string{manifests.AnnotationRestartedAt: "2026-11-28T01:02:03Z"}
	if err := h.Patch(t.Context(), hub, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	h.observeTemplate(t)
	eventually(t, func() error { // one goes, and no other one while it is away
		if n := len(h.evictions()); n != 1 {
			return fmt.Errorf("%d evictions", n)
		}
		return nil
	})
	h.linksEncrypted(t, metav1.ConditionFalse, switchboardv1alpha1.ReasonNodesWithoutTLS, "agents-node-0")
	h.settle(t) // and fails when settings reach a node that does not know them
	h.linksEncrypted(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonLinksRequireTLS, "")
	h.settle(t)
	if n := len(h.evictions()); n != 2 || !strings.Contains(h.settingsText(t), linksRequireTLS) {
		t.Errorf("%d evictions, settings are\n%s", n, h.settingsText(t))
	}
	// It stays so while a node can't be asked, and for the next operator.
	pod := h.pods(t)[0]
	h.nodes.set(pod.Status.PodIP, controllers.NodeReport{})
	h.replaceOperator(t)
	h.poke(t, &pod)
	h.poke(t, &pod)
	if !strings.Contains(h.settingsText(t), linksRequireTLS) {
		t.Errorf("settings are\n%s", h.settingsText(t))
	}
}

func TestLinkCertificateIsRenewedAndRotatedOnDemand(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 1")
	pods := h.settle(t)
	h.linksEncrypted(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonLinksRequireTLS, "")
	ca, first := h.linkAuthority(t), h.linkCredentials(t)
	h.annotate(t, "certificates")
	h.waitUntilTaken(t)
	second := h.waitForLinks(t, otherThan(first), ca)
	h.pass(t, 59*day, pods[0])
	h.pass(t, 0, pods[0])
	if !pki.SameCertificate(h.linkCredentials(t), second) {
		t.Error("it is renewed before two thirds of its life, or once more for one request")
	}
	h.pass(t, 2*day, pods[0])
	h.waitForLinks(t, otherThan(second), ca)
	if text := h.waitForEvent(t, "Normal", switchboardv1alpha1.ReasonCertificateReplaced); !strings.Contains(text, "links between nodes: nodes get") {
		t.Errorf("event %q", text)
	}
	if len(h.evictions()) > 0 {
		t.Errorf("evicted %q", h.evictions())
	}
}

func TestLinkAuthorityIsRotatedInPhases(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 1")
	pods := h.settle(t)
	h.linksEncrypted(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonLinksRequireTLS, "")
	oldCA, before := h.linkAuthority(t), h.linkCredentials(t)
	h.annotate(t, "ca")
	h.waitUntilTaken(t)
	newCA := h.linkAuthority(t)
	h.waitForLinks(t, anyCredentials, newCA, oldCA)
	h.linksEncrypted(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonLinksRequireTLS, "phase 1 of 3")
	h.pass(t, phase-time.Minute, pods[0])
	h.replaceOperator(t)
	h.pass(t, 0, pods[0])
	if !pki.SameCertificate(h.linkCredentials(t), before) {
		t.Error("nodes have another certificate before all trust its authority")
	}
	h.annotate(t, "ca")
	h.waitUntilTaken(t)
	if text := h.waitForEvent(t, "Warning", switchboardv1alpha1.ReasonRotationRefused); !strings.Contains(text, "under way") || !h.linkAuthority(t).Equal(newCA) {
		t.Errorf("event %q; or a second rotation has begun", text)
	}
	h.pass(t, time.Minute, pods[0])
	after := h.waitForLinks(t, otherThan(before), newCA, oldCA)
	h.linksEncrypted(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonLinksRequireTLS, "phase 2 of 3")
	h.replaceOperator(t)
	h.pass(t, phase, pods[0])
	now := h.waitForLinks(t, anyCredentials, newCA)
	if !pki.SameCertificate(now, after) || len(h.evictions()) > 0 {
		t.Errorf("another certificate again, or evicted %q", h.evictions())
	}
	h.linksEncrypted(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonLinksRequireTLS, "renewed at")
}

func TestLinkCertificateIsRepaired(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 1")
	pods := h.settle(t)
	h.linksEncrypted(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonLinksRequireTLS, "")
	ca := h.linkAuthority(t)
	theirs, err := pki.NewAuthority("theirs", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	forged, err := theirs.Issue(manifests.ClusterNames(h.get(t)), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{}
	h.read(t, secret, "agents-cluster-tls")
	if secret.Data, err = forged.Data(); err != nil {
		t.Fatal(err)
	}
	if err := h.Update(t.Context(), secret, client.FieldOwner("somebody")); err != nil {
		t.Fatal(err)
	}
	h.poke(t, pods[0])
	h.waitForLinks(t, otherThan(forged), ca)

	h.read(t, secret, "agents-cluster-authority")
	secret.Data["tls.key"] = []byte("open sesame")
	if err := h.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	h.poke(t, pods[0])
	h.linksEncrypted(t, metav1.ConditionFalse, switchboardv1alpha1.ReasonSecretInvalid, `Secret "agents-cluster-authority", key tls.key: holds 0 private keys`)
	h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionTrue, switchboardv1alpha1.ReasonCertificatesNotReady)
	if err := h.Delete(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	h.poke(t, pods[0])
	h.linksEncrypted(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonLinksRequireTLS, "phase 1 of 3")
	h.waitForLinks(t, anyCredentials, h.linkAuthority(t), ca)
}

// The certificate for clients is somebody's, and that of the links is the operator's all
// the same.
func TestLinkCertificateIsRotatedBesideSomebodysForClients(t *testing.T) {
	c := useCluster(t)
	for name, tls := range map[string]string{"a Secret": "{clients: Optional, secretName: mine}", "an issuer": "{clients: Optional, issuerRef: {name: corporate}}"} {
		t.Run(name, func(t *testing.T) {
			h := &hubInTest{cluster: c, key: client.ObjectKey{Namespace: c.namespace(t), Name: "agents"}}
			if err := c.Create(t.Context(), rawHub(t, h.key.Namespace, h.key.Name, "{replicas: 1, tls: "+tls+"}")); err != nil {
				t.Fatal(err)
			}
			h.waitFor(t, &corev1.Secret{}, "agents-cluster-tls", func() error { return nil })
			ca, before := h.linkAuthority(t), h.linkCredentials(t)
			h.annotate(t, "certificates")
			h.waitUntilTaken(t)
			h.waitForLinks(t, otherThan(before), ca)
			if text := h.waitForEvent(t, "Warning", switchboardv1alpha1.ReasonRotationRefused); !strings.Contains(text, "That of the cluster port is rotated") {
				t.Errorf("event %q", text)
			}
		})
	}
}
