package manifests

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	networkingv1ac "k8s.io/client-go/applyconfigurations/networking/v1"
	policyv1ac "k8s.io/client-go/applyconfigurations/policy/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// PodDisruptionBudget lets evictions take one node at a time, so that its
// clients have moved before the next one goes. The operator's own rollouts are
// evictions, too: they never meet with those of kubectl drain. A node that is not
// ready serves nobody and may always be evicted.
func PodDisruptionBudget(hub *switchboardv1alpha1.Hub) *policyv1ac.PodDisruptionBudgetApplyConfiguration {
	return ownedBy(hub, policyv1ac.PodDisruptionBudget(NodeName(hub), hub.Namespace)).
		WithSpec(policyv1ac.PodDisruptionBudgetSpec().
			WithMaxUnavailable(intstr.FromInt32(1)).
			WithUnhealthyPodEvictionPolicy(policyv1.AlwaysAllow).
			WithSelector(selector(hub)))
}

// NetworkPolicy keeps everybody but the hub's own nodes away from gossip and
// mesh. Clients and HTTP stay open to any source: kubelets, node ports and an
// operator that runs outside the cluster are not pods that a rule could name.
// What nodes may reach is left open.
func NetworkPolicy(hub *switchboardv1alpha1.Hub) *networkingv1ac.NetworkPolicyApplyConfiguration {
	return ownedBy(hub, networkingv1ac.NetworkPolicy(NodeName(hub), hub.Namespace)).
		WithSpec(networkingv1ac.NetworkPolicySpec().
			WithPodSelector(selector(hub)).
			WithPolicyTypes(networkingv1.PolicyTypeIngress).
			WithIngress(
				networkingv1ac.NetworkPolicyIngressRule().WithPorts(
					policyPort(PortClient, corev1.ProtocolTCP),
					policyPort(PortHTTP, corev1.ProtocolTCP),
				),
				networkingv1ac.NetworkPolicyIngressRule().
					WithFrom(networkingv1ac.NetworkPolicyPeer().WithPodSelector(selector(hub))).
					WithPorts(
						policyPort(PortCluster, corev1.ProtocolTCP),
						policyPort(PortGossip, corev1.ProtocolTCP),
						policyPort(PortGossip, corev1.ProtocolUDP),
					),
			))
}

func policyPort(port int32, protocol corev1.Protocol) *networkingv1ac.NetworkPolicyPortApplyConfiguration {
	return networkingv1ac.NetworkPolicyPort().WithProtocol(protocol).WithPort(intstr.FromInt32(port))
}
