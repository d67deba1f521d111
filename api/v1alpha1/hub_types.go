package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// HubSpec is what a person wants from a hub. Everything in it has a default:
// an empty spec is a hub of three nodes that keeps no history.
//
// Topics, history, health checks, sessions and limits are reloaded by running
// nodes. Changing image, resources, pod, pull settings or drain, or turning TLS on or
// off, replaces the nodes one by one.
//
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.storage) || !has(oldSelf.storage.size) || !has(self.storage) || !has(self.storage.size) || (has(self.storage.storageClassName) == has(oldSelf.storage.storageClassName) && (!has(self.storage.storageClassName) || self.storage.storageClassName == oldSelf.storage.storageClassName))",message="the storage class of a Hub can't be changed: make a new Hub",fieldPath=".storage"
// +kubebuilder:validation:XValidation:rule="(has(self.storage) && has(self.storage.shards) ? self.storage.shards : 16) == (has(oldSelf.storage) && has(oldSelf.storage.shards) ? oldSelf.storage.shards : 16)",message="the number of shards is fixed for a Hub's life: make a new Hub",fieldPath=".storage"
// +kubebuilder:validation:XValidation:rule="!has(self.authorization) || has(self.authentication)",message="has no effect without spec.authentication: as long as nobody is asked who they are, everybody may do everything",fieldPath=".authorization"
// +kubebuilder:validation:XValidation:rule="!has(self.authentication) || !has(self.authentication.mutualTLS) || (has(self.tls) && has(self.tls.clients) && self.tls.clients != 'Disabled')",message="needs spec.tls.clients to be Optional or Required: only over TLS do clients show certificates",fieldPath=".authentication.mutualTLS"
// +kubebuilder:validation:XValidation:rule="!has(self.tenancy) || self.tenancy != 'Namespace' || (has(self.authentication) && has(self.authentication.serviceAccount))",message="Namespace needs spec.authentication.serviceAccount: nobody else is known to be of a namespace",fieldPath=".tenancy"
// +kubebuilder:validation:XValidation:rule="!has(self.limits) || !has(self.limits.perNamespace) || (has(self.tenancy) && self.tenancy == 'Namespace')",message="needs spec.tenancy to be Namespace: topics are of no namespace otherwise, and history.maxBytes bounds each",fieldPath=".limits.perNamespace"
type HubSpec struct {
	// replicas is how many nodes the hub has. Zero stops it and keeps its settings. Started
	// again with fewer nodes than before, a hub on volumes runs all of them until topics
	// have moved.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=99
	// +kubebuilder:default=3
	// +optional
	Replicas *int32 `json:"replicas,omitempty"`

	// healthCheck is how a node finds out that one of its clients is gone.
	// +kubebuilder:default={}
	// +optional
	HealthCheck HealthCheckSpec `json:"healthCheck,omitzero"`

	// history is what every topic keeps that no entry of topics says otherwise for.
	// +kubebuilder:default={}
	// +optional
	History HistorySpec `json:"history,omitzero"`

	// topics are settings for topics by pattern. The first entry whose pattern
	// matches a topic wins, so put narrow patterns before wide ones.
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:XValidation:rule="self.all(t, self.exists_one(u, u.pattern == t.pattern))",message="must not have a pattern twice: the first entry would win"
	// +listType=atomic
	// +optional
	Topics []HubTopicSpec `json:"topics,omitempty"`

	// allowedTopicNamespaces name the namespaces whose Topics the hub takes, beside
	// its own; "*" is every namespace. A Topic may claim any pattern that topics and
	// older Topics leave free.
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:items:XValidation:rule="self == '*' || self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="must be the name of a namespace, or * for every namespace"
	// +listType=set
	// +optional
	AllowedTopicNamespaces []string `json:"allowedTopicNamespaces,omitempty"`

	// storage is how and where history is kept: absent or without a size in
	// memory, with a size on a persistent volume of each node.
	// +optional
	Storage *StorageSpec `json:"storage,omitempty"`

	// sessions are settings of the clients' sessions.
	// +kubebuilder:default={}
	// +optional
	Sessions SessionsSpec `json:"sessions,omitzero"`

	// limits bound what clients may ask of a node.
	// +kubebuilder:default={}
	// +optional
	Limits LimitsSpec `json:"limits,omitzero"`

	// tls is whether clients connect over TLS, and where the nodes' certificate
	// comes from. Absent: nothing of the hub uses TLS.
	// +optional
	TLS *TLSSpec `json:"tls,omitempty"`

	// authentication is how clients prove who they are. Absent: nobody is asked, and
	// everybody who reaches the hub may do everything.
	// +optional
	Authentication *AuthenticationSpec `json:"authentication,omitempty"`

	// authorization is what clients may do that have proved who they are. Absent:
	// without authentication everything, with it nothing but what Grants allow.
	// +optional
	Authorization *AuthorizationSpec `json:"authorization,omitempty"`

	// tenancy says who has names of their own. None, the default: all clients share the
	// hub's. Namespace: the pods of each namespace, known by their ServiceAccounts, have
	// topics and client ids of their own: what they call orders.new and worker-1 is
	// NAMESPACE.orders.new and NAMESPACE/worker-1 to the hub and to everybody else. Rules,
	// Grants and Topics of a namespace are in its own names. A change renames: clients
	// are disconnected, come back under their other names, and find none of the topics
	// that they had.
	// +kubebuilder:validation:Enum=None;Namespace
	// +kubebuilder:default=None
	// +optional
	Tenancy TenancyPolicy `json:"tenancy,omitempty"`

	// drain is how a node moves its clients away before it stops. A change
	// replaces the nodes one by one, because a pod's grace period is fixed.
	// +kubebuilder:default={}
	// +optional
	Drain DrainSpec `json:"drain,omitzero"`

	// updates is how nodes are replaced when something changes that they can't
	// reload: the image, resources, the pods' settings.
	// +kubebuilder:default={}
	// +optional
	Updates UpdatesSpec `json:"updates,omitzero"`

	// paused makes the operator leave everything of this Hub as it is, whatever the
	// spec says; it still reports the status. The nodes run on.
	// +optional
	Paused bool `json:"paused,omitempty"`

	// service is the Service that clients use.
	// +optional
	Service *ServiceSpec `json:"service,omitempty"`

	// serviceAccount is who the nodes' pods are.
	// +optional
	ServiceAccount *ServiceAccountSpec `json:"serviceAccount,omitempty"`

	// pod is what each node's pod has beside what the operator gives it. A change
	// replaces the nodes one by one.
	// +optional
	Pod *PodSpec `json:"pod,omitempty"`

	// resources of each node. Absent: requests of 100m CPU and 128Mi memory, a
	// limit of 512Mi memory. Given, it replaces all of these.
	// +optional
	Resources *ResourcesSpec `json:"resources,omitempty"`

	// image that the nodes run, in place of the operator's own one.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +optional
	Image string `json:"image,omitempty"`

	// imagePullPolicy of the nodes; absent, Kubernetes decides by the image's tag.
	// +kubebuilder:validation:Enum=Always;IfNotPresent;Never
	// +optional
	ImagePullPolicy corev1.PullPolicy `json:"imagePullPolicy,omitempty"`

	// imagePullSecrets name Secrets in the Hub's namespace to pull the image with.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	// +optional
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`
}

// HealthCheckSpec says when a client that does not answer is removed. The node
// that holds the client pings it.
//
// +kubebuilder:validation:XValidation:rule="!has(self.timeout) || !has(self.interval) || [self.timeout, self.interval].exists(d, !d.matches('^([0-9]{1,6}([.][0-9]{1,9})?(h|m|s|ms))+$')) || duration(self.timeout) <= duration(self.interval)",message="must not be longer than interval: a client is pinged again only after it had its time to answer",fieldPath=".timeout"
type HealthCheckSpec struct {
	// interval between two pings of one client.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,6}([.][0-9]{1,9})?(h|m|s|ms))+$') && duration(self) > duration('0s')",message="must be a duration above zero such as 500ms, 10s or 1h30m"
	// +kubebuilder:default="10s"
	// +optional
	Interval metav1.Duration `json:"interval,omitzero"`

	// timeout is how long a client may take to answer a ping; not above interval.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,6}([.][0-9]{1,9})?(h|m|s|ms))+$') && duration(self) > duration('0s')",message="must be a duration above zero such as 500ms, 10s or 1h30m"
	// +kubebuilder:default="5s"
	// +optional
	Timeout metav1.Duration `json:"timeout,omitzero"`

	// failureThreshold is how many pings in a row stay unanswered before the
	// client is removed.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	// +kubebuilder:default=3
	// +optional
	FailureThreshold int32 `json:"failureThreshold,omitempty"`
}

// HistorySpec is what a topic keeps for those who join late. Whichever bound is
// reached first applies.
type HistorySpec struct {
	// maxArtifacts is how many artifacts a topic keeps; 0 keeps none.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000000
	// +kubebuilder:default=0
	// +optional
	MaxArtifacts int64 `json:"maxArtifacts"`

	// maxBytes is how many bytes a topic keeps.
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="isQuantity(string(self)) && quantity(string(self)).isInteger() && quantity(string(self)).compareTo(quantity('1')) >= 0 && quantity(string(self)).compareTo(quantity('1Pi')) <= 0",message="must be a whole number of bytes between 1 and 1Pi, such as 64Ki or 8Mi"
	// +kubebuilder:default="64Mi"
	// +optional
	MaxBytes resource.Quantity `json:"maxBytes,omitzero"`

	// maxAge is how long a topic keeps an artifact.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,6}([.][0-9]{1,9})?(h|m|s|ms))+$') && duration(self) > duration('0s')",message="must be a duration above zero such as 500ms, 10s or 1h30m"
	// +kubebuilder:default="1h"
	// +optional
	MaxAge metav1.Duration `json:"maxAge,omitzero"`
}

// HubTopicSpec holds settings for the topics that match a pattern.
type HubTopicSpec struct {
	// pattern of topic names, as in subscriptions: tokens joined by dots; "*"
	// stands for one token, ">" at the end for one or more.
	// +required
	Pattern TopicPattern `json:"pattern"`

	TopicSettings `json:",inline"`
}

// TopicPattern is a pattern of topic names, or the name of one topic.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=255
// +kubebuilder:validation:XValidation:rule=`self.matches(r'^(([*]|[^.*>\p{Z}\p{Cc}\x{FFFD}]+)[.])*([*>]|[^.*>\p{Z}\p{Cc}\x{FFFD}]+)$')`,message="must be tokens joined by dots, such as orders.new, orders.*.eu or orders.>; * stands for one whole token, > for the rest and only at the end"
// +kubebuilder:validation:XValidation:rule="size(bytes(self)) <= 255 && self.split('.').size() <= 32",message="must have at most 32 tokens and 255 bytes"
type TopicPattern string

// TopicSettings are what an entry of a Hub's topics and a Topic have in common.
type TopicSettings struct {
	// history of the matching topics; what it leaves out is as in the Hub's
	// spec.history.
	// +optional
	History *TopicHistorySpec `json:"history,omitempty"`

	// filter is a CEL expression over the variable artifact. What it is not true
	// for is refused. One that does not compile reaches no node, and the resource's
	// conditions say why.
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="size(bytes(self)) <= 4096",message="must have at most 4096 bytes"
	// +optional
	Filter string `json:"filter,omitempty"`
}

// TopicHistorySpec overrides the hub's history for some topics, field by field.
type TopicHistorySpec struct {
	// maxArtifacts is how many artifacts a topic keeps; 0 keeps none.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000000
	// +optional
	MaxArtifacts *int64 `json:"maxArtifacts,omitempty"`

	// maxBytes is how many bytes a topic keeps.
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="isQuantity(string(self)) && quantity(string(self)).isInteger() && quantity(string(self)).compareTo(quantity('1')) >= 0 && quantity(string(self)).compareTo(quantity('1Pi')) <= 0",message="must be a whole number of bytes between 1 and 1Pi, such as 64Ki or 8Mi"
	// +optional
	MaxBytes *resource.Quantity `json:"maxBytes,omitempty"`

	// maxAge is how long a topic keeps an artifact.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,6}([.][0-9]{1,9})?(h|m|s|ms))+$') && duration(self) > duration('0s')",message="must be a duration above zero such as 500ms, 10s or 1h30m"
	// +optional
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
}

// StorageSpec says how history is kept: how often, and on persistent volumes or
// in memory.
//
// +kubebuilder:validation:XValidation:rule="!has(self.storageClassName) || has(self.size)",message="is required with storageClassName",fieldPath=".size"
type StorageSpec struct {
	// size of each node's persistent volume. Absent: history is kept in the nodes'
	// memory, and what a majority of a shard's nodes held is lost when they stop at
	// the same time. Volumes grow while nodes run, where the storage class lets
	// them; they never shrink. Set or removed, it replaces the nodes one by one, and
	// each fetches its history from the others: a hub of one node has then lost it.
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="isQuantity(string(self)) && quantity(string(self)).isInteger() && quantity(string(self)).compareTo(quantity('1Gi')) >= 0",message="must be a whole number of bytes, at least 1Gi"
	// +optional
	Size *resource.Quantity `json:"size,omitempty"`

	// storageClassName of the volumes; absent: the cluster's default class.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +optional
	StorageClassName *string `json:"storageClassName,omitempty"`

	// deletionPolicy says what becomes of the nodes' volume claims, and with them
	// of the history on them, when the Hub is deleted or a node is scaled away.
	// Retain: they stay, and nodes of the same names find them again; a Hub that is
	// made again with fewer nodes starts all that have a claim, and those that are too
	// many go when topics have moved. Delete: they go with the Hub or with the node; a
	// Hub of no nodes keeps them.
	// +kubebuilder:default=Retain
	// +optional
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`

	// sync says when what is published is on disk. Always: before it is
	// acknowledged. Interval: within syncInterval, which is faster where disks are
	// slow; a crash of a majority of machines, not of pods, may lose so much.
	// +kubebuilder:default=Always
	// +optional
	Sync SyncPolicy `json:"sync,omitempty"`

	// syncInterval is how often disks are synced where sync is Interval.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,6}([.][0-9]{1,9})?(h|m|s|ms))+$') && duration(self) > duration('0s')",message="must be a duration above zero such as 500ms, 10s or 1h30m"
	// +kubebuilder:default="100ms"
	// +optional
	SyncInterval metav1.Duration `json:"syncInterval,omitzero"`

	// replicas is how many nodes keep each topic: at most as many as there are. A
	// publish is acknowledged when a majority of them has it.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=7
	// +kubebuilder:default=3
	// +optional
	Replicas int32 `json:"replicas,omitempty"`

	// shards is how many Raft groups the topics are dealt out to. More of them
	// spread the work over more nodes and cost a little each. It is fixed for the
	// Hub's life.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=256
	// +kubebuilder:default=16
	// +optional
	Shards int32 `json:"shards,omitempty"`
}

// SyncPolicy says when what is published is on disk.
// +kubebuilder:validation:Enum=Always;Interval
type SyncPolicy string

// The policies for syncing disks.
const (
	SyncAlways   SyncPolicy = "Always"
	SyncInterval SyncPolicy = "Interval"
)

// DeletionPolicy says whether what was made for a Hub outlives it.
// +kubebuilder:validation:Enum=Retain;Delete
type DeletionPolicy string

// The policies for what a deleted Hub, or a node that was scaled away, leaves.
const (
	DeletionRetain DeletionPolicy = "Retain"
	DeletionDelete DeletionPolicy = "Delete"
)

// UpdateStrategy says who replaces nodes.
// +kubebuilder:validation:Enum=Automatic;OnDelete
type UpdateStrategy string

// The strategies for replacing nodes.
const (
	UpdateAutomatic UpdateStrategy = "Automatic"
	UpdateOnDelete  UpdateStrategy = "OnDelete"
)

// UpdatesSpec says how nodes are replaced.
type UpdatesSpec struct {
	// strategy says who replaces nodes. Automatic: the operator, one at a time, the
	// highest ordinal first, each only when all the others are ready and have the
	// whole history. OnDelete: you, by deleting pods; the operator waits.
	// +kubebuilder:default=Automatic
	// +optional
	Strategy UpdateStrategy `json:"strategy,omitempty"`

	// delay is how long a new node has been ready before the next one is replaced:
	// time to see whether the update does harm. 0s: none.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,6}([.][0-9]{1,9})?(h|m|s|ms))+$')",message="must be a duration such as 0s, 30s or 5m"
	// +kubebuilder:default="0s"
	// +optional
	Delay metav1.Duration `json:"delay,omitempty"`
}

// ServiceSpec is what the Service for clients has beside its ports.
//
// +kubebuilder:validation:XValidation:rule="!has(self.loadBalancerClass) || (has(self.type) && self.type == 'LoadBalancer')",message="needs the type LoadBalancer",fieldPath=".loadBalancerClass"
// +kubebuilder:validation:XValidation:rule="!has(self.type) || self.type != 'LoadBalancer' || !has(oldSelf.type) || oldSelf.type != 'LoadBalancer' || (has(self.loadBalancerClass) == has(oldSelf.loadBalancerClass) && (!has(self.loadBalancerClass) || self.loadBalancerClass == oldSelf.loadBalancerClass))",message="can't be changed while the type is LoadBalancer: make it ClusterIP first",fieldPath=".loadBalancerClass"
// +kubebuilder:validation:XValidation:rule="!has(self.externalTrafficPolicy) || (has(self.type) && self.type != 'ClusterIP')",message="needs the type NodePort or LoadBalancer",fieldPath=".externalTrafficPolicy"
type ServiceSpec struct {
	// type of the Service.
	// +kubebuilder:validation:Enum=ClusterIP;NodePort;LoadBalancer
	// +kubebuilder:default=ClusterIP
	// +optional
	Type corev1.ServiceType `json:"type,omitempty"`

	// annotations of the Service, as load balancers are told by them what to do.
	// +kubebuilder:validation:MaxProperties=64
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`

	// loadBalancerClass names the kind of load balancer; absent: the cluster's. While the
	// type is LoadBalancer it can't be changed, as Kubernetes wants it: make the type
	// ClusterIP, and when the Service's is, LoadBalancer again with the other class.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +optional
	LoadBalancerClass *string `json:"loadBalancerClass,omitempty"`

	// externalTrafficPolicy says whether connections from outside the cluster may
	// go over a second machine (Cluster) or keep the client's address (Local).
	// +kubebuilder:validation:Enum=Cluster;Local
	// +optional
	ExternalTrafficPolicy corev1.ServiceExternalTrafficPolicy `json:"externalTrafficPolicy,omitempty"`
}

// ServiceAccountSpec is what the nodes' ServiceAccount has beside its name.
type ServiceAccountSpec struct {
	// annotations of the ServiceAccount, by which clouds give pods an identity.
	// +kubebuilder:validation:MaxProperties=64
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
}

// PodSpec is what the nodes' pods have beside what the operator gives them.
type PodSpec struct {
	// labels of the pods beside the operator's own, which they can't replace.
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('app.kubernetes.io/') && !k.startsWith('switchboard.dev/'))",message="must not begin with app.kubernetes.io/ or switchboard.dev/: these are the operator's"
	// +optional
	Labels map[string]string `json:"labels,omitempty"`

	// annotations of the pods.
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('switchboard.dev/'))",message="must not begin with switchboard.dev/: these are the operator's"
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`

	// nodeSelector are labels of the machines on which nodes may run.
	// +kubebuilder:validation:MaxProperties=64
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`

	// affinity to machines and other pods.
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`

	// tolerations of machines' taints.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +optional
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`

	// topologySpreadConstraints replace the operator's own one, which spreads nodes
	// over machines as far as there are enough. An empty labelSelector finds the
	// Hub's nodes.
	// +kubebuilder:validation:MaxItems=8
	// +listType=atomic
	// +optional
	TopologySpreadConstraints []corev1.TopologySpreadConstraint `json:"topologySpreadConstraints,omitempty"`

	// priorityClassName of the pods.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +optional
	PriorityClassName string `json:"priorityClassName,omitempty"`

	// env are further environment variables of the node's container.
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=name
	// +optional
	Env []EnvVar `json:"env,omitempty"`

	// volumes are further volumes, mounted into the node's container to be read.
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=name
	// +optional
	Volumes []Volume `json:"volumes,omitempty"`
}

// EnvVar is an environment variable: a value, or where to take it from.
//
// +kubebuilder:validation:XValidation:rule="[has(self.value), has(self.secretKeyRef), has(self.configMapKeyRef)].filter(x, x).size() <= 1",message="must have one of value, secretKeyRef and configMapKeyRef"
type EnvVar struct {
	// name of the variable.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z_][A-Za-z0-9_]*$') && !self.startsWith('SWITCHBOARD_') && self != 'GOMEMLIMIT'",message="must be letters, digits and underscores, and not SWITCHBOARD_… or GOMEMLIMIT, which the operator sets"
	// +required
	Name string `json:"name"`

	// value of the variable.
	// +kubebuilder:validation:MaxLength=32768
	// +optional
	Value *string `json:"value,omitempty"`

	// secretKeyRef takes the value from a Secret in the Hub's namespace.
	// +optional
	SecretKeyRef *KeyRef `json:"secretKeyRef,omitempty"`

	// configMapKeyRef takes the value from a ConfigMap in the Hub's namespace.
	// +optional
	ConfigMapKeyRef *KeyRef `json:"configMapKeyRef,omitempty"`
}

// KeyRef is a key of an object.
type KeyRef struct {
	// name of the object.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +required
	Name string `json:"name"`

	// key in it.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +required
	Key string `json:"key"`
}

// Volume is something of the Hub's namespace that a node reads as files.
//
// +kubebuilder:validation:XValidation:rule="[has(self.secretName), has(self.configMapName), has(self.claimName)].filter(x, x).size() == 1",message="must have one of secretName, configMapName and claimName"
type Volume struct {
	// name of the volume.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && !(self in ['config', 'gossip', 'history', 'node-tls', 'cluster-tls', 'node-auth'])",message="must be lower case letters, digits and dashes, and not config, gossip, history, node-tls, cluster-tls or node-auth, which the operator uses"
	// +required
	Name string `json:"name"`

	// mountPath is the folder in the container.
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="self.matches('^/[^:]+$') && !['/etc/switchboard', '/var/lib/switchboard', '/proc', '/sys', '/dev'].exists(p, self == p || self.startsWith(p + '/')) && !self.contains('..')",message="must be an absolute path without .. and outside of /etc/switchboard, /var/lib/switchboard, /proc, /sys and /dev"
	// +required
	MountPath string `json:"mountPath"`

	// secretName is the Secret whose keys are the files.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +optional
	SecretName string `json:"secretName,omitempty"`

	// configMapName is the ConfigMap whose keys are the files.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +optional
	ConfigMapName string `json:"configMapName,omitempty"`

	// claimName is a PersistentVolumeClaim that all nodes can mount.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +optional
	ClaimName string `json:"claimName,omitempty"`
}

// ResourcesSpec is what each node asks of Kubernetes, in the terms of a container.
type ResourcesSpec struct {
	// requests are what is set aside for a node.
	// +optional
	Requests corev1.ResourceList `json:"requests,omitempty"`

	// limits are what a node can't go beyond. The Go runtime is told to stay at
	// nine tenths of the memory limit.
	// +optional
	Limits corev1.ResourceList `json:"limits,omitempty"`
}

// SessionsSpec holds settings of the clients' sessions.
type SessionsSpec struct {
	// resumeWindow is how long a session outlives its connection: a client that
	// is back in time goes on where it was.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,6}([.][0-9]{1,9})?(h|m|s|ms))+$') && duration(self) > duration('0s')",message="must be a duration above zero such as 500ms, 10s or 1h30m"
	// +kubebuilder:default="30s"
	// +optional
	ResumeWindow metav1.Duration `json:"resumeWindow,omitzero"`
	// rebalance moves clients from nodes that hold more than their share to those
	// with fewer: after the hub grew, new nodes get theirs within a minute.
	// Clients with a session notice nothing but a reconnect.
	// +optional
	Rebalance bool `json:"rebalance,omitempty"`
}

// SlowClientPolicy says what happens to a client that does not keep up, on
// topics without history.
// +kubebuilder:validation:Enum=Disconnect;DropOldest;DropNewest;Conflate
type SlowClientPolicy string

// The policies for slow clients.
const (
	SlowClientDisconnect SlowClientPolicy = "Disconnect"
	SlowClientDropOldest SlowClientPolicy = "DropOldest"
	SlowClientDropNewest SlowClientPolicy = "DropNewest"
	SlowClientConflate   SlowClientPolicy = "Conflate"
)

// LimitsSpec bounds what clients may ask of a node.
//
// +kubebuilder:validation:XValidation:rule="!has(self.maxPendingBytes) || !has(self.maxArtifactSize) || !isQuantity(string(self.maxPendingBytes)) || !isQuantity(string(self.maxArtifactSize)) || quantity(string(self.maxPendingBytes)).compareTo(quantity(string(self.maxArtifactSize))) >= 0",message="must not be below maxArtifactSize: one artifact has to fit",fieldPath=".maxPendingBytes"
type LimitsSpec struct {
	// maxClients is how many clients one node takes.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000000
	// +kubebuilder:default=100000
	// +optional
	MaxClients int32 `json:"maxClients,omitempty"`

	// maxArtifactSize is the size in bytes of the largest artifact that the hub takes.
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="isQuantity(string(self)) && quantity(string(self)).isInteger() && quantity(string(self)).compareTo(quantity('1Ki')) >= 0 && quantity(string(self)).compareTo(quantity('16Mi')) <= 0",message="must be a whole number of bytes between 1Ki and 16Mi, such as 64Ki or 8Mi"
	// +kubebuilder:default="1Mi"
	// +optional
	MaxArtifactSize resource.Quantity `json:"maxArtifactSize,omitzero"`

	// maxPendingBytes is how much a node queues for one client.
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="isQuantity(string(self)) && quantity(string(self)).isInteger() && quantity(string(self)).compareTo(quantity('1Ki')) >= 0 && quantity(string(self)).compareTo(quantity('64Gi')) <= 0",message="must be a whole number of bytes between 1Ki and 64Gi, such as 64Ki or 8Mi"
	// +kubebuilder:default="16Mi"
	// +optional
	MaxPendingBytes resource.Quantity `json:"maxPendingBytes,omitzero"`

	// slowClientPolicy says what happens to a client whose queue is full.
	// +kubebuilder:default=Disconnect
	// +optional
	SlowClientPolicy SlowClientPolicy `json:"slowClientPolicy,omitempty"`

	// conflateKey is the attribute that the policy Conflate goes by: what waits
	// for a slow client and has been followed by an artifact with the same
	// value of it, on the same topic, is dropped.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="size(bytes(self)) <= 255",message="must have at most 255 bytes"
	// +kubebuilder:default=key
	// +optional
	ConflateKey string `json:"conflateKey,omitempty"`

	// connectionsPerSecond is how many connections one node takes in a second, from wherever
	// they come, with a tenth of that at once. More wait, so that clients that are connected
	// are served meanwhile, however many come. Absent: as many as come.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000000
	// +optional
	ConnectionsPerSecond int32 `json:"connectionsPerSecond,omitempty"`

	// perIdentity bounds what all clients of one identity, as authentication finds it,
	// have of one node together. Absent: nothing does.
	// +optional
	PerIdentity *QuotaSpec `json:"perIdentity,omitempty"`

	// perAddress bounds what comes to one node from one IP address, of IPv6 from one
	// network of 64 bits. Where clients come through a proxy, or a load balancer that
	// hides their addresses, all of them have one. Absent: nothing does.
	// +optional
	PerAddress *AddressQuotaSpec `json:"perAddress,omitempty"`

	// perNamespace bounds what the topics of one namespace, whoever uses them, have of the
	// whole hub together. It needs tenancy: otherwise topics are of no namespace. Absent:
	// nothing does.
	// +optional
	PerNamespace *NamespaceQuotaSpec `json:"perNamespace,omitempty"`
}

// NamespaceQuotaSpec bounds what belongs to a namespace. What is left out is not bounded.
type NamespaceQuotaSpec struct {
	// historyBytes is how many bytes of artifacts the topics may keep, each counted once and
	// not for each replica. What would be more is refused: reading goes on, and so do topics
	// without history, until retention or a purge has made room. A tenant that publishes to
	// several nodes may get beyond it by what these take within a few seconds.
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="isQuantity(string(self)) && quantity(string(self)).isInteger() && quantity(string(self)).compareTo(quantity('1Ki')) >= 0 && quantity(string(self)).compareTo(quantity('1Pi')) <= 0",message="must be a whole number of bytes between 1Ki and 1Pi, such as 64Mi or 10Gi"
	// +optional
	HistoryBytes *resource.Quantity `json:"historyBytes,omitempty"`
}

// AddressQuotaSpec bounds connections. What is left out is not bounded.
type AddressQuotaSpec struct {
	// connections is how many there may be at a time.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000000
	// +optional
	Connections int32 `json:"connections,omitempty"`

	// connectionsPerSecond is how many may begin in a second, with a second's worth at
	// once. More are told so and closed before they have shaken hands.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000000
	// +optional
	ConnectionsPerSecond int32 `json:"connectionsPerSecond,omitempty"`
}

// QuotaSpec bounds what somebody has of one node. What is left out is not bounded.
type QuotaSpec struct {
	// clients is how many may be connected at a time.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000000
	// +optional
	Clients int32 `json:"clients,omitempty"`

	// subscriptions is how many there may be at a time.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000000
	// +optional
	Subscriptions int32 `json:"subscriptions,omitempty"`

	// artifactsPerSecond is how many artifacts may be sent and published in a second, with
	// a second's worth at once. What is more is not refused: the node reads it later, and
	// the connection holds the client up.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000000
	// +optional
	ArtifactsPerSecond int32 `json:"artifactsPerSecond,omitempty"`

	// bytesPerSecond is likewise how many bytes of artifacts, with their frames.
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="isQuantity(string(self)) && quantity(string(self)).isInteger() && quantity(string(self)).compareTo(quantity('1Ki')) >= 0 && quantity(string(self)).compareTo(quantity('1Ti')) <= 0",message="must be a whole number of bytes between 1Ki and 1Ti, such as 64Ki or 8Mi"
	// +optional
	BytesPerSecond *resource.Quantity `json:"bytesPerSecond,omitempty"`
}

// DrainSpec says how a node stops.
type DrainSpec struct {
	// timeout is how long a stopping node may take to move its clients away.
	// Its pod is killed 15 seconds later.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,6}([.][0-9]{1,9})?(h|m|s|ms))+$') && duration(self) > duration('0s')",message="must be a duration above zero such as 500ms, 10s or 1h30m"
	// +kubebuilder:default="60s"
	// +optional
	Timeout metav1.Duration `json:"timeout,omitzero"`
}

// ClientTLS says whether clients use TLS.
// +kubebuilder:validation:Enum=Disabled;Optional;Required
type ClientTLS string

// What clients may use, or must.
const (
	ClientTLSDisabled ClientTLS = "Disabled"
	ClientTLSOptional ClientTLS = "Optional"
	ClientTLSRequired ClientTLS = "Required"
)

// TLSSpec says who uses TLS, and where the nodes' certificate comes from: with
// neither issuerRef nor secretName from a certificate authority that the operator
// runs for this Hub.
//
// +kubebuilder:validation:XValidation:rule="!has(self.issuerRef) || !has(self.secretName)",message="must not be given together with secretName: the certificate comes either from an issuer or from your Secret",fieldPath=".issuerRef"
// +kubebuilder:validation:XValidation:rule="!has(self.extraNames) || size(self.extraNames) == 0 || !has(self.secretName)",message="must not be given together with secretName: its names are those of the certificate in your Secret",fieldPath=".extraNames"
type TLSSpec struct {
	// clients says what clients connect with. Disabled: no TLS, and nothing is issued.
	// Optional: the client port takes TLS and plain connections. Required: TLS only.
	// Between Optional and Required running nodes change over; to and from Disabled
	// they are replaced one by one.
	// +kubebuilder:default=Disabled
	// +optional
	Clients ClientTLS `json:"clients,omitempty"`

	// issuerRef names an issuer of cert-manager, which has to be installed. The
	// operator makes a Certificate and gives nodes what comes of it.
	// +optional
	IssuerRef *IssuerRef `json:"issuerRef,omitempty"`

	// secretName is a Secret in the Hub's namespace with tls.crt, tls.key and ca.crt.
	// Who keeps it renews it; the operator takes over what is new within minutes.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="must be the name of a Secret: lower case letters, digits, dashes and dots"
	// +optional
	SecretName string `json:"secretName,omitempty"`

	// extraNames are DNS names and IP addresses that the nodes' certificate is valid
	// for beside those of the Hub's Services: of a load balancer, or of another
	// cluster domain. The first label of a name may be *.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:XValidation:rule="isIP(self) || self.matches('^([*][.])?([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?[.])*[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",message="must be a DNS name in lower case, such as hub.example.com or *.hub.example.com, or an IP address, without a port"
	// +listType=set
	// +optional
	ExtraNames []string `json:"extraNames,omitempty"`
}

// IssuerRef names an issuer of cert-manager.
//
// +kubebuilder:validation:XValidation:rule="(has(self.group) && self.group != 'cert-manager.io') || !has(self.kind) || self.kind in ['Issuer', 'ClusterIssuer']",message="must be Issuer or ClusterIssuer; issuers of other kinds have a group of their own",fieldPath=".kind"
type IssuerRef struct {
	// name of the issuer.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +required
	Name string `json:"name"`

	// kind of the issuer: Issuer, in the Hub's namespace, or ClusterIssuer.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:default=Issuer
	// +optional
	Kind string `json:"kind,omitempty"`

	// group of the issuer, for those that are not cert-manager's own.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:default=cert-manager.io
	// +optional
	Group string `json:"group,omitempty"`
}

// CertificatesStatus is about the certificate that nodes have.
type CertificatesStatus struct {
	// notAfter is when the nodes' certificate expires.
	// +optional
	NotAfter metav1.Time `json:"notAfter,omitzero"`

	// renewalTime is when the operator renews it; absent where it is renewed by
	// somebody else.
	// +optional
	RenewalTime *metav1.Time `json:"renewalTime,omitempty"`
}

// HubStatus is what the operator sees of a hub.
type HubStatus struct {
	// observedGeneration is the generation of the spec that this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// replicas is how many nodes exist.
	// +optional
	Replicas int32 `json:"replicas"`

	// readyReplicas is how many nodes serve clients.
	// +optional
	ReadyReplicas int32 `json:"readyReplicas"`

	// ready is "readyReplicas/spec.replicas", for people.
	// +optional
	Ready string `json:"ready,omitempty"`

	// selector finds the nodes' pods; the scale subresource shows it.
	// +optional
	Selector string `json:"selector,omitempty"`

	// address is what clients inside the cluster connect to.
	// +optional
	Address string `json:"address,omitempty"`

	// audience is the one that clients' ServiceAccount tokens have to be for; absent
	// where these are not taken.
	// +optional
	Audience string `json:"audience,omitempty"`

	// safeToRestart says whether any one node may be stopped now without harm: all
	// are ready, and every shard has all its replicas, caught up.
	// +optional
	SafeToRestart bool `json:"safeToRestart"`

	// storageSize is the size of the largest volume that nodes keep history on:
	// spec.storage.size can't be less.
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=32
	// +optional
	StorageSize *resource.Quantity `json:"storageSize,omitempty"`

	// clients is how many clients the nodes that answered hold together.
	// +optional
	Clients int64 `json:"clients"`

	// certificates is about the nodes' certificate; absent without one.
	// +optional
	Certificates *CertificatesStatus `json:"certificates,omitempty"`

	// conditions: Available, Progressing, Degraded and ConfigApplied; TopicsAccepted
	// only while Topics refer to the Hub, and GrantsAccepted while Grants do;
	// CertificatesReady only while clients use TLS, and AuthenticationReady while they
	// are asked who they are; UpdateAvailable, Reconciling and Stalled only while they are True.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Hub is a cluster of hub nodes through which clients reach each other by name
// or by topic, whichever node they are connected to.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector
// +kubebuilder:resource:shortName=hub,categories=all
// +kubebuilder:printcolumn:name=Ready,type=string,JSONPath=`.status.ready`,description="Nodes that serve clients, of those wanted"
// +kubebuilder:printcolumn:name=Clients,type=integer,JSONPath=`.status.clients`,description="Connected clients"
// +kubebuilder:printcolumn:name=Address,type=string,JSONPath=`.status.address`,description="Where clients connect"
// +kubebuilder:printcolumn:name=Available,type=string,JSONPath=`.status.conditions[?(@.type=="Available")].status`,description="Whether a majority of the nodes is ready"
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 45 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="metadata.name: must be at most 45 characters: lower case letters, digits and dashes, starting with a letter and not ending with a dash; Services and pods are named after the Hub"
// +kubebuilder:validation:XValidation:rule="!has(self.spec.storage) || !has(self.spec.storage.size) || !has(oldSelf.status) || !has(oldSelf.status.storageSize) || (has(oldSelf.spec.storage) && has(oldSelf.spec.storage.size) && self.spec.storage.size == oldSelf.spec.storage.size) || !isQuantity(string(self.spec.storage.size)) || quantity(string(self.spec.storage.size)).compareTo(quantity(string(oldSelf.status.storageSize))) >= 0",message="volumes can't shrink: status.storageSize says what there is",fieldPath=".spec.storage.size"
// +kubebuilder:validation:XValidation:rule="!has(self.spec.tls) || !has(self.spec.tls.secretName) || !(self.spec.tls.secretName in [self.metadata.name + '-ca', self.metadata.name + '-gossip', self.metadata.name + '-node-tls', self.metadata.name + '-node-issued', self.metadata.name + '-cluster-tls', self.metadata.name + '-cluster-authority'])",message="must be a Secret of your own: this one is the operator's",fieldPath=".spec.tls.secretName"
type Hub struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is what is wanted.
	// +kubebuilder:default={}
	// +optional
	Spec HubSpec `json:"spec,omitzero"`
	// status is what there is; the operator writes it.
	// +optional
	Status HubStatus `json:"status,omitzero"`
}

// HubList is a list of Hubs.
//
// +kubebuilder:object:root=true
type HubList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitzero"`
	// Items are the Hubs.
	Items []Hub `json:"items"`
}
