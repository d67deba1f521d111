package manifests

import (
	"path"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// nonRootUser owns the image's processes.
const nonRootUser int64 = 65532

// graceAfterDrain is what a pod gets beyond its drain timeout, to leave the
// gossip and close.
const graceAfterDrain = 15 * time.Second

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
// lower ordinal. Volumes for history stay when nodes go: they have the same data
// when they come back.
func StatefulSet(hub *switchboardv1alpha1.Hub, image string) *appsv1ac.StatefulSetApplyConfiguration {
	set := ownedBy(hub, appsv1ac.StatefulSet(NodeName(hub), hub.Namespace)).
		WithSpec(appsv1ac.StatefulSetSpec().
			WithReplicas(Replicas(hub)).
			WithServiceName(PeerServiceName(hub)).
			WithPodManagementPolicy(appsv1.ParallelPodManagement).
			WithUpdateStrategy(appsv1ac.StatefulSetUpdateStrategy().WithType(appsv1.RollingUpdateStatefulSetStrategyType)).
			WithSelector(selector(hub)).
			WithTemplate(corev1ac.PodTemplateSpec().
				WithLabels(Labels(hub)).
				WithSpec(podSpec(hub, image))))
	if keepsOnDisk(hub) {
		set.Spec.WithVolumeClaimTemplates(historyClaim(hub)).
			WithPersistentVolumeClaimRetentionPolicy(appsv1ac.StatefulSetPersistentVolumeClaimRetentionPolicy().
				WithWhenDeleted(appsv1.RetainPersistentVolumeClaimRetentionPolicyType).
				WithWhenScaled(appsv1.RetainPersistentVolumeClaimRetentionPolicyType))
	}
	return set
}

// historyVolume is the name of the volume with a node's history, and of its claim's
// template.
const historyVolume = "history"

func keepsOnDisk(hub *switchboardv1alpha1.Hub) bool {
	return hub.Spec.Storage != nil && hub.Spec.Storage.Size != nil
}

// historyClaim is the claim of each node's volume. A template has no namespace of
// its own.
func historyClaim(hub *switchboardv1alpha1.Hub) *corev1ac.PersistentVolumeClaimApplyConfiguration {
	spec := corev1ac.PersistentVolumeClaimSpec().
		WithAccessModes(corev1.ReadWriteOnce).
		WithVolumeMode(corev1.PersistentVolumeFilesystem).
		WithResources(corev1ac.VolumeResourceRequirements().
			WithRequests(corev1.ResourceList{corev1.ResourceStorage: *hub.Spec.Storage.Size}))
	if class := hub.Spec.Storage.StorageClassName; class != nil {
		spec.WithStorageClassName(*class)
	}
	claim := &corev1ac.PersistentVolumeClaimApplyConfiguration{}
	return claim.WithName(historyVolume).WithLabels(Labels(hub)).WithSpec(spec)
}

func podSpec(hub *switchboardv1alpha1.Hub, image string) *corev1ac.PodSpecApplyConfiguration {
	grace := hub.Spec.Drain.Timeout.Duration + graceAfterDrain
	pod := corev1ac.PodSpec().
		WithServiceAccountName(NodeName(hub)).
		WithAutomountServiceAccountToken(false).
		// A Service's address as an environment variable would only be a second,
		// stale way to find it.
		WithEnableServiceLinks(false).
		WithTerminationGracePeriodSeconds(int64((grace+time.Second-1)/time.Second)).
		WithSecurityContext(corev1ac.PodSecurityContext().
			WithRunAsNonRoot(true).
			WithRunAsUser(nonRootUser).
			WithRunAsGroup(nonRootUser).
			WithFSGroup(nonRootUser).
			WithSeccompProfile(corev1ac.SeccompProfile().WithType(corev1.SeccompProfileTypeRuntimeDefault))).
		WithTopologySpreadConstraints(corev1ac.TopologySpreadConstraint().
			WithMaxSkew(1).
			WithTopologyKey(corev1.LabelHostname).
			WithWhenUnsatisfiable(corev1.ScheduleAnyway).
			WithLabelSelector(selector(hub))).
		WithContainers(container(hub, image)).
		WithVolumes(
			// The whole folder, not one file by subPath: only a folder follows the
			// ConfigMap while the pod runs.
			corev1ac.Volume().WithName("config").
				WithConfigMap(corev1ac.ConfigMapVolumeSource().WithName(ConfigMapName(hub))),
			corev1ac.Volume().WithName("gossip").
				WithSecret(corev1ac.SecretVolumeSource().WithSecretName(GossipSecretName(hub)).WithDefaultMode(0o440)),
		)
	for _, s := range hub.Spec.ImagePullSecrets {
		pod.WithImagePullSecrets(corev1ac.LocalObjectReference().WithName(s.Name))
	}
	return pod
}

func container(hub *switchboardv1alpha1.Hub, image string) *corev1ac.ContainerApplyConfiguration {
	if hub.Spec.Image != "" {
		image = hub.Spec.Image
	}
	resources := nodeResources(hub)
	c := corev1ac.Container().
		WithName("hubnode").
		WithImage(image).
		WithCommand("/hubnode").
		WithArgs("--config", path.Join(configDir, ConfigKey)).
		WithEnv(
			fieldEnv("SWITCHBOARD_NODE", "metadata.name"),
			fieldEnv("SWITCHBOARD_ADVERTISE", "status.podIP"),
		).
		WithPorts(
			containerPort("client", PortClient, corev1.ProtocolTCP),
			containerPort("cluster", PortCluster, corev1.ProtocolTCP),
			containerPort("gossip", PortGossip, corev1.ProtocolTCP),
			containerPort("gossip-udp", PortGossip, corev1.ProtocolUDP),
			containerPort("http", PortHTTP, corev1.ProtocolTCP),
		).
		// Startup holds the other two back, so readiness may ask often without
		// a slow start counting as a failure.
		WithStartupProbe(httpProbe("/healthz").WithPeriodSeconds(1).WithTimeoutSeconds(2).WithFailureThreshold(60)).
		WithReadinessProbe(httpProbe("/readyz").WithPeriodSeconds(2).WithTimeoutSeconds(2).WithFailureThreshold(2)).
		WithLivenessProbe(httpProbe("/healthz").WithPeriodSeconds(10).WithTimeoutSeconds(5).WithFailureThreshold(3)).
		WithResources(corev1ac.ResourceRequirements().WithRequests(resources.Requests).WithLimits(resources.Limits)).
		WithSecurityContext(corev1ac.SecurityContext().
			WithAllowPrivilegeEscalation(false).
			WithReadOnlyRootFilesystem(true).
			WithRunAsNonRoot(true).
			WithCapabilities(corev1ac.Capabilities().WithDrop("ALL"))).
		WithVolumeMounts(
			corev1ac.VolumeMount().WithName("config").WithMountPath(configDir).WithReadOnly(true),
			corev1ac.VolumeMount().WithName("gossip").WithMountPath(gossipDir).WithReadOnly(true),
		)
	if keepsOnDisk(hub) {
		c.WithVolumeMounts(corev1ac.VolumeMount().WithName(historyVolume).WithMountPath(storageDir))
	}
	if limit, ok := resources.Limits[corev1.ResourceMemory]; ok {
		// Collect garbage harder before the kernel kills the process; the tenth
		// below the limit is for what the runtime does not count.
		c.WithEnv(corev1ac.EnvVar().WithName("GOMEMLIMIT").WithValue(strconv.FormatInt(limit.Value()/10*9, 10)))
	}
	if hub.Spec.ImagePullPolicy != "" {
		c.WithImagePullPolicy(hub.Spec.ImagePullPolicy)
	}
	return c
}

// nodeResources are the Hub's, or defaults that suit a few thousand clients.
func nodeResources(hub *switchboardv1alpha1.Hub) switchboardv1alpha1.ResourcesSpec {
	if hub.Spec.Resources != nil {
		return *hub.Spec.Resources
	}
	return switchboardv1alpha1.ResourcesSpec{
		Requests: corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("100m"),
			corev1.ResourceMemory: resource.MustParse("128Mi"),
		},
		Limits: corev1.ResourceList{
			corev1.ResourceMemory: resource.MustParse("512Mi"),
		},
	}
}

// fieldEnv gives the version too, although it is the default: a fieldRef is one
// value to server-side apply, and one that the API server completes would never
// be the one we ask for.
func fieldEnv(name, fieldPath string) *corev1ac.EnvVarApplyConfiguration {
	return corev1ac.EnvVar().WithName(name).WithValueFrom(
		corev1ac.EnvVarSource().WithFieldRef(corev1ac.ObjectFieldSelector().WithAPIVersion("v1").WithFieldPath(fieldPath)))
}

func containerPort(name string, port int32, protocol corev1.Protocol) *corev1ac.ContainerPortApplyConfiguration {
	return corev1ac.ContainerPort().WithName(name).WithContainerPort(port).WithProtocol(protocol)
}

func httpProbe(urlPath string) *corev1ac.ProbeApplyConfiguration {
	return corev1ac.Probe().WithHTTPGet(
		corev1ac.HTTPGetAction().WithPath(urlPath).WithPort(intstr.FromString("http")))
}
