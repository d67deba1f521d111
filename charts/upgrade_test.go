package charts_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

const (
	namespace = "switchboard-system"
	patience  = 30 * time.Second
)

// cluster is an API server without controllers, with a client of it.
type cluster struct {
	client.Client
	kubeconfig string
}

// startCluster starts a cluster that knows nothing of hubs.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Fatal("KUBEBUILDER_ASSETS is not set: it names the folder of etcd and kube-apiserver; `make test` sets it")
	}
	env := &envtest.Environment{ControlPlaneStartTimeout: patience, ControlPlaneStopTimeout: patience}
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
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	user, err := env.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, nil)
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
	return &cluster{Client: c, kubeconfig: file}
}

// helm runs helm in a namespace, and returns what it prints.
func (c *cluster) helm(t *testing.T, namespace string, args ...string) (string, error) {
	t.Helper()
	return tool(t, "HELM", append(args, "--kubeconfig", c.kubeconfig, "--namespace", namespace)...)
}

// mustHelm is helm where it has to succeed.
func (c *cluster) mustHelm(t *testing.T, namespace string, args ...string) string {
	t.Helper()
	out, err := c.helm(t, namespace, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// earlierChart makes a chart of what earlier ones rendered, by files of
// testdata/upgrade.
func earlierChart(t *testing.T, rendered ...string) string {
	t.Helper()
	files := map[string]string{"Chart.yaml": "apiVersion: v2\nname: switchboard\nversion: 0.0.1\n"}
	for _, name := range rendered {
		content, err := os.ReadFile(filepath.Join("testdata", "upgrade", name))
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Join("templates", name)] = string(content)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "templates"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func hub(namespace, name string) *unstructured.Unstructured { return object("Hub", namespace, name) }

// object is one of our kinds, without a spec.
func object(kind, namespace, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetAPIVersion("switchboard.dev/v1alpha1")
	o.SetKind(kind)
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}

// eventually waits until do succeeds: a definition is not served at once.
func eventually(t *testing.T, what string, do func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		last = do(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%s: %v", what, last)
	}
}

func TestUpgradeAndUninstallKeepHubs(t *testing.T) {
	c := startCluster(t)
	helm := func(args ...string) {
		t.Helper()
		c.mustHelm(t, namespace, args...)
	}
	helm("install", "switchboard", earlierChart(t, "first.yaml"), "--create-namespace")

	agents := hub(namespace, "agents")
	topics := []any{map[string]any{"pattern": "orders.>", "filter": "artifact.size <= 65536"}}
	agents.Object["spec"] = map[string]any{"replicas": int64(5), "topics": topics}
	eventually(t, "create a Hub", func(ctx context.Context) error { return c.Create(ctx, agents) })
	pause := func(ctx context.Context) error {
		return c.Patch(ctx, hub(namespace, "agents"), client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"paused":true}}`)),
			client.FieldValidation(metav1.FieldValidationStrict))
	}
	if err := pause(t.Context()); err == nil {
		t.Fatal("the first definition takes a field of today's: this would test nothing")
	}
	// kept reports whether a Hub is the one that it was, and has what it had.
	kept := func(ctx context.Context, want *unstructured.Unstructured, fields ...string) error {
		got := hub(namespace, want.GetName())
		if err := c.Get(ctx, client.ObjectKeyFromObject(got), got); err != nil {
			return err
		}
		if got.GetUID() != want.GetUID() || got.GetDeletionTimestamp() != nil {
			return fmt.Errorf("it was deleted: %v", got)
		}
		for _, field := range fields {
			before, _, _ := unstructured.NestedFieldNoCopy(want.Object, "spec", field)
			now, _, _ := unstructured.NestedFieldNoCopy(got.Object, "spec", field)
			if diff := cmp.Diff(before, now); diff != "" {
				return fmt.Errorf("spec.%s (-before +now):\n%s", field, diff)
			}
		}
		return nil
	}
	see := func(when string, want *unstructured.Unstructured, fields ...string) {
		t.Helper()
		if err := kept(t.Context(), want, fields...); err != nil {
			t.Fatalf("Hub %s %s: %v", want.GetName(), when, err)
		}
	}

	helm("upgrade", "switchboard", earlierChart(t, "first.yaml", "hubs.yaml"))
	ours, early := hub(namespace, "ours"), hub(namespace, "early")
	for _, h := range []*unstructured.Unstructured{ours, early} {
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(h), h); err != nil {
			t.Fatalf("the Hub that the chart made: %v", err)
		}
	}
	// While it is in the other release too, keep alone keeps it.
	helm("install", "early", hubChart, "--set", "spec.replicas=1,keep=true", "--take-ownership")

	helm("upgrade", "switchboard", chart)
	see("after the upgrade", agents, "replicas", "topics", "healthCheck")
	see("that the chart made", ours, "replicas")
	see("that a release had taken by then", early, "replicas")
	eventually(t, "set a new field", pause)

	if _, err := c.helm(t, namespace, "install", "ours", hubChart, "--set", "spec.replicas=5"); err == nil {
		t.Error("another release has the Hub without being told to take it")
	}
	helm("install", "ours", hubChart, "--set", "spec.replicas=5", "--take-ownership")
	see("that its own release has taken", ours, "replicas")

	helm("uninstall", "switchboard")
	deployment := &appsv1.Deployment{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "switchboard-operator"}, deployment); !apierrors.IsNotFound(err) {
		t.Errorf("the operator after it was uninstalled: %v, want not found", err)
	}
	definition := &unstructured.Unstructured{}
	definition.SetAPIVersion("apiextensions.k8s.io/v1")
	definition.SetKind("CustomResourceDefinition")
	if err := c.Get(t.Context(), client.ObjectKey{Name: "hubs.switchboard.dev"}, definition); err != nil || definition.GetDeletionTimestamp() != nil {
		t.Fatalf("the definition after uninstalling: deleted %v, error %v", definition.GetDeletionTimestamp(), err)
	}
	see("after uninstalling", agents, "replicas", "topics")
	see("after uninstalling", ours)

	helm("install", "switchboard", chart)
	see("after installing again", agents, "replicas", "topics")
	see("after installing again", ours)

	helm("uninstall", "ours")
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(ours), ours); !apierrors.IsNotFound(err) {
		t.Errorf("the Hub after its own release: %v, want not found", err)
	}
}
