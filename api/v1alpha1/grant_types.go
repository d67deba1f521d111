package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// GrantSpec is what an application's team allows clients of a Hub.
type GrantSpec struct {
	// hubRef is the Hub whose clients these rules are for. It can't be changed.
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="can't be changed: make a new Grant"
	// +required
	HubRef GrantHubReference `json:"hubRef"`

	// rules that allow something, as in a Hub's spec.authorization.rules. The hub takes
	// them only where all of them are inside of what its spec.authorization.delegations
	// leave to the Grant's namespace.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=name
	// +required
	Rules []Rule `json:"rules"`
}

// GrantHubReference names a Hub.
type GrantHubReference struct {
	// name of the Hub.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=45
	// +required
	Name string `json:"name"`

	// namespace of the Hub; absent: the Grant's own.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +optional
	Namespace string `json:"namespace,omitempty"`
}

// GrantStatus is what the operator sees of a Grant.
type GrantStatus struct {
	// observedGeneration is the generation of the spec that this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions: Accepted and Applied; Reconciling and Stalled only while they have
	// something to say.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Grant allows clients of a Hub something, and is owned by whose topics and clients
// these are, in their own namespace.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=all
// +kubebuilder:printcolumn:name=Hub,type=string,JSONPath=`.spec.hubRef.name`,description="The Hub whose clients these rules are for"
// +kubebuilder:printcolumn:name=Accepted,type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`,description="Whether the Hub takes the Grant"
// +kubebuilder:printcolumn:name=Applied,type=string,JSONPath=`.status.conditions[?(@.type=="Applied")].status`,description="Whether all nodes of the Hub go by these rules"
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type Grant struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec is what is wanted.
	// +required
	Spec GrantSpec `json:"spec,omitzero"`
	// status is what there is; the operator writes it.
	// +optional
	Status GrantStatus `json:"status,omitzero"`
}

// GrantList is a list of Grants.
//
// +kubebuilder:object:root=true
type GrantList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitzero"`
	// Items are the Grants.
	Items []Grant `json:"items"`
}

// HubNamespace returns the namespace of the Hub that the Grant refers to.
func (g *Grant) HubNamespace() string {
	if g.Spec.HubRef.Namespace != "" {
		return g.Spec.HubRef.Namespace
	}
	return g.Namespace
}
