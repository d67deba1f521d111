package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

const (
	systemNamespace = "switchboard-system"
	patience        = 30 * time.Second
)

// beOperator makes the test's binary be the operator: loggers are global, and
// signals are for processes.
const beOperator = "SWITCHBOARD_TEST_BE_OPERATOR"

func TestMain(m *testing.M) {
	if os.Getenv(beOperator) != "" {
		main()
		return
	}
	m.Run()
}

// createAll creates the objects of the YAML files that match.
func createAll(t *testing.T, c client.Client, pattern string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		dec := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
		for {
			obj := &unstructured.Unstructured{}
			err := dec.Decode(obj)
			if errors.Is(err, io.EOF) {
				break
			}
			if err == nil {
				if obj.GetNamespace() == "" {
					obj.SetNamespace("default")
				}
				err = c.Create(t.Context(), obj)
			}
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
		}
	}
}

// TestOperatorRunsWithItsRights runs the program as its ServiceAccount, with the
// rights of config/rbac and the lease, on the samples.
func TestOperatorRunsWithItsRights(t *testing.T) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Fatal("KUBEBUILDER_ASSETS is not set: it names the folder of etcd and kube-apiserver; `make test` sets it")
	}
	env := &envtest.Environment{
		CRDDirectoryPaths:        []string{filepath.Join("..", "..", "config", "crd", "bases")},
		ErrorIfCRDPathMissing:    true,
		ControlPlaneStartTimeout: patience,
		ControlPlaneStopTimeout:  patience,
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Errorf("stop the API server: %v", err)
		}
	})
	cfg, err := env.Start()
	if err != nil {
		t.Fatalf("start the API server: %v", err)
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), switchboardv1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: systemNamespace}}); err != nil {
		t.Fatal(err)
	}
	createAll(t, c, filepath.Join("..", "..", "config", "rbac", "*.yaml"))
	createAll(t, c, filepath.Join("..", "..", "config", "samples", "*.yaml"))
	user, err := env.AddUser(envtest.User{Name: "system:serviceaccount:" + systemNamespace + ":" + name}, nil)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := user.KubeConfig()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, kubeconfig, 0o600); err != nil {
		t.Fatal(err)
	}

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	operator := exec.CommandContext(t.Context(), self,
		"--node-image=switchboard:test", "--kubeconfig="+file, "--watch-namespaces=default",
		"--leader-elect", "--leader-election-namespace="+systemNamespace,
		"--metrics-bind-address=127.0.0.1:0", "--health-probe-bind-address=127.0.0.1:0",
	)
	operator.Env = append(os.Environ(), beOperator+"=1")
	operator.Stdout, operator.Stderr = t.Output(), t.Output()
	if err := operator.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- operator.Wait() }()

	for _, hub := range []string{"agents", "minimal"} {
		sts := &appsv1.StatefulSet{}
		err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
			select {
			case err := <-done:
				return false, fmt.Errorf("the operator ended: %w", err)
			default:
			}
			return c.Get(ctx, client.ObjectKey{Namespace: "default", Name: hub + "-node"}, sts) == nil, nil
		})
		if err != nil {
			t.Fatalf("no StatefulSet for the sample %s: %v", hub, err)
		}
		if got := sts.Spec.Template.Spec.Containers[0].Image; got != "switchboard:test" {
			t.Errorf("nodes of %s run %s, want the image of the flag", hub, got)
		}
	}

	topic := &switchboardv1alpha1.Topic{}
	err = wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, client.ObjectKey{Namespace: "default", Name: "payments"}, topic)
		return meta.IsStatusConditionTrue(topic.Status.Conditions, switchboardv1alpha1.ConditionAccepted), err
	})
	if err != nil {
		t.Errorf("the sample Topic is not accepted: %v, status %+v", err, topic.Status)
	}

	if err := operator.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("the operator ended: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the operator does not end")
	}
	lease := &coordinationv1.Lease{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: systemNamespace, Name: name}, lease); err != nil {
		t.Fatal(err)
	}
	if holder := lease.Spec.HolderIdentity; holder != nil && *holder != "" {
		t.Errorf("the lease is still held by %s: the next operator has to wait", *holder)
	}
}
