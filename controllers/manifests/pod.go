package manifests

import (
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/pki"
)

// nonRootUser owns the image's processes.
const nonRootUser int64 = 65532

// graceAfterDrain is what a pod gets beyond its drain timeout, to leave the
// gossip and close.
const graceAfterDrain = 15 * time.Second

// podTemplate is what every node's pod is made of.
func podTemplate(hub *switchboardv1alpha1.Hub, image string) *corev1ac.PodTemplateSpecApplyConfiguration {
	want := wishes(hub)
	template := corev1ac.PodTemplateSpec().
		WithLabels(labels.Merge(want.Labels, Labels(hub))).
		WithSpec(podSpec(hub, image))
	if len(want.Annotations) > 0 {
		template.WithAnnotations(want.Annotations)
	}
	if at := hub.Annotations[AnnotationRestartedAt]; at != "" {
		template.WithAnnotations(map[string]string{AnnotationRestartedAt: at})
	}
	return template
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
		WithContainers(container(hub, image)).
		WithVolumes(
			// The whole folder, not one file by subPath: only a folder follows the
			// ConfigMap while the pod runs.
			corev1ac.Volume().WithName("config").
				WithConfigMap(corev1ac.ConfigMapVolumeSource().WithName(ConfigMapName(hub))),
			corev1ac.Volume().WithName("gossip").
				WithSecret(corev1ac.SecretVolumeSource().WithSecretName(GossipSecretName(hub)).WithDefaultMode(0o440)),
			corev1ac.Volume().WithName(clusterTLSVolume).
				WithSecret(corev1ac.SecretVolumeSource().WithSecretName(ClusterTLSName(hub)).WithDefaultMode(0o440)),
		)
	if ServesTLS(hub) {
		// The whole folder here, too: the kubelet renews the files in it.
		pod.WithVolumes(corev1ac.Volume().WithName(tlsVolume).
			WithSecret(corev1ac.SecretVolumeSource().WithSecretName(NodeTLSName(hub)).WithDefaultMode(0o440)))
	}
	if needsAuthVolume(hub) {
		pod.WithVolumes(authVolumeOf(hub))
	}
	for _, s := range hub.Spec.ImagePullSecrets {
		pod.WithImagePullSecrets(corev1ac.LocalObjectReference().WithName(s.Name))
	}
	place(pod, hub)
	for _, v := range wishes(hub).Volumes {
		pod.WithVolumes(volume(v))
	}
	return pod
}

// wishes is what the Hub wants its pods to have beside what they need.
func wishes(hub *switchboardv1alpha1.Hub) *switchboardv1alpha1.PodSpec {
	if hub.Spec.Pod == nil {
		return &switchboardv1alpha1.PodSpec{}
	}
	return hub.Spec.Pod
}

// place says on which machines the pod may run.
func place(pod *corev1ac.PodSpecApplyConfiguration, hub *switchboardv1alpha1.Hub) {
	want := wishes(hub)
	if len(want.NodeSelector) > 0 {
		pod.WithNodeSelector(want.NodeSelector)
	}
	if want.PriorityClassName != "" {
		pod.WithPriorityClassName(want.PriorityClassName)
	}
	if want.Affinity != nil {
		pod.WithAffinity(same(want.Affinity, &corev1ac.AffinityApplyConfiguration{}))
	}
	for _, t := range want.Tolerations {
		pod.WithTolerations(same(t, &corev1ac.TolerationApplyConfiguration{}))
	}
	for _, c := range want.TopologySpreadConstraints {
		constraint := same(c, &corev1ac.TopologySpreadConstraintApplyConfiguration{})
		if c.LabelSelector == nil {
			constraint.WithLabelSelector(selector(hub))
		}
		pod.WithTopologySpreadConstraints(constraint)
	}
	if len(want.TopologySpreadConstraints) == 0 {
		pod.WithTopologySpreadConstraints(corev1ac.TopologySpreadConstraint().
			WithMaxSkew(1).
			WithTopologyKey(corev1.LabelHostname).
			WithWhenUnsatisfiable(corev1.ScheduleAnyway).
			WithLabelSelector(selector(hub)))
	}
}

// same writes one of Kubernetes' types as its apply configuration, which has the
// same fields.
func same[A any](from any, to *A) *A {
	data, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(data, to)
	}
	if err != nil {
		panic(fmt.Sprintf("a type that Kubernetes has in two forms: %v", err))
	}
	return to
}

func volume(v switchboardv1alpha1.Volume) *corev1ac.VolumeApplyConfiguration {
	vol := corev1ac.Volume().WithName(v.Name)
	switch {
	case v.SecretName != "":
		vol.WithSecret(corev1ac.SecretVolumeSource().WithSecretName(v.SecretName).WithDefaultMode(0o440))
	case v.ConfigMapName != "":
		vol.WithConfigMap(corev1ac.ConfigMapVolumeSource().WithName(v.ConfigMapName))
	default:
		vol.WithPersistentVolumeClaim(corev1ac.PersistentVolumeClaimVolumeSource().WithClaimName(v.ClaimName).WithReadOnly(true))
	}
	return vol
}

func envVar(v switchboardv1alpha1.EnvVar) *corev1ac.EnvVarApplyConfiguration {
	env := corev1ac.EnvVar().WithName(v.Name)
	switch {
	case v.SecretKeyRef != nil:
		env.WithValueFrom(corev1ac.EnvVarSource().WithSecretKeyRef(
			corev1ac.SecretKeySelector().WithName(v.SecretKeyRef.Name).WithKey(v.SecretKeyRef.Key)))
	case v.ConfigMapKeyRef != nil:
		env.WithValueFrom(corev1ac.EnvVarSource().WithConfigMapKeyRef(
			corev1ac.ConfigMapKeySelector().WithName(v.ConfigMapKeyRef.Name).WithKey(v.ConfigMapKeyRef.Key)))
	case v.Value != nil && *v.Value != "": // the API server drops an empty one: see KeepTemplate
		env.WithValue(*v.Value)
	}
	return env
}

func container(hub *switchboardv1alpha1.Hub, image string) *corev1ac.ContainerApplyConfiguration {
	if hub.Spec.Image != "" {
		image = hub.Spec.Image
	}
	resources := nodeResources(hub)
	c := corev1ac.Container().
		WithName(NodeContainer).
		WithImage(image).
		// The last lines of a node that dies: the operator shows them.
		WithTerminationMessagePolicy(corev1.TerminationMessageFallbackToLogsOnError).
		WithCommand("/hubnode").
		WithArgs("--config", path.Join(configDir, ConfigKey)).
		WithEnv(
			fieldEnv("SWITCHBOARD_NODE", "metadata.name"),
			fieldEnv("SWITCHBOARD_ADVERTISE", "status.podIP"),
			// Not in the settings, which nodes of before would refuse: these overlook it.
			corev1ac.EnvVar().WithName("SWITCHBOARD_CLUSTER_TLS").WithValue(clusterTLSDir),
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
		WithResources(requirements(resources)).
		WithSecurityContext(corev1ac.SecurityContext().
			WithAllowPrivilegeEscalation(false).
			WithReadOnlyRootFilesystem(true).
			WithRunAsNonRoot(true).
			WithCapabilities(corev1ac.Capabilities().WithDrop("ALL"))).
		WithVolumeMounts(
			corev1ac.VolumeMount().WithName("config").WithMountPath(configDir).WithReadOnly(true),
			corev1ac.VolumeMount().WithName("gossip").WithMountPath(gossipDir).WithReadOnly(true),
			corev1ac.VolumeMount().WithName(clusterTLSVolume).WithMountPath(clusterTLSDir).WithReadOnly(true),
		)
	if keepsOnDisk(hub) {
		c.WithVolumeMounts(corev1ac.VolumeMount().WithName(historyVolume).WithMountPath(storageDir))
	}
	if ServesTLS(hub) {
		c.WithVolumeMounts(corev1ac.VolumeMount().WithName(tlsVolume).WithMountPath(tlsDir).WithReadOnly(true))
		// For hubctl, which people run in the container.
		c.WithEnv(corev1ac.EnvVar().WithName("SWITCHBOARD_CA_FILE").WithValue(path.Join(tlsDir, pki.AuthoritiesKey)))
	}
	if needsAuthVolume(hub) {
		c.WithVolumeMounts(corev1ac.VolumeMount().WithName(authVolume).WithMountPath(authDir).WithReadOnly(true))
	}
	if limit, ok := resources.Limits[corev1.ResourceMemory]; ok {
		// Collect garbage harder before the kernel kills the process; the tenth
		// below the limit is for what the runtime does not count.
		c.WithEnv(corev1ac.EnvVar().WithName("GOMEMLIMIT").WithValue(strconv.FormatInt(limit.Value()/10*9, 10)))
	}
	if hub.Spec.ImagePullPolicy != "" {
		c.WithImagePullPolicy(hub.Spec.ImagePullPolicy)
	}
	for _, v := range wishes(hub).Env {
		c.WithEnv(envVar(v))
	}
	for _, v := range wishes(hub).Volumes {
		c.WithVolumeMounts(corev1ac.VolumeMount().WithName(v.Name).WithMountPath(v.MountPath).WithReadOnly(true))
	}
	return c
}

// requirements leaves out what is empty, as the API server does.
func requirements(r switchboardv1alpha1.ResourcesSpec) *corev1ac.ResourceRequirementsApplyConfiguration {
	c := corev1ac.ResourceRequirements()
	if len(r.Requests) > 0 {
		c.WithRequests(r.Requests)
	}
	if len(r.Limits) > 0 {
		c.WithLimits(r.Limits)
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
