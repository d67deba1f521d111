package manifests

import (
	"fmt"

	"k8s.io/apimachinery/pkg/labels"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// Ports that nodes listen on, as the reference documentation fixes them.
const (
	PortClient  int32 = 7400
	PortCluster int32 = 7401
	PortGossip  int32 = 7402
	PortHTTP    int32 = 7480
)

// NodeContainer is the container of a pod that is the node. Others may put some beside it.
const NodeContainer = "hubnode"

// Labels that every object of a Hub carries.
const (
	LabelName      = "app.kubernetes.io/name"
	LabelInstance  = "app.kubernetes.io/instance"
	LabelComponent = "app.kubernetes.io/component"
	LabelManagedBy = "app.kubernetes.io/managed-by"

	// AnnotationConfigHash is set on pods, not in their template, when new
	// settings wait for them.
	AnnotationConfigHash = "switchboard.dev/config-hash"

	// AnnotationRestartedAt on a Hub asks for a rolling restart, with the time at
	// which it was asked (RFC 3339). The pod template has the same: another value
	// makes it another template.
	AnnotationRestartedAt = "switchboard.dev/restarted-at"

	// AnnotationGossipKeys is set on pods when other gossip keys wait for them, as
	// AnnotationConfigHash is for settings.
	AnnotationGossipKeys = "switchboard.dev/gossip-keys"

	// AnnotationRotate on a Hub asks for other certificates or keys: one of the values
	// RotateAuthority, RotateCertificates and RotateGossip. The operator takes it away when it has
	// begun.
	AnnotationRotate = "switchboard.dev/rotate"

	// ManagedBy is the value of LabelManagedBy; the operator watches only
	// objects that have it.
	ManagedBy = "switchboard-operator"
)

// Values of AnnotationRotate.
const (
	// RotateAuthority replaces the Hub's certificate authorities, and then all that they
	// have issued.
	RotateAuthority = "ca"
	// RotateCertificates replaces the nodes' certificates by ones of the same
	// authorities.
	RotateCertificates = "certificates"
	// RotateGossip replaces the key that encrypts gossip.
	RotateGossip = "gossip"
)

// Where things are in a node's container.
const (
	configDir  = "/etc/switchboard/config"
	storageDir = "/var/lib/switchboard"
	gossipDir  = "/etc/switchboard/gossip"
	tlsDir     = "/etc/switchboard/tls"
	// clusterTLSDir is where nodes look unless told otherwise.
	clusterTLSDir = "/etc/switchboard/cluster-tls"

	// ConfigKey is the ConfigMap's key and the file that a node reads.
	ConfigKey = "hubnode.yaml"
	// GossipKey is the Secret's key that holds the gossip keys.
	GossipKey = "key"
)

// ServiceName is the Service that clients use.
func ServiceName(hub *switchboardv1alpha1.Hub) string { return hub.Name }

// PeerServiceName is the headless Service through which nodes find each other.
func PeerServiceName(hub *switchboardv1alpha1.Hub) string { return hub.Name + "-nodes" }

// NodeName is the name of the StatefulSet and of what belongs to its pods: the
// ServiceAccount, PodDisruptionBudget and NetworkPolicy.
func NodeName(hub *switchboardv1alpha1.Hub) string { return hub.Name + "-node" }

// ConfigMapName is the ConfigMap with the nodes' settings.
func ConfigMapName(hub *switchboardv1alpha1.Hub) string { return hub.Name + "-config" }

// GossipSecretName is the Secret with the key that encrypts gossip.
func GossipSecretName(hub *switchboardv1alpha1.Hub) string { return hub.Name + "-gossip" }

// AuthorityName is the Secret with the Hub's certificate authority, and the ConfigMap
// with the certificates of those that clients are to trust.
func AuthorityName(hub *switchboardv1alpha1.Hub) string { return hub.Name + "-ca" }

// NodeTLSName is the Secret with the certificate that nodes have.
func NodeTLSName(hub *switchboardv1alpha1.Hub) string { return hub.Name + "-node-tls" }

// IssuedName is the Secret into which cert-manager puts what it has issued.
func IssuedName(hub *switchboardv1alpha1.Hub) string { return hub.Name + "-node-issued" }

// ClusterAuthorityName is the Secret with the Hub's authority for the cluster port.
func ClusterAuthorityName(hub *switchboardv1alpha1.Hub) string {
	return hub.Name + "-cluster-authority"
}

// ClusterTLSName is the Secret with the certificate that nodes know each other by.
func ClusterTLSName(hub *switchboardv1alpha1.Hub) string { return hub.Name + "-cluster-tls" }

// Address is where clients inside the cluster connect.
func Address(hub *switchboardv1alpha1.Hub) string { return fmt.Sprintf("%s:%d", Host(hub), PortClient) }

// Host is the name by which clients inside the cluster know the hub.
func Host(hub *switchboardv1alpha1.Hub) string {
	return fmt.Sprintf("%s.%s.svc", ServiceName(hub), hub.Namespace)
}

// Identity names this Hub and no other, also not one of the same name made
// later. Nodes refuse peers with another identity.
func Identity(hub *switchboardv1alpha1.Hub) string {
	return fmt.Sprintf("%s/%s/%s", hub.Namespace, hub.Name, hub.UID)
}

// Selector returns the labels that find the Hub's pods. They never change,
// because a StatefulSet's selector can't.
func Selector(hub *switchboardv1alpha1.Hub) labels.Set {
	return labels.Set{
		LabelName:      "switchboard",
		LabelInstance:  hub.Name,
		LabelComponent: "node",
	}
}

// Labels returns the labels of every object of the Hub.
func Labels(hub *switchboardv1alpha1.Hub) labels.Set {
	return labels.Merge(Selector(hub), labels.Set{LabelManagedBy: ManagedBy})
}

// metadata is what the builders' configurations have in common.
type metadata[T any] interface {
	WithLabels(map[string]string) T
	WithOwnerReferences(...*metav1ac.OwnerReferenceApplyConfiguration) T
}

// ownedBy adds to obj what every object of a Hub carries.
func ownedBy[T metadata[T]](hub *switchboardv1alpha1.Hub, obj T) T {
	return obj.
		WithLabels(Labels(hub)).
		WithOwnerReferences(metav1ac.OwnerReference().
			WithAPIVersion(switchboardv1alpha1.GroupVersion.String()).
			WithKind("Hub").
			WithName(hub.Name).
			WithUID(hub.UID).
			WithController(true).
			WithBlockOwnerDeletion(true))
}

func selector(hub *switchboardv1alpha1.Hub) *metav1ac.LabelSelectorApplyConfiguration {
	return metav1ac.LabelSelector().WithMatchLabels(Selector(hub))
}
