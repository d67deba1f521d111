package manifests

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// Service is where clients connect: any ready node.
func Service(hub *switchboardv1alpha1.Hub) *corev1ac.ServiceApplyConfiguration {
	svc := ownedBy(hub, corev1ac.Service(ServiceName(hub), hub.Namespace)).
		WithSpec(corev1ac.ServiceSpec().
			WithType(corev1.ServiceTypeClusterIP).
			WithSelector(Selector(hub)).
			WithPorts(
				servicePort("client", PortClient, corev1.ProtocolTCP),
				servicePort("http", PortHTTP, corev1.ProtocolTCP).WithAppProtocol("http"),
			))
	want := hub.Spec.Service
	if want == nil {
		return svc
	}
	if want.Type != "" {
		svc.Spec.WithType(want.Type)
	}
	if want.ExternalTrafficPolicy != "" {
		svc.Spec.WithExternalTrafficPolicy(want.ExternalTrafficPolicy)
	}
	if want.LoadBalancerClass != nil {
		svc.Spec.WithLoadBalancerClass(*want.LoadBalancerClass)
	}
	if len(want.Annotations) > 0 {
		svc.WithAnnotations(want.Annotations)
	}
	return svc
}

// PeerService is the headless Service that gives every node a stable DNS name.
// It publishes unready addresses: a joining node has to find its peers before
// it can become ready.
func PeerService(hub *switchboardv1alpha1.Hub) *corev1ac.ServiceApplyConfiguration {
	return ownedBy(hub, corev1ac.Service(PeerServiceName(hub), hub.Namespace)).
		WithSpec(corev1ac.ServiceSpec().
			WithType(corev1.ServiceTypeClusterIP).
			WithClusterIP(corev1.ClusterIPNone).
			WithPublishNotReadyAddresses(true).
			WithSelector(Selector(hub)).
			WithPorts(
				servicePort("client", PortClient, corev1.ProtocolTCP),
				servicePort("cluster", PortCluster, corev1.ProtocolTCP),
				servicePort("gossip", PortGossip, corev1.ProtocolTCP),
				servicePort("gossip-udp", PortGossip, corev1.ProtocolUDP),
				servicePort("http", PortHTTP, corev1.ProtocolTCP).WithAppProtocol("http"),
			))
}

// servicePort forwards a port to the container port of the same name.
func servicePort(name string, port int32, protocol corev1.Protocol) *corev1ac.ServicePortApplyConfiguration {
	return corev1ac.ServicePort().
		WithName(name).
		WithProtocol(protocol).
		WithPort(port).
		WithTargetPort(intstr.FromString(name))
}
