package controllers_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/controllers/pki"
)

const (
	day = 24 * time.Hour
	// phase is a little longer than a phase of a rotation.
	phase = 5*time.Minute + time.Second
)

// nodeCredentials returns what nodes have, which has to be good.
func (h *hubInTest) nodeCredentials(t *testing.T) *pki.Credentials {
	t.Helper()
	secret := &corev1.Secret{}
	h.read(t, secret, "agents-node-tls")
	creds, err := pki.ParseCredentials(secret.Data)
	if err != nil {
		t.Fatalf("what nodes have: %v", err)
	}
	return creds
}

// authority returns the Hub's own authority.
func (h *hubInTest) authority(t *testing.T) *x509.Certificate {
	t.Helper()
	secret := &corev1.Secret{}
	h.read(t, secret, "agents-ca")
	authority, err := pki.ParseAuthority(secret.Data)
	if err != nil {
		t.Fatalf("the authority: %v", err)
	}
	return authority.Certificate
}

// waitForTrust waits until clients are told to trust just these authorities, and
// nodes are, too.
func (h *hubInTest) waitForTrust(t *testing.T, authorities ...*x509.Certificate) {
	t.Helper()
	want := string(pki.EncodeCertificates(authorities))
	told := &corev1.ConfigMap{}
	h.waitFor(t, told, "agents-ca", func() error {
		if told.Data["ca.crt"] != want {
			return fmt.Errorf("clients are told %s, want %s", told.Data["ca.crt"], want)
		}
		return nil
	})
	secret := &corev1.Secret{}
	h.waitFor(t, secret, "agents-node-tls", func() error {
		if string(secret.Data["ca.crt"]) != want {
			return fmt.Errorf("nodes trust %s, want %s", secret.Data["ca.crt"], want)
		}
		return nil
	})
}

// waitForOtherCertificate waits until nodes have another certificate than this one, and
// returns it.
func (h *hubInTest) waitForOtherCertificate(t *testing.T, than *pki.Credentials) *pki.Credentials {
	t.Helper()
	var creds *pki.Credentials
	eventually(t, func() error {
		if creds = h.nodeCredentials(t); pki.SameCertificate(creds, than) {
			return errors.New("nodes have the certificate of before")
		}
		return nil
	})
	return creds
}

// certificatesReady waits for the condition, with a message that has the text.
func (h *hubInTest) certificatesReady(t *testing.T, status metav1.ConditionStatus, reason, text string) {
	t.Helper()
	eventually(t, func() error {
		c := h.waitForCondition(t, switchboardv1alpha1.ConditionCertificatesReady, status, reason)
		if !strings.Contains(c.Message, text) {
			return fmt.Errorf("message %q, want it to say %q", c.Message, text)
		}
		return nil
	})
}

// annotate asks for a rotation.
func (h *hubInTest) annotate(t *testing.T, what string) {
	t.Helper()
	hub := h.get(t)
	before := hub.DeepCopy()
	hub.Annotations = map[string]string{manifests.AnnotationRotate: what}
	if err := h.Patch(t.Context(), hub, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
}

// waitUntilTaken waits until the operator has dealt with what was asked.
func (h *hubInTest) waitUntilTaken(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		if asked, is := h.get(t).Annotations[manifests.AnnotationRotate]; is {
			return fmt.Errorf("the annotation %q is still there", asked)
		}
		return nil
	})
}

// pass puts the clock on and lets the operator look.
func (h *hubInTest) pass(t *testing.T, by time.Duration, pod *corev1.Pod) {
	t.Helper()
	h.clock.putOn(t, by)
	h.poke(t, pod)
}

// secureHub creates a Hub that serves TLS, and runs its nodes.
func secureHub(t *testing.T, tls string) (*hubInTest, []*corev1.Pod) {
	t.Helper()
	h := createHub(t, useCluster(t), "{replicas: 2, tls: "+tls+"}")
	return h, h.settle(t)
}

func TestHubIsItsOwnAuthority(t *testing.T) {
	h, _ := secureHub(t, "{clients: Optional, extraNames: [hub.example.com, 192.0.2.7]}")
	ca, creds := h.authority(t), h.nodeCredentials(t)
	if err := creds.Verify([]*x509.Certificate{ca}, time.Now()); err != nil {
		t.Errorf("the nodes' certificate: %v", err)
	}
	h.waitForTrust(t, ca)
	for _, host := range []string{"agents." + h.key.Namespace + ".svc", "agents-node-1.agents-nodes." + h.key.Namespace + ".svc.cluster.local", "hub.example.com", "192.0.2.7", "localhost"} {
		if err := creds.Leaf().VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	h.certificatesReady(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonIssued, "valid until "+creds.Leaf().NotAfter.UTC().Format(time.RFC3339))
	status := h.get(t).Status.Certificates
	if status == nil || !status.NotAfter.Time.Equal(creds.Leaf().NotAfter) || status.RenewalTime == nil || !status.RenewalTime.Time.Equal(pki.RenewAt(creds.Leaf())) {
		t.Errorf("status %+v, want the times of the certificate", status)
	}
	h.waitForEvent(t, "Normal", switchboardv1alpha1.ReasonAuthorityMade)
	h.waitForEvent(t, "Normal", switchboardv1alpha1.ReasonCertificateReplaced)

	hub := h.get(t)
	for name, obj := range map[string]client.Object{"agents-ca": &corev1.Secret{}, "agents-node-tls": &corev1.Secret{}, "agents-ca/cm": &corev1.ConfigMap{}} {
		h.read(t, obj, childName(name))
		if !metav1.IsControlledBy(obj, hub) || obj.GetLabels()["app.kubernetes.io/instance"] != "agents" {
			t.Errorf("%s has the owners %v and the labels %v", name, obj.GetOwnerReferences(), obj.GetLabels())
		}
	}
	sts := &appsv1.StatefulSet{}
	h.read(t, sts, "agents-node")
	var mounted []string
	for _, v := range sts.Spec.Template.Spec.Volumes {
		if v.Secret != nil {
			mounted = append(mounted, v.Secret.SecretName)
		}
	}
	if !slices.Equal(mounted, []string{"agents-gossip", "agents-cluster-tls", "agents-node-tls"}) {
		t.Errorf("nodes mount the Secrets %q: the authorities' keys are nobody's", mounted)
	}
	settings := &corev1.ConfigMap{}
	h.read(t, settings, "agents-config")
	if !strings.Contains(settings.Data["hubnode.yaml"], "\ntls:\n  clients: Optional\n") {
		t.Errorf("settings are\n%s", settings.Data["hubnode.yaml"])
	}
}

func TestHubWithoutTLSHasNoCertificates(t *testing.T) {
	h := createHub(t, useCluster(t), "{replicas: 1, tls: {secretName: mine}}")
	h.settle(t)
	for name, obj := range map[string]client.Object{"agents-ca": &corev1.Secret{}, "agents-node-tls": &corev1.Secret{}, "agents-ca/cm": &corev1.ConfigMap{}} {
		if err := h.Get(t.Context(), client.ObjectKey{Namespace: h.key.Namespace, Name: childName(name)}, obj); !apierrors.IsNotFound(err) {
			t.Errorf("%s: %v, want none", name, err)
		}
	}
	if c := meta.FindStatusCondition(h.get(t).Status.Conditions, switchboardv1alpha1.ConditionCertificatesReady); c != nil {
		t.Errorf("condition %+v", c)
	}
}

func TestTurningTLSOnAndOff(t *testing.T) {
	h := createHub(t, useCluster(t), "replicas: 2")
	h.settle(t)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) {
		s.TLS = &switchboardv1alpha1.TLSSpec{Clients: switchboardv1alpha1.ClientTLSRequired}
	})
	h.settle(t)
	if got := len(h.evictions()); got != 2 {
		t.Errorf("%d nodes were replaced, want both", got)
	}
	ca := h.authority(t)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.TLS.Clients = switchboardv1alpha1.ClientTLSOptional })
	h.settle(t)
	if got := len(h.evictions()); got != 2 {
		t.Errorf("%d evictions, want none for what nodes reload", got-2)
	}
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.TLS.Clients = switchboardv1alpha1.ClientTLSDisabled })
	h.settle(t)
	if status := h.get(t).Status; status.Certificates != nil || meta.FindStatusCondition(status.Conditions, switchboardv1alpha1.ConditionCertificatesReady) != nil {
		t.Errorf("status still is %+v", status)
	}
	// Who trusts it goes on to.
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.TLS.Clients = switchboardv1alpha1.ClientTLSRequired })
	h.settle(t)
	if !h.authority(t).Equal(ca) {
		t.Error("the authority is another one")
	}
}

func TestSettledHubWithTLSIsNotWritten(t *testing.T) {
	h, pods := secureHub(t, "{clients: Required}")
	// What was made is applied once more; from then on there must be nothing to do.
	h.poke(t, pods[0])
	h.poke(t, pods[0])
	already := h.requests.in(h.key.Namespace)
	hub := h.get(t)
	for range 3 {
		h.poke(t, pods[0])
	}
	if writes := h.requests.in(h.key.Namespace)[len(already):]; len(writes) > 0 {
		t.Errorf("writes to a hub that is as it should be: %q", writes)
	}
	// Nor for an operator that knows nothing of it.
	h.replaceOperator(t)
	h.poke(t, pods[0])
	h.poke(t, pods[0])
	if writes := h.requests.in(h.key.Namespace)[len(already):]; len(writes) > 0 {
		t.Errorf("writes of the next operator: %q", writes)
	}
	if got := h.get(t).ResourceVersion; got != hub.ResourceVersion {
		t.Errorf("the Hub went from version %s to %s", hub.ResourceVersion, got)
	}
}

func TestCertificateIsRenewedWithoutRestart(t *testing.T) {
	h, pods := secureHub(t, "{clients: Optional}")
	ca, before := h.authority(t), h.nodeCredentials(t)
	sts := &appsv1.StatefulSet{}
	h.read(t, sts, "agents-node")
	h.pass(t, 59*day, pods[0])
	h.pass(t, 0, pods[0])
	if !pki.SameCertificate(h.nodeCredentials(t), before) {
		t.Error("it is renewed before two thirds of its life")
	}
	h.pass(t, 2*day, pods[0])
	after := h.waitForOtherCertificate(t, before)
	if !h.authority(t).Equal(ca) || !after.Covers(pki.Names{DNS: before.Leaf().DNSNames, IPs: before.Leaf().IPAddresses, URIs: before.Leaf().URIs}) {
		t.Error("the new one is of another authority, or for other names")
	}
	h.waitForTrust(t, ca)
	h.certificatesReady(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonIssued, after.Leaf().NotAfter.UTC().Format(time.RFC3339))
	now := &appsv1.StatefulSet{}
	h.read(t, now, "agents-node")
	if now.Generation != sts.Generation || len(h.evictions()) > 0 {
		t.Errorf("the StatefulSet went from generation %d to %d, evicted %q: want no restart", sts.Generation, now.Generation, h.evictions())
	}
}

func TestNewNamesNeedAnotherCertificate(t *testing.T) {
	h, _ := secureHub(t, "{clients: Optional}")
	before := h.nodeCredentials(t)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.TLS.ExtraNames = []string{"hub.example.com"} })
	after := h.waitForOtherCertificate(t, before)
	if err := after.Leaf().VerifyHostname("hub.example.com"); err != nil {
		t.Error(err)
	}
}

func TestAuthorityIsRotatedInPhases(t *testing.T) {
	h, pods := secureHub(t, "{clients: Required}")
	oldCA, before := h.authority(t), h.nodeCredentials(t)
	h.annotate(t, "ca")
	h.waitUntilTaken(t)
	newCA := h.authority(t)
	if newCA.Equal(oldCA) {
		t.Fatal("the authority is the old one")
	}

	h.waitForTrust(t, newCA, oldCA)
	h.certificatesReady(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonRotating, "phase 1 of 3")
	h.waitForEvent(t, "Normal", switchboardv1alpha1.ReasonRotationStarted)
	h.pass(t, phase-time.Minute, pods[0])
	// Another operator goes on where this one was, and nothing is done twice.
	h.replaceOperator(t)
	h.pass(t, 0, pods[0])
	if !pki.SameCertificate(h.nodeCredentials(t), before) {
		t.Error("nodes have another certificate before all trust its authority")
	}
	h.annotate(t, "ca")
	h.waitUntilTaken(t)
	if text := h.waitForEvent(t, "Warning", switchboardv1alpha1.ReasonRotationRefused); !strings.Contains(text, "under way") {
		t.Errorf("event %q", text)
	}
	if !h.authority(t).Equal(newCA) {
		t.Error("a second rotation has begun")
	}

	h.pass(t, time.Minute, pods[0])
	after := h.waitForOtherCertificate(t, before)
	if err := after.Leaf().CheckSignatureFrom(newCA); err != nil {
		t.Errorf("the nodes' certificate: %v", err)
	}
	h.waitForTrust(t, newCA, oldCA)
	h.certificatesReady(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonRotating, "phase 2 of 3")
	h.replaceOperator(t)
	h.pass(t, phase-time.Minute, pods[0])
	h.pass(t, 0, pods[0])
	h.waitForTrust(t, newCA, oldCA)

	h.pass(t, time.Minute, pods[0])
	h.waitForTrust(t, newCA)
	h.certificatesReady(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonIssued, "valid until")
	h.waitForEvent(t, "Normal", switchboardv1alpha1.ReasonRotationFinished)
	if !pki.SameCertificate(h.nodeCredentials(t), after) || len(h.evictions()) > 0 {
		t.Errorf("another certificate again, or evicted %q", h.evictions())
	}
	secret := &corev1.Secret{}
	h.read(t, secret, "agents-node-tls")
	if len(secret.Annotations) > 0 {
		t.Errorf("annotations %v are left", secret.Annotations)
	}
}

func TestAuthorityIsRotatedBeforeItEnds(t *testing.T) {
	h, pods := secureHub(t, "{clients: Required}")
	oldCA := h.authority(t)
	h.pass(t, 7*365*day, pods[0]) // two thirds of ten years, and the nodes' certificate expired on the way
	eventually(t, func() error {
		if h.authority(t).Equal(oldCA) {
			return errors.New("the authority is the old one")
		}
		return nil
	})
	h.waitForTrust(t, h.authority(t))
}

func TestCertificatesAreRotatedOnDemand(t *testing.T) {
	h, _ := secureHub(t, "{clients: Required}")
	ca, before := h.authority(t), h.nodeCredentials(t)
	h.annotate(t, "certificates")
	h.waitUntilTaken(t)
	after := h.nodeCredentials(t)
	if pki.SameCertificate(after, before) || !h.authority(t).Equal(ca) {
		t.Error("want another certificate of the same authority")
	}
	h.waitForTrust(t, ca)
	h.certificatesReady(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonIssued, "")
}

func TestRotationThatCantBeIsRefused(t *testing.T) {
	c := useCluster(t)
	for name, tt := range map[string]struct{ tls, asked, want string }{
		"nothing that there is":  {"{clients: Optional}", "everything", `"everything" is nothing to rotate: set the annotation switchboard.dev/rotate to ca, certificates or gossip`},
		"somebody's certificate": {"{clients: Optional, secretName: mine}", "certificates", `that of your Secret "mine"`},
		"an issuer's":            {"{clients: Optional, issuerRef: {name: corporate}}", "ca", "cmctl renew agents-node"},
	} {
		t.Run(name, func(t *testing.T) {
			h := &hubInTest{cluster: c, key: client.ObjectKey{Namespace: c.namespace(t), Name: "agents"}}
			if err := c.Create(t.Context(), rawHub(t, h.key.Namespace, h.key.Name, "{replicas: 1, tls: "+tt.tls+"}")); err != nil {
				t.Fatal(err)
			}
			h.annotate(t, tt.asked)
			h.waitUntilTaken(t)
			if text := h.waitForEvent(t, "Warning", switchboardv1alpha1.ReasonRotationRefused); !strings.Contains(text, tt.want) {
				t.Errorf("event %q, want it to say %q", text, tt.want)
			}
		})
	}
}

// Nodes and clients trust the authority of before: the new one is brought in as in a
// rotation.
func TestAuthorityThatIsLostIsReplaced(t *testing.T) {
	h, pods := secureHub(t, "{clients: Required}")
	oldCA, before := h.authority(t), h.nodeCredentials(t)
	if err := h.Delete(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: h.key.Namespace, Name: "agents-ca"}}); err != nil {
		t.Fatal(err)
	}
	h.poke(t, pods[0])
	h.waitFor(t, &corev1.Secret{}, "agents-ca", func() error { return nil })
	h.waitForTrust(t, h.authority(t), oldCA)
	if !pki.SameCertificate(h.nodeCredentials(t), before) {
		t.Error("nodes have another certificate before all trust its authority")
	}
	h.certificatesReady(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonRotating, "phase 1 of 3")
	if text := h.waitForEvent(t, "Warning", switchboardv1alpha1.ReasonAuthorityMade); !strings.Contains(text, "there is no Secret agents-ca") {
		t.Errorf("event %q", text)
	}
}

func TestWhatNodesHaveIsRepaired(t *testing.T) {
	h, pods := secureHub(t, "{clients: Required}")
	ca := h.authority(t)
	theirs, err := pki.NewAuthority("theirs", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	forged, err := theirs.Issue(manifests.CertificateNames(h.get(t)), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	forgedData, err := forged.Data()
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*corev1.Secret){
		"everything is somebody's": func(s *corev1.Secret) { maps.Copy(s.Data, forgedData) },
		"nonsense":                 func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("open sesame") },
		"another key":              func(s *corev1.Secret) { s.Data["tls.key"] = forgedData["tls.key"] },
		"one more authority":       func(s *corev1.Secret) { s.Data["ca.crt"] = append(s.Data["ca.crt"], forgedData["ca.crt"]...) },
		"no authority":             func(s *corev1.Secret) { delete(s.Data, "ca.crt") },
		"a rotation made up":       func(s *corev1.Secret) { s.Annotations = map[string]string{manifests.AnnotationRotationPhase: "Issue"} },
	} {
		t.Run(name, func(t *testing.T) {
			secret := &corev1.Secret{}
			h.read(t, secret, "agents-node-tls")
			spoil(secret)
			if err := h.Update(t.Context(), secret, client.FieldOwner("somebody")); err != nil {
				t.Fatal(err)
			}
			spoilt := secret.ResourceVersion
			h.poke(t, pods[0])
			h.poke(t, pods[0])
			h.waitFor(t, secret, "agents-node-tls", func() error {
				creds, err := pki.ParseCredentials(secret.Data)
				if err != nil {
					return err
				}
				if !pki.Equal(creds.Authorities, []*x509.Certificate{ca}) {
					return errors.New("nodes trust somebody else")
				}
				return creds.Verify([]*x509.Certificate{ca}, time.Now())
			})
			if name != "a rotation made up" && secret.ResourceVersion == spoilt {
				t.Error("nothing was spoilt")
			}
			h.waitForTrust(t, ca)
			h.certificatesReady(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonIssued, "")
		})
	}
	if text := h.waitForEvent(t, "Warning", switchboardv1alpha1.ReasonRepaired); !strings.Contains(text, "agents-node-tls") || !strings.Contains(text, `"somebody"`) {
		t.Errorf("event %q names not what was changed, or not by whom", text)
	}
	if err := h.Delete(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: h.key.Namespace, Name: "agents-node-tls"}}); err != nil {
		t.Fatal(err)
	}
	h.poke(t, pods[0])
	h.waitFor(t, &corev1.Secret{}, "agents-node-tls", func() error { return nil })
	h.waitForTrust(t, ca)
	if len(h.evictions()) > 0 {
		t.Errorf("evicted %q", h.evictions())
	}
}

func TestWhomClientsTrustIsRepaired(t *testing.T) {
	h, _ := secureHub(t, "{clients: Required}")
	ca := h.authority(t)
	told := &corev1.ConfigMap{}
	h.read(t, told, "agents-ca")
	told.Data["ca.crt"] = "open sesame"
	if err := h.Update(t.Context(), told, client.FieldOwner("somebody")); err != nil {
		t.Fatal(err)
	}
	h.waitForTrust(t, ca)
	if err := h.Delete(t.Context(), told); err != nil {
		t.Fatal(err)
	}
	h.waitFor(t, &corev1.ConfigMap{}, "agents-ca", func() error { return nil })
	h.waitForTrust(t, ca)
}

func TestMalformedAuthorityIsNamed(t *testing.T) {
	h, pods := secureHub(t, "{clients: Required}")
	before := h.nodeCredentials(t)
	secret := &corev1.Secret{}
	h.read(t, secret, "agents-ca")
	secret.Data["tls.key"] = []byte("open sesame")
	if err := h.Update(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	h.poke(t, pods[0])
	h.certificatesReady(t, metav1.ConditionFalse, switchboardv1alpha1.ReasonSecretInvalid, `Secret "agents-ca", key tls.key: holds 0 private keys in PEM, must hold one. Set it right, or delete the Secret`)
	h.certificatesReady(t, metav1.ConditionFalse, switchboardv1alpha1.ReasonSecretInvalid, "Nodes go on with the certificate that they have, valid until")
	h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionTrue, switchboardv1alpha1.ReasonCertificatesNotReady)
	h.waitForEvent(t, "Warning", switchboardv1alpha1.ReasonSecretInvalid)
	if !pki.SameCertificate(h.nodeCredentials(t), before) {
		t.Error("nodes have another certificate")
	}
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Replicas = new(int32(1)) }) // all else goes on
	h.settle(t)
	h.annotate(t, "ca") // another way to set it right
	h.waitUntilTaken(t)
	h.certificatesReady(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonRotating, "phase 1 of 3")
}

// bring puts an authority into the Hub's Secret.
func (h *hubInTest) bring(t *testing.T, certificate *x509.Certificate, key *ecdsa.PrivateKey) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{}
	h.read(t, secret, "agents-ca")
	secret.Data["tls.crt"] = pki.EncodeCertificates([]*x509.Certificate{certificate})
	secret.Data["tls.key"] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := h.Update(t.Context(), secret, client.FieldOwner("somebody")); err != nil {
		t.Fatal(err)
	}
}

// newRoot makes an authority that differs from the operator's own.
func newRoot(t *testing.T, change func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "ours"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(365 * day),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate, key
}

func TestAuthorityThatSomebodyBringsIsTakenOver(t *testing.T) {
	h, pods := secureHub(t, "{clients: Required}")
	oldCA, before := h.authority(t), h.nodeCredentials(t)
	useless, key := newRoot(t, func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"example.com"}
	})
	h.bring(t, useless, key)
	h.poke(t, pods[0])
	h.certificatesReady(t, metav1.ConditionFalse, switchboardv1alpha1.ReasonSecretInvalid, `what the authority in Secret "agents-ca" issues is not valid`)
	if !pki.SameCertificate(h.nodeCredentials(t), before) {
		t.Error("nodes have another certificate")
	}
	h.waitForTrust(t, oldCA)

	ours, key := newRoot(t, func(*x509.Certificate) {})
	h.bring(t, ours, key)
	h.poke(t, pods[0])
	h.waitForTrust(t, ours, oldCA)
	h.pass(t, phase, pods[0])
	after := h.waitForOtherCertificate(t, before)
	if err := after.Leaf().CheckSignatureFrom(ours); err != nil {
		t.Error(err)
	}
	h.pass(t, phase, pods[0])
	h.waitForTrust(t, ours)
	if !h.authority(t).Equal(ours) {
		t.Error("it was set back")
	}
}

func TestSomebodyElsesAuthorityIsLeftAlone(t *testing.T) {
	c := useCluster(t)
	h := &hubInTest{cluster: c, key: client.ObjectKey{Namespace: c.namespace(t), Name: "agents"}}
	theirs := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: h.key.Namespace, Name: "agents-ca"}, Data: map[string][]byte{"a": []byte("b")}}
	if err := c.Create(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), rawHub(t, h.key.Namespace, h.key.Name, "tls: {clients: Required}")); err != nil {
		t.Fatal(err)
	}
	got := h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionTrue, switchboardv1alpha1.ReasonNameTaken)
	if want := `Secret "agents-ca" exists already and belongs to no Hub`; !strings.Contains(got.Message, want) {
		t.Errorf("message %q, want it to say %q", got.Message, want)
	}
	secret := &corev1.Secret{}
	h.read(t, secret, "agents-ca")
	if diff := cmp.Diff(theirs.Data, secret.Data); diff != "" {
		t.Errorf("their Secret changed (-before +after):\n%s", diff)
	}
}

// give makes or replaces the Secret that a Hub's spec names.
func (h *hubInTest) give(t *testing.T, name string, data map[string][]byte) {
	t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: h.key.Namespace, Name: name}, Type: corev1.SecretTypeTLS, Data: data}
	err := h.Create(t.Context(), secret)
	if apierrors.IsAlreadyExists(err) {
		err = h.Update(t.Context(), secret)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// somebodys makes an authority and what it issues for a Hub, as of now.
func (h *hubInTest) somebodys(t *testing.T) (*x509.Certificate, map[string][]byte) {
	t.Helper()
	authority, err := pki.NewAuthority("somebody", h.clock.now())
	if err != nil {
		t.Fatal(err)
	}
	names := pki.Names{DNS: []string{"agents." + h.key.Namespace + ".svc"}}
	creds, err := authority.Issue(names, h.clock.now())
	if err != nil {
		t.Fatal(err)
	}
	data, err := creds.Data()
	if err != nil {
		t.Fatal(err)
	}
	return authority.Certificate, data
}

func TestCertificateOfSomebody(t *testing.T) {
	c := useCluster(t)
	h := &hubInTest{cluster: c, key: client.ObjectKey{Namespace: c.namespace(t), Name: "agents"}}
	if err := c.Create(t.Context(), rawHub(t, h.key.Namespace, h.key.Name, "{replicas: 1, tls: {clients: Required, secretName: mine}}")); err != nil {
		t.Fatal(err)
	}
	h.certificatesReady(t, metav1.ConditionFalse, switchboardv1alpha1.ReasonSecretNotFound, `there is no Secret "mine" in namespace `+h.key.Namespace+": make it, with the keys tls.crt, tls.key and ca.crt")
	h.waitForCondition(t, switchboardv1alpha1.ConditionProgressing, metav1.ConditionTrue, switchboardv1alpha1.ReasonAwaitingCertificates)
	h.waitForCondition(t, switchboardv1alpha1.ConditionDegraded, metav1.ConditionTrue, switchboardv1alpha1.ReasonCertificatesNotReady)
	if err := h.Get(t.Context(), client.ObjectKey{Namespace: h.key.Namespace, Name: "agents-node"}, &appsv1.StatefulSet{}); !apierrors.IsNotFound(err) {
		t.Errorf("nodes are started without a certificate: %v", err)
	}

	firstCA, first := h.somebodys(t)
	broken := maps.Clone(first)
	delete(broken, "ca.crt")
	h.give(t, "mine", broken)
	h.certificatesReady(t, metav1.ConditionFalse, switchboardv1alpha1.ReasonSecretInvalid, `Secret "mine", key ca.crt: holds no certificate in PEM`)
	h.give(t, "mine", first)
	h.waitFor(t, &appsv1.StatefulSet{}, "agents-node", func() error { return nil })
	pods := h.settle(t)
	h.waitForTrust(t, firstCA)
	h.certificatesReady(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonIssued, "valid until")
	before := h.nodeCredentials(t)
	if err := h.Get(t.Context(), client.ObjectKey{Namespace: h.key.Namespace, Name: "agents-ca"}, &corev1.Secret{}); !apierrors.IsNotFound(err) {
		t.Errorf("an authority is made that nobody needs: %v", err)
	}

	secondCA, second := h.somebodys(t)
	mixed := maps.Clone(first)
	mixed["tls.key"] = second["tls.key"]
	h.give(t, "mine", mixed)
	h.poke(t, pods[0])
	h.certificatesReady(t, metav1.ConditionFalse, switchboardv1alpha1.ReasonSecretInvalid, `Secret "mine", key tls.key: is not the key of the first certificate in tls.crt. Nodes go on with the certificate that they have`)
	if !pki.SameCertificate(h.nodeCredentials(t), before) {
		t.Error("nodes have another certificate")
	}
	// One of another authority comes in phases.
	h.give(t, "mine", second)
	h.poke(t, pods[0])
	h.waitForTrust(t, secondCA, firstCA)
	h.pass(t, phase, pods[0])
	h.waitForOtherCertificate(t, before)
	h.pass(t, phase, pods[0])
	h.waitForTrust(t, secondCA)
	h.certificatesReady(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonIssued, "valid until")

	h.pass(t, 91*day, pods[0])
	h.certificatesReady(t, metav1.ConditionFalse, switchboardv1alpha1.ReasonExpired, `Secret "mine", key tls.crt: has expired at`)
	h.waitForEvent(t, "Warning", switchboardv1alpha1.ReasonExpired)
	thirdCA, third := h.somebodys(t)
	h.give(t, "mine", third)
	h.poke(t, pods[0])
	h.waitForTrust(t, thirdCA) // at once: nobody can trust what nodes have
	h.certificatesReady(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonIssued, "valid until")
	if len(h.evictions()) > 0 {
		t.Errorf("evicted %q", h.evictions())
	}
}

func TestCertificateThatClientsCantVerifyIsRemarkedOn(t *testing.T) {
	h, pods := secureHub(t, "{clients: Optional}")
	oldCA := h.authority(t)
	authority, err := pki.NewAuthority("somebody", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	creds, err := authority.Issue(pki.Names{DNS: []string{"hub.example.com"}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	data, err := creds.Data()
	if err != nil {
		t.Fatal(err)
	}
	h.give(t, "mine", data)
	// From the Hub's own authority to somebody's, in phases as well.
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.TLS.SecretName = "mine" })
	h.waitForTrust(t, authority.Certificate, oldCA)
	h.pass(t, phase, pods[0])
	h.certificatesReady(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonRotating, "phase 2 of 3")
	h.pass(t, phase, pods[0])
	h.certificatesReady(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonIssued, "it is not valid for agents."+h.key.Namespace+".svc")
	if len(h.evictions()) > 0 {
		t.Errorf("evicted %q", h.evictions())
	}
}

func TestExpiryShowsWhilePaused(t *testing.T) {
	h, pods := secureHub(t, "{clients: Optional}")
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Paused = true })
	h.waitForCondition(t, switchboardv1alpha1.ConditionProgressing, metav1.ConditionFalse, switchboardv1alpha1.ReasonPaused)
	h.pass(t, 91*day, pods[0])
	h.certificatesReady(t, metav1.ConditionFalse, switchboardv1alpha1.ReasonExpired, "clients refuse it")
	before := h.nodeCredentials(t)
	h.change(t, func(s *switchboardv1alpha1.HubSpec) { s.Paused = false })
	h.waitForOtherCertificate(t, before)
	h.certificatesReady(t, metav1.ConditionTrue, switchboardv1alpha1.ReasonIssued, "valid until")
}

// Somebody deletes what nodes have while one authority gives way to another.
func TestNodeSecretLostInARotation(t *testing.T) {
	h, pods := secureHub(t, "{clients: Required}")
	oldCA, before := h.authority(t), h.nodeCredentials(t)
	h.annotate(t, "ca")
	h.waitUntilTaken(t)
	newCA := h.authority(t)
	h.waitForTrust(t, newCA, oldCA)
	if err := h.Delete(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: h.key.Namespace, Name: manifests.NodeTLSName(h.get(t))}}); err != nil {
		t.Fatal(err)
	}
	h.poke(t, pods[0])
	h.waitFor(t, &corev1.Secret{}, "agents-node-tls", func() error { return nil })
	h.waitForOtherCertificate(t, before)
	// Running nodes serve the old certificate for minutes yet.
	told := &corev1.ConfigMap{}
	h.poke(t, pods[0])
	h.read(t, told, "agents-ca")
	if n := strings.Count(told.Data["ca.crt"], "BEGIN"); n != 2 {
		t.Fatalf("clients are told to trust %d authorities, want both", n)
	}
	h.pass(t, phase, pods[0])
	h.waitForTrust(t, newCA)
}
