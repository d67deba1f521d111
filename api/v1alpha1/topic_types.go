package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TopicSpec is what an application's team wants of the topics that are its own.
//
// +kubebuilder:validation:XValidation:rule="has(self.pattern) == has(oldSelf.pattern) && (!has(self.pattern) || self.pattern == oldSelf.pattern)",message="can't be changed: make a new Topic",fieldPath=".pattern"
type TopicSpec struct {
	// hubRef is the Hub whose topics these are. It can't be changed.
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="can't be changed: make a new Topic"
	// +required
	HubRef HubReference `json:"hubRef"`

	// pattern of the topics' names, as in a Hub's spec.topics, or the name of one
	// topic; absent: the Topic's own name. It can't be changed. No topic can be of
	// two Topics: the older one has it, and before both the Hub's spec.topics.
	// +optional
	Pattern TopicPattern `json:"pattern,omitempty"`

	TopicSettings `json:",inline"`

	// deletionPolicy says what becomes of the artifacts that the topics keep when
	// the Topic is deleted. Retain: they stay, under the Hub's own settings. Purge:
	// the operator deletes them first.
	// +kubebuilder:default=Retain
	// +optional
	DeletionPolicy TopicDeletionPolicy `json:"deletionPolicy,omitempty"`
}

// HubReference names a Hub.
type HubReference struct {
	// name of the Hub.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=45
	// +required
	Name string `json:"name"`

	// namespace of the Hub; absent: the Topic's own. The Hub has to allow Topics of
	// other namespaces in its spec.allowedTopicNamespaces.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Namespace string `json:"namespace,omitempty"`
}

// TopicDeletionPolicy says whether what topics keep outlives their Topic.
// +kubebuilder:validation:Enum=Retain;Purge
type TopicDeletionPolicy string

// The policies for what a deleted Topic leaves.
const (
	TopicRetain TopicDeletionPolicy = "Retain"
	TopicPurge  TopicDeletionPolicy = "Purge"
)

// TopicStatus is what the operator sees of a Topic.
type TopicStatus struct {
	// observedGeneration is the generation of the spec that this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// pattern that the Topic is about, in the hub's names.
	// +optional
	Pattern string `json:"pattern,omitempty"`

	// conditions: Accepted and Applied; Conflicted, Purged, Reconciling and Stalled
	// only while they have something to say.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Topic is settings for topics of a Hub, owned by whoever uses them, in their
// own namespace.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=sbtopic,categories=all
// +kubebuilder:printcolumn:name=Hub,type=string,JSONPath=`.spec.hubRef.name`,description="The Hub whose topics these are"
// +kubebuilder:printcolumn:name=Pattern,type=string,JSONPath=`.status.pattern`,description="The topics that these settings are for"
// +kubebuilder:printcolumn:name=Accepted,type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`,description="Whether the Hub takes the Topic"
// +kubebuilder:printcolumn:name=Applied,type=string,JSONPath=`.status.conditions[?(@.type=="Applied")].status`,description="Whether all nodes of the Hub run these settings"
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="has(self.spec.pattern) || self.metadata.name.split('.').size() <= 32",message="metadata.name: is the pattern, as spec.pattern is absent, and must have at most 32 parts"
type Topic struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is what is wanted.
	// +required
	Spec TopicSpec `json:"spec,omitzero"`
	// status is what there is; the operator writes it.
	// +optional
	Status TopicStatus `json:"status,omitzero"`
}

// TopicList is a list of Topics.
//
// +kubebuilder:object:root=true
type TopicList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitzero"`
	// Items are the Topics.
	Items []Topic `json:"items"`
}

// Pattern returns the pattern that the Topic is about.
func (t *Topic) Pattern() string {
	if t.Spec.Pattern != "" {
		return string(t.Spec.Pattern)
	}
	return t.Name
}

// HubNamespace returns the namespace of the Hub that the Topic refers to.
func (t *Topic) HubNamespace() string {
	if t.Spec.HubRef.Namespace != "" {
		return t.Spec.HubRef.Namespace
	}
	return t.Namespace
}
