package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestPodsPassTheRestrictedLevel offers a pod of each template, the operator's
// as the chart renders it and the nodes' as the operator makes them, to a
// namespace in which only restricted ones may run.
func TestPodsPassTheRestrictedLevel(t *testing.T) {
	_, c := start(t)
	offer := func(t *testing.T, spec corev1.PodSpec) error {
		t.Helper()
		spec.PriorityClassName = "" // of which the cluster has only its own
		spec.Volumes = slices.Clone(spec.Volumes)
		for i := range spec.Containers { // what the StatefulSet controller adds for claims
			for _, mount := range spec.Containers[i].VolumeMounts {
				if !slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name }) {
					claim := &corev1.PersistentVolumeClaimVolumeSource{ClaimName: mount.Name}
					spec.Volumes = append(spec.Volumes, corev1.Volume{Name: mount.Name, VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: claim}})
				}
			}
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, GenerateName: "offered-"}, Spec: spec}
		return c.Create(t.Context(), pod, client.DryRunAll)
	}

	for _, pattern := range []string{
		filepath.Join("..", "..", "charts", "testdata", "*.yaml"),
		filepath.Join("..", "..", "controllers", "manifests", "testdata", "statefulset*.yaml"),
	} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no files %s: %v", pattern, err)
		}
		for _, file := range files {
			for _, spec := range podTemplates(t, file) {
				t.Run(filepath.Base(file), func(t *testing.T) {
					if err := offer(t, spec); err != nil {
						t.Error(err)
					}
					spec.SecurityContext.RunAsNonRoot, spec.Containers[0].SecurityContext.RunAsNonRoot = nil, nil
					if err := offer(t, spec); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "restricted") {
						t.Errorf("a pod that may run as root: error %v, want it forbidden: nothing is enforced", err)
					}
				})
			}
		}
	}
}

// podTemplates returns the pod templates of a file's Deployments and StatefulSets.
func podTemplates(t *testing.T, file string) []corev1.PodSpec {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var found []corev1.PodSpec
	dec := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	for {
		obj := map[string]any{}
		err := dec.Decode(&obj)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if obj["kind"] != "Deployment" && obj["kind"] != "StatefulSet" {
			continue
		}
		spec, _, err := unstructured.NestedMap(obj, "spec", "template", "spec")
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		var pod corev1.PodSpec
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(spec, &pod); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		found = append(found, pod)
	}
}
