package controllers_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/controllers/pki"
)

// installCertManager makes the API server know the Certificates of cert-manager, until
// the end of the test. Tests play cert-manager.
func (c *cluster) installCertManager(t *testing.T) {
	t.Helper()
	kind := manifests.CertificateKind
	crd := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "certificates." + kind.Group},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: kind.Group,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "certificates", Singular: "certificate", Kind: kind.Kind, ListKind: kind.Kind + "List"},
			Scope: apiextensionsv1.NamespaceScoped,
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: kind.Version, Served: true, Storage: true,
				Subresources: &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}},
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object",
					Properties: map[string]apiextensionsv1.JSONSchemaProps{
						"spec":   {Type: "object", XPreserveUnknownFields: new(true)},
						"status": {Type: "object", XPreserveUnknownFields: new(true)},
					},
				}},
			}},
		},
	}
	options := envtest.CRDInstallOptions{CRDs: []*apiextensionsv1.CustomResourceDefinition{crd}, MaxTime: patience}
	if _, err := envtest.InstallCRDs(c.env.Config, options); err != nil {
		t.Fatalf("install cert-manager's resource: %v", err)
	}
	t.Cleanup(func() {
		err := envtest.UninstallCRDs(c.env.Config, options)
		if err == nil {
			err = wait.PollUntilContextTimeout(context.WithoutCancel(t.Context()), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
				_, err := c.RESTMapper().RESTMapping(kind.GroupKind(), kind.Version)
				if err == nil {
					list := &unstructured.UnstructuredList{}
					list.SetGroupVersionKind(kind)
					err = c.List(ctx, list)
				}
				return err != nil, nil
			})
		}
		if err != nil {
			t.Errorf("remove cert-manager's resource: %v", err)
		}
	})
}

// certificate waits for the Hub's Certificate of cert-manager.
func (h *hubInTest) certificate(t *testing.T) *unstructured.Unstructured {
	t.Helper()
	certificate := &unstructured.Unstructured{}
	certificate.SetGroupVersionKind(manifests.CertificateKind)
	h.waitFor(t, certificate, "agents-node", func() error { return nil })
	return certificate
}

// issue says of the Certificate what cert-manager would.
func (h *hubInTest) issue(t *testing.T, status, message string) {
	t.Helper()
	certificate := h.certificate(t)
	before := certificate.DeepCopy()
	certificate.Object["status"] = map[string]any{"conditions": []any{
		map[string]any{"type": "Issuing", "status": "True"},
		map[string]any{"type": "Ready", "status": status, "message": message, "observedGeneration": certificate.GetGeneration()},
	}}
	if err := h.Status().Patch(t.Context(), certificate, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

func TestCertificateOfAnIssuer(t *testing.T) {
	c := useCluster(t)
	h := &hubInTest{cluster: c, key: client.ObjectKey{Namespace: c.namespace(t), Name: "agents"}}
	if err := c.Create(t.Context(), rawHub(t, h.key.Namespace, h.key.Name, "{replicas: 1, tls: {clients: Required, extraNames: [hub.example.com], issuerRef: {name: corporate, kind: ClusterIssuer}}}")); err != nil {
		t.Fatal(err)
	}
	h.certificatesReady(t, metav1.ConditionFalse, switchboardv1alpha1.ReasonIssuerNotReady, "the cluster has no cert-manager, whose issuer spec.tls.issuerRef names: install it")
	h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionTrue, switchboardv1alpha1.ReasonCertificatesNotReady)

	c.installCertManager(t)
	certificate := h.certificate(t)
	if diff := cmp.Diff(manifests.Certificate(h.get(t)).Object["spec"], certificate.Object["spec"]); diff != "" {
		t.Errorf("the Certificate (-want +got):\n%s", diff)
	}
	if !metav1.IsControlledBy(certificate, h.get(t)) {
		t.Errorf("owners %v", certificate.GetOwnerReferences())
	}
	h.certificatesReady(t, metav1.ConditionFalse, switchboardv1alpha1.ReasonIssuerNotReady, "it has not said anything about it yet")
	h.waitForCondition(t, switchboardv1alpha1.ConditionProgressing, metav1.ConditionTrue, switchboardv1alpha1.ReasonAwaitingCertificates)
	h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionFalse, switchboardv1alpha1.ReasonAsExpected)
	h.issue(t, "False", "the issuer corporate is not ready")
	h.certificatesReady(t, metav1.ConditionFalse, switchboardv1alpha1.ReasonIssuerNotReady, `cert-manager has not issued Certificate "agents-node": the issuer corporate is not ready`)

	ca, issued := h.somebodys(t)
	h.issue(t, "True", "Certificate is up to date and has not expired")
	h.certificatesReady(t, metav1.ConditionFalse, switchboardv1alpha1.ReasonIssuerNotReady, `there is no Secret "agents-node-issued"`)
	h.give(t, "agents-node-issued", issued)
	h.waitFor(t, &appsv1.StatefulSet{}, "agents-node", func() error { return nil })
	pods := h.settle(t)
	h.waitForTrust(t, ca)
	h.certificatesReady(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonIssued, "valid until")

	h.poke(t, pods[0])
	h.poke(t, pods[0])
	already := len(h.requests.in(h.key.Namespace))
	h.poke(t, pods[0])
	h.poke(t, pods[0])
	if writes := h.requests.in(h.key.Namespace)[already:]; len(writes) > 0 {
		t.Errorf("writes to a hub that is as it should be: %q", writes)
	}
	before := h.nodeCredentials(t)
	if before.Leaf().VerifyHostname("agents."+h.key.Namespace+".svc") != nil {
		t.Error("nodes have another certificate than the issuer's")
	}

	// What the spec says comes to cert-manager, and what somebody changes is set back.
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.TLS.ExtraNames = []string{"192.0.2.7"} })
	certificate = h.certificate(t)
	h.waitFor(t, certificate, "agents-node", func() error {
		if ips, _, _ := unstructured.NestedStringSlice(certificate.Object, "spec", "ipAddresses"); len(ips) != 3 {
			return fmt.Errorf("addresses %v", ips)
		}
		return nil
	})
	h.certificatesReady(t, metav1.ConditionFalse, switchboardv1alpha1.ReasonIssuerNotReady, "it has not yet looked at the newest one. Nodes go on with the certificate that they have")
	if err := unstructured.SetNestedField(certificate.Object, "theirs", "spec", "secretName"); err != nil {
		t.Fatal(err)
	}
	if err := h.Update(t.Context(), certificate, client.FieldOwner("somebody")); err != nil {
		t.Fatal(err)
	}
	h.poke(t, pods[0])
	h.waitFor(t, certificate, "agents-node", func() error {
		if name, _, _ := unstructured.NestedString(certificate.Object, "spec", "secretName"); name != "agents-node-issued" {
			return fmt.Errorf("into Secret %s", name)
		}
		return nil
	})
	h.issue(t, "True", "")
	h.poke(t, pods[0])
	h.certificatesReady(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonIssued, "valid until")
	if !pki.SameCertificate(h.nodeCredentials(t), before) {
		t.Error("nodes have another certificate")
	}
}

func TestSomebodyElsesCertificateIsLeftAlone(t *testing.T) {
	c := useCluster(t)
	c.installCertManager(t)
	h := &hubInTest{cluster: c, key: client.ObjectKey{Namespace: c.namespace(t), Name: "agents"}}
	theirs := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"secretName": "theirs"}}}
	theirs.SetGroupVersionKind(manifests.CertificateKind)
	theirs.SetNamespace(h.key.Namespace)
	theirs.SetName("agents-node")
	if err := c.Create(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), rawHub(t, h.key.Namespace, h.key.Name, "tls: {clients: Required, issuerRef: {name: corporate}}")); err != nil {
		t.Fatal(err)
	}
	got := h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionTrue, switchboardv1alpha1.ReasonNameTaken)
	if want := `Certificate "agents-node" exists already`; !strings.Contains(got.Message, want) {
		t.Errorf("message %q, want it to say %q", got.Message, want)
	}
}
