// Package v1alpha1 is version v1alpha1 of the switchboard.dev API: the Hub,
// Topic and Grant resources, their defaults and validation (as markers that become the
// CRDs' schemas), and the condition types and reasons that their status uses. It holds
// no behaviour; the package controllers acts on it.
//
// +kubebuilder:object:generate=true
// +groupName=switchboard.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the API group and version of this package's types.
var GroupVersion = schema.GroupVersion{Group: "switchboard.dev", Version: "v1alpha1"}

var schemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

// AddToScheme makes a scheme know this package's types.
var AddToScheme = schemeBuilder.AddToScheme

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &Hub{}, &HubList{}, &Topic{}, &TopicList{}, &Grant{}, &GrantList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
