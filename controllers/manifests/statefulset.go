package manifests

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// Replicas is how many nodes the Hub asks for.
func Replicas(hub *switchboardv1alpha1.Hub) int32 {
	if hub.Spec.Replicas == nil {
		return 3
	}
	return *hub.Spec.Replicas
}

// StatefulSet runs the nodes; image is for Hubs that name none. Its pod template
// depends on nothing that nodes reload, so that new topics or limits restart no
// pod.
//
// Nodes start and stop in parallel: each joins by itself, and none waits for a
// lower ordinal. What becomes of the volumes for history when nodes go is the
// Hub's deletion policy.
func StatefulSet(hub *switchboardv1alpha1.Hub, image string) *appsv1ac.StatefulSetApplyConfiguration {
	set := ownedBy(hub, appsv1ac.StatefulSet(NodeName(hub), hub.Namespace)).
		WithSpec(appsv1ac.StatefulSetSpec().
			WithReplicas(Replicas(hub)).
			WithServiceName(PeerServiceName(hub)).
			WithPodManagementPolicy(appsv1.ParallelPodManagement).
			// The operator replaces outdated pods itself: it knows more about when the
			// next one may go than that the one before is ready.
			WithUpdateStrategy(appsv1ac.StatefulSetUpdateStrategy().WithType(appsv1.OnDeleteStatefulSetStrategyType)).
			WithSelector(selector(hub)).
			WithTemplate(podTemplate(hub, image)))
	if keepsOnDisk(hub) {
		policy := retention(hub.Spec.Storage.DeletionPolicy)
		scaled := policy
		if Replicas(hub) == 0 { // a hub that is stopped goes on with its history
			scaled = appsv1.RetainPersistentVolumeClaimRetentionPolicyType
		}
		set.Spec.WithVolumeClaimTemplates(historyClaim(hub)).
			WithPersistentVolumeClaimRetentionPolicy(appsv1ac.StatefulSetPersistentVolumeClaimRetentionPolicy().
				WithWhenDeleted(policy).
				WithWhenScaled(scaled))
	}
	return stamp(set, hub)
}

func retention(policy switchboardv1alpha1.DeletionPolicy) appsv1.PersistentVolumeClaimRetentionPolicyType {
	if policy == switchboardv1alpha1.DeletionDelete {
		return appsv1.DeletePersistentVolumeClaimRetentionPolicyType
	}
	return appsv1.RetainPersistentVolumeClaimRetentionPolicyType
}

// historyVolume is the name of the volume with a node's history, and of its claim's
// template.
const historyVolume = "history"

func keepsOnDisk(hub *switchboardv1alpha1.Hub) bool { return VolumeSize(hub) != nil }

// VolumeSize is the size of each node's volume for history, nil without one.
func VolumeSize(hub *switchboardv1alpha1.Hub) *resource.Quantity {
	if hub.Spec.Storage == nil {
		return nil
	}
	return hub.Spec.Storage.Size
}

// HasVolume reports whether a pod keeps its history on a volume.
func HasVolume(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == historyVolume })
}

// HistoryClaimName is the name of the claim of a node's volume, by its pod's.
func HistoryClaimName(pod string) string { return historyVolume + "-" + pod }

// historyClaim is the claim of each node's volume. A template has no namespace of
// its own.
func historyClaim(hub *switchboardv1alpha1.Hub) *corev1ac.PersistentVolumeClaimApplyConfiguration {
	spec := corev1ac.PersistentVolumeClaimSpec().
		WithAccessModes(corev1.ReadWriteOnce).
		WithVolumeMode(corev1.PersistentVolumeFilesystem).
		WithResources(corev1ac.VolumeResourceRequirements().
			WithRequests(corev1.ResourceList{corev1.ResourceStorage: *VolumeSize(hub)}))
	if class := hub.Spec.Storage.StorageClassName; class != nil {
		spec.WithStorageClassName(*class)
	}
	claim := &corev1ac.PersistentVolumeClaimApplyConfiguration{}
	return claim.WithName(historyVolume).WithLabels(Labels(hub)).WithSpec(spec)
}
