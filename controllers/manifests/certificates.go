package manifests

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/pki"
	"github.com/switchboardhub/switchboard/hubnode/config"
)

// Names of the volumes with a node's certificates: for clients, and for other nodes.
const (
	tlsVolume        = "node-tls"
	clusterTLSVolume = "cluster-tls"
)

// Annotations of the Secrets with the nodes' certificates while one authority gives way
// to another (see the type Rotation), and of that with the gossip keys (KeyPhase).
const (
	AnnotationRotationPhase = "switchboard.dev/rotation-phase"
	AnnotationRotationSince = "switchboard.dev/rotation-since"
)

// ServesTLS reports whether the nodes of the Hub need a certificate.
func ServesTLS(hub *switchboardv1alpha1.Hub) bool {
	return hub.Spec.TLS != nil && hub.Spec.TLS.Clients != "" && hub.Spec.TLS.Clients != switchboardv1alpha1.ClientTLSDisabled
}

// HasCertificates reports whether a node's pod has the volume with its certificate.
func HasCertificates(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == tlsVolume })
}

// CertificateNames are what the nodes' certificate has to be valid for: the Hub's
// Services and pods, in the cluster's usual domain, and what the spec adds.
func CertificateNames(hub *switchboardv1alpha1.Hub) pki.Names {
	names := pki.Names{
		IPs:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "switchboard.dev", Path: fmt.Sprintf("/ns/%s/hub/%s/node", hub.Namespace, hub.Name)}},
	}
	for _, host := range []string{ServiceName(hub), "*." + PeerServiceName(hub)} {
		inNamespace := host + "." + hub.Namespace
		names.DNS = append(names.DNS, host, inNamespace, inNamespace+".svc", inNamespace+".svc.cluster.local")
	}
	names.DNS = append(names.DNS, "localhost")
	for _, extra := range hub.Spec.TLS.ExtraNames {
		ip := net.ParseIP(extra)
		switch {
		case ip == nil && !slices.Contains(names.DNS, extra):
			names.DNS = append(names.DNS, extra)
		case ip != nil && !slices.ContainsFunc(names.IPs, ip.Equal):
			names.IPs = append(names.IPs, ip)
		}
	}
	return names
}

// ClusterNames is what the certificate has to be valid for that nodes know each other
// by: a URI that no certificate for clients has.
func ClusterNames(hub *switchboardv1alpha1.Hub) pki.Names {
	return pki.Names{URIs: []*url.URL{config.ClusterID(Identity(hub))}}
}

// AuthoritySecret holds the Hub's certificate authority, with its key. Nothing mounts
// it. data is what pki.Authority has.
func AuthoritySecret(hub *switchboardv1alpha1.Hub, data map[string][]byte) *corev1ac.SecretApplyConfiguration {
	return tlsSecret(hub, AuthorityName(hub), data)
}

// ClusterAuthoritySecret is AuthoritySecret for the cluster port.
func ClusterAuthoritySecret(hub *switchboardv1alpha1.Hub, data map[string][]byte) *corev1ac.SecretApplyConfiguration {
	return tlsSecret(hub, ClusterAuthorityName(hub), data)
}

func tlsSecret(hub *switchboardv1alpha1.Hub, name string, data map[string][]byte) *corev1ac.SecretApplyConfiguration {
	return ownedBy(hub, corev1ac.Secret(name, hub.Namespace)).
		WithType(corev1.SecretTypeTLS).
		WithData(data)
}

// Rotation is how far one authority has given way to another. Its zero value is that
// none does.
type Rotation struct {
	Phase RotationPhase
	// Since is when what the phase distributes was written; zero: not yet.
	Since time.Time
}

// RotationPhase is a step of a rotation.
type RotationPhase string

// The phases of a rotation, in order. After them only the new authority is trusted.
const (
	// RotationTrust: both authorities are trusted; nodes have a certificate of the old one.
	RotationTrust RotationPhase = "Trust"
	// RotationIssue: both are trusted; nodes get a certificate of the new one.
	RotationIssue RotationPhase = "Issue"
)

// NodeTLSSecret holds what nodes prove who they are by, and whom they trust: data is
// what pki.Credentials has.
func NodeTLSSecret(hub *switchboardv1alpha1.Hub, data map[string][]byte, rotation Rotation) *corev1ac.SecretApplyConfiguration {
	return withRotation(tlsSecret(hub, NodeTLSName(hub), data), rotation)
}

// ClusterTLSSecret is NodeTLSSecret for the cluster port.
func ClusterTLSSecret(hub *switchboardv1alpha1.Hub, data map[string][]byte, rotation Rotation) *corev1ac.SecretApplyConfiguration {
	return withRotation(tlsSecret(hub, ClusterTLSName(hub), data), rotation)
}

func withRotation(secret *corev1ac.SecretApplyConfiguration, rotation Rotation) *corev1ac.SecretApplyConfiguration {
	if rotation.Phase != "" {
		secret.WithAnnotations(map[string]string{AnnotationRotationPhase: string(rotation.Phase)})
	}
	if !rotation.Since.IsZero() {
		secret.WithAnnotations(map[string]string{AnnotationRotationSince: rotation.Since.UTC().Format(time.RFC3339)})
	}
	return secret
}

// RotationIn reads how far a rotation is from the annotations of NodeTLSSecret. What
// is there and can't be read is as if it were not: the phase's time starts again.
func RotationIn(annotations map[string]string) Rotation {
	var r Rotation
	switch phase := RotationPhase(annotations[AnnotationRotationPhase]); phase {
	case RotationTrust, RotationIssue:
		r.Phase = phase
	default:
		return r
	}
	if at, err := time.Parse(time.RFC3339, annotations[AnnotationRotationSince]); err == nil {
		r.Since = at
	}
	return r
}

// TrustConfigMap holds the certificates of the authorities that clients are to trust.
func TrustConfigMap(hub *switchboardv1alpha1.Hub, authorities []byte) *corev1ac.ConfigMapApplyConfiguration {
	return ownedBy(hub, corev1ac.ConfigMap(AuthorityName(hub), hub.Namespace)).
		WithData(map[string]string{pki.AuthoritiesKey: string(authorities)})
}

// ClientTLS is how a client inside the cluster, or one that dials nodes by other names,
// verifies them: by the authorities in the text of TrustConfigMap.
func ClientTLS(hub *switchboardv1alpha1.Hub, authorities string) (*tls.Config, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(authorities)) {
		return nil, fmt.Errorf("ConfigMap %s has no certificate of an authority to trust in %s", AuthorityName(hub), pki.AuthoritiesKey)
	}
	return &tls.Config{RootCAs: roots, ServerName: Host(hub), MinVersion: tls.VersionTLS13}, nil
}

// CertificateKind is that of cert-manager.
var CertificateKind = schema.GroupVersionKind{Group: "cert-manager.io", Version: "v1", Kind: "Certificate"}

// Certificate asks cert-manager for the nodes' certificate. It is not of one of our
// types, so that the operator does not depend on cert-manager.
func Certificate(hub *switchboardv1alpha1.Hub) *unstructured.Unstructured {
	names := CertificateNames(hub)
	ips := make([]any, len(names.IPs))
	for i, ip := range names.IPs {
		ips[i] = ip.String()
	}
	uris := make([]any, len(names.URIs))
	for i, uri := range names.URIs {
		uris[i] = uri.String()
	}
	issuer := hub.Spec.TLS.IssuerRef
	c := &unstructured.Unstructured{Object: map[string]any{
		"spec": map[string]any{
			"secretName":  IssuedName(hub),
			"issuerRef":   map[string]any{"name": issuer.Name, "kind": issuer.Kind, "group": issuer.Group},
			"duration":    pki.CertificateLife.String(),
			"renewBefore": (pki.CertificateLife / 3).String(),
			"privateKey":  map[string]any{"algorithm": "ECDSA", "size": int64(256), "rotationPolicy": "Always"},
			"usages":      []any{"digital signature", "server auth", "client auth"},
			"dnsNames":    list(names.DNS),
			"ipAddresses": ips,
			"uris":        uris,
		},
	}}
	c.SetGroupVersionKind(CertificateKind)
	c.SetNamespace(hub.Namespace)
	c.SetName(NodeName(hub))
	c.SetLabels(Labels(hub))
	c.SetOwnerReferences([]metav1.OwnerReference{*metav1.NewControllerRef(hub, switchboardv1alpha1.GroupVersion.WithKind("Hub"))})
	return c
}

func list(texts []string) []any {
	items := make([]any, len(texts))
	for i, text := range texts {
		items[i] = text
	}
	return items
}
