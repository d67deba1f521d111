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
	"sync"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	"github.com/switchboardhub/switchboard/test/ports"
)

const (
	systemNamespace = "switchboard-system"
	patience        = time.Minute
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

// start starts an API server with the Hub resource and the operator's namespace.
func start(t *testing.T) (*envtest.Environment, client.Client) {
	t.Helper()
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
	auditRequests(t, env)
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
	makeNamespaces(t, c, systemNamespace)
	return env, c
}

// makeNamespaces makes namespaces in which only pods run that pass the
// restricted level.
func makeNamespaces(t *testing.T, c client.Client, names ...string) {
	t.Helper()
	for _, name := range names {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name:   name,
			Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
		}}
		if err := c.Create(t.Context(), ns); err != nil {
			t.Fatal(err)
		}
	}
}

// makeHubs makes a Hub, agents, in each namespace.
func makeHubs(t *testing.T, c client.Client, namespaces ...string) {
	t.Helper()
	for _, ns := range namespaces {
		hub := &unstructured.Unstructured{}
		hub.SetAPIVersion("switchboard.dev/v1alpha1")
		hub.SetKind("Hub")
		hub.SetNamespace(ns)
		hub.SetName("agents")
		if err := c.Create(t.Context(), hub); err != nil {
			t.Fatal(err)
		}
	}
}

// process is an operator that runs as its ServiceAccount.
type process struct {
	cmd  *exec.Cmd
	said outputLog
	done chan error
}

// outputLog keeps what a process writes, which may be read meanwhile.
type outputLog struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (l *outputLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *outputLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// rendered is the file of what the chart renders for a profile of its tests.
func rendered(profile string) string {
	return filepath.Join("..", "..", "charts", "testdata", profile+".yaml")
}

// runRelease starts the operator of a release: with the arguments and the ServiceAccount
// of its Deployment.
func runRelease(t *testing.T, env *envtest.Environment, c client.Client, deployment string) *process {
	t.Helper()
	d := &appsv1.Deployment{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: systemNamespace, Name: deployment}, d); err != nil {
		t.Fatal(err)
	}
	pod := d.Spec.Template.Spec
	return runOperatorAs(t, env, pod.ServiceAccountName, append(pod.Containers[0].Args, "--node-image=switchboard:test", "--metrics-bind-address=127.0.0.1:0", "--health-probe-bind-address=127.0.0.1:0")...)
}

// runOperator starts an operator with arguments, which win over those of this function.
func runOperator(t *testing.T, env *envtest.Environment, args ...string) *process {
	t.Helper()
	return runOperatorAs(t, env, name, args...)
}

// runOperatorAs is runOperator as another ServiceAccount.
func runOperatorAs(t *testing.T, env *envtest.Environment, account string, args ...string) *process {
	t.Helper()
	user, err := env.AddUser(envtest.User{Name: "system:serviceaccount:" + systemNamespace + ":" + account}, nil)
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
	p := &process{done: make(chan error, 1)}
	p.cmd = exec.CommandContext(t.Context(), self, append([]string{
		"--kubeconfig=" + file,
		"--leader-election-namespace=" + systemNamespace, "--health-probe-bind-address=127.0.0.1:0",
	}, args...)...)
	p.cmd.Env = append(os.Environ(), beOperator+"=1")
	out := io.MultiWriter(t.Output(), &p.said)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	return p
}

// eventually waits until check returns nil, as long as the operator runs.
func (p *process) eventually(t *testing.T, check func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		select {
		case err := <-p.done:
			return false, fmt.Errorf("the operator ended: %w", err)
		default:
		}
		last = check(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%v: %v", err, last)
	}
}

// waitForNodes waits for the StatefulSet of a Hub and returns the nodes' image.
func (p *process) waitForNodes(t *testing.T, c client.Client, namespace, hub string) string {
	t.Helper()
	sts := &appsv1.StatefulSet{}
	p.eventually(t, func(ctx context.Context) error {
		return c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: hub + "-node"}, sts)
	})
	return sts.Spec.Template.Spec.Containers[0].Image
}

func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(t); err != nil {
		t.Errorf("the operator ended: %v", err)
	}
}

// wait waits for the operator's end, and returns how it ended.
func (p *process) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.done:
		return err
	case <-time.After(patience):
		t.Fatal("the operator does not end")
		return nil
	}
}

// TestOperatorRunsWithItsRights runs the program as its ServiceAccount, with the
// rights of config/rbac and the lease, on the samples.
func TestOperatorRunsWithItsRights(t *testing.T) {
	env, c := start(t)
	createAll(t, c, filepath.Join("..", "..", "config", "rbac", "*.yaml"))
	createAll(t, c, filepath.Join("..", "..", "config", "samples", "*.yaml"))

	metrics := ports.Free(t)
	p := runOperator(t, env, "--node-image=switchboard:test", "--watch-namespaces=default", "--leader-elect", "--metrics-bind-address="+metrics)
	for _, hub := range []string{"agents", "minimal"} {
		if got := p.waitForNodes(t, c, "default", hub); got != "switchboard:test" {
			t.Errorf("nodes of %s run %s, want the image of the flag", hub, got)
		}
	}
	topic := &switchboardv1alpha1.Topic{}
	p.eventually(t, func(ctx context.Context) error {
		err := c.Get(ctx, client.ObjectKey{Namespace: "default", Name: "payments"}, topic)
		if err == nil && !meta.IsStatusConditionTrue(topic.Status.Conditions, switchboardv1alpha1.ConditionAccepted) {
			err = fmt.Errorf("the sample Topic is not accepted: %+v", topic.Status)
		}
		return err
	})
	t.Run("metrics are for who may read them", func(t *testing.T) { readMetrics(t, p, c, "https://"+metrics+"/metrics") })

	p.stop(t)
	t.Run("no right is idle", func(t *testing.T) { compareRights(t, env) })
	lease := &coordinationv1.Lease{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: systemNamespace, Name: name}, lease); err != nil {
		t.Fatal(err)
	}
	if holder := lease.Spec.HolderIdentity; holder != nil && *holder != "" {
		t.Errorf("the lease is still held by %s: the next operator has to wait", *holder)
	}
}

// TestOperatorOfSeveralNamespaces runs the program as the chart does for two
// namespaces: by its arguments, and with its Roles.
func TestOperatorOfSeveralNamespaces(t *testing.T) {
	env, c := start(t)
	makeNamespaces(t, c, "team-a", "team-b", "elsewhere")
	createAll(t, c, rendered("namespaces"))
	// First the one that nobody is to look at: it has the most time to be seen.
	makeHubs(t, c, "elsewhere", "team-a", "team-b")

	p := runRelease(t, env, c, name)
	for _, ns := range []string{"team-a", "team-b"} {
		p.waitForNodes(t, c, ns, "agents")
	}
	p.stop(t)
	err := c.Get(t.Context(), client.ObjectKey{Namespace: "elsewhere", Name: "agents-node"}, &appsv1.StatefulSet{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("the StatefulSet of a Hub that the operator was not told to look at: %v, want not found", err)
	}
}
