package manifests

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	appsv1ac "k8s.io/client-go/applyconfigurations/apps/v1"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

// Annotations of a StatefulSet by which the next operator knows what this one did.
const (
	// AnnotationTemplate is the hash of the pod template as it was applied.
	AnnotationTemplate = "switchboard.dev/template"
	// AnnotationInputs is the hash of what of the Hub the template was made from.
	AnnotationInputs = "switchboard.dev/template-inputs"
)

// stamp says in a StatefulSet's annotations what its pod template is and what it was
// made from.
func stamp(set *appsv1ac.StatefulSetApplyConfiguration, hub *switchboardv1alpha1.Hub) *appsv1ac.StatefulSetApplyConfiguration {
	return set.WithAnnotations(map[string]string{
		AnnotationTemplate: hash(set.Spec.Template),
		AnnotationInputs:   hash(podInputsOf(hub)),
	})
}

// KeepTemplate leaves the pod template of a StatefulSet as an earlier operator made
// it, and reports whether that is another one than desired has: so long as nothing
// of the Hub has changed that goes into it, a new operator restarts no node. owned is
// what the operator applied, as it is now: a template that somebody else has changed
// is not kept.
func KeepTemplate(desired, owned *appsv1ac.StatefulSetApplyConfiguration) bool {
	if owned.Spec == nil || owned.Spec.Template == nil {
		return false
	}
	made, has := desired.Annotations, owned.Annotations
	if has[AnnotationInputs] != made[AnnotationInputs] || has[AnnotationTemplate] == made[AnnotationTemplate] || has[AnnotationTemplate] != hash(owned.Spec.Template) {
		return false
	}
	if reviewsTokens(owned.Spec.Template) != reviewsTokens(desired.Spec.Template) {
		return false
	}
	desired.Spec.Template = owned.Spec.Template
	desired.WithAnnotations(map[string]string{AnnotationTemplate: has[AnnotationTemplate]})
	return true
}

// KeepRevision is KeepTemplate for a StatefulSet that is made again around its pods. In
// place of the one that was deleted there is the newest revision that Kubernetes keeps of
// it: the pod template with all that anybody has set or the API server filled in, and the
// annotations that the StatefulSet had when it came to have the template.
func KeepRevision(desired *appsv1ac.StatefulSetApplyConfiguration, newest *appsv1.ControllerRevision) (bool, error) {
	made, has := desired.Annotations, newest.Annotations
	if has[AnnotationInputs] != made[AnnotationInputs] || has[AnnotationTemplate] == made[AnnotationTemplate] {
		return false, nil
	}
	var kept appsv1ac.StatefulSetApplyConfiguration
	if err := json.Unmarshal(newest.Data.Raw, &kept); err != nil {
		return false, fmt.Errorf("decode ControllerRevision %s: %w", newest.Name, err)
	}
	if kept.Spec == nil || kept.Spec.Template == nil || reviewsTokens(kept.Spec.Template) != reviewsTokens(desired.Spec.Template) {
		return false, nil
	}
	desired.Spec.Template = kept.Spec.Template
	desired.WithAnnotations(map[string]string{AnnotationTemplate: hash(kept.Spec.Template)})
	return true, nil
}

// podInputs is what of a Hub goes into its pod template. What is not set is not
// written, so that a later version with more fields makes the same of the same Hub.
// That helps for fields that are new with the version. What an earlier one had in the
// template and forgot here (see reviewsTokens) can't come in any more: Hubs that have it
// set would be restarted by the update.
type podInputs struct {
	Image            string                             `json:"image,omitempty"`
	ImagePullPolicy  corev1.PullPolicy                  `json:"imagePullPolicy,omitempty"`
	ImagePullSecrets []corev1.LocalObjectReference      `json:"imagePullSecrets,omitempty"`
	Resources        *switchboardv1alpha1.ResourcesSpec `json:"resources,omitempty"`
	Pod              *switchboardv1alpha1.PodSpec       `json:"pod,omitempty"`
	DrainTimeout     time.Duration                      `json:"drainTimeout,omitempty"`
	OnDisk           bool                               `json:"onDisk,omitempty"`
	RestartedAt      string                             `json:"restartedAt,omitempty"`
	ServesTLS        bool                               `json:"servesTLS,omitempty"`
	AuthSources      []string                           `json:"authSources,omitempty"`
}

// reviewsTokens reports whether nodes of a template have the token by which they ask the
// API server about clients' tokens. No input tells, so templates are compared themselves.
func reviewsTokens(template *corev1ac.PodTemplateSpecApplyConfiguration) bool {
	if template.Spec == nil {
		return false
	}
	for _, v := range template.Spec.Volumes {
		if v.Name == nil || *v.Name != authVolume || v.Projected == nil {
			continue
		}
		return slices.ContainsFunc(v.Projected.Sources, func(s corev1ac.VolumeProjectionApplyConfiguration) bool { return s.ServiceAccountToken != nil })
	}
	return false
}

func podInputsOf(hub *switchboardv1alpha1.Hub) *podInputs {
	s := &hub.Spec
	var sources []string
	for _, a := range AuthSources(hub) {
		sources = append(sources, a.Kind()+" "+a.Name+" "+a.Key+" "+a.file)
	}
	return &podInputs{
		AuthSources: sources,
		Image:       s.Image, ImagePullPolicy: s.ImagePullPolicy, ImagePullSecrets: s.ImagePullSecrets, Resources: s.Resources,
		Pod: s.Pod, DrainTimeout: s.Drain.Timeout.Duration, OnDisk: keepsOnDisk(hub),
		RestartedAt: hub.Annotations[AnnotationRestartedAt], ServesTLS: ServesTLS(hub),
	}
}

// hash names a version of something, by what the API server would see of it.
func hash(of any) string {
	seen, err := runtime.DefaultUnstructuredConverter.ToUnstructured(of)
	if err != nil {
		panic("a type of this package that is no object: " + err.Error())
	}
	text, err := json.Marshal(seen)
	if err != nil {
		panic("an object that is no JSON: " + err.Error())
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}
