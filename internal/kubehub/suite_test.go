package kubehub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers"
	"github.com/switchboardhub/switchboard/internal/kubectlhub"
	"github.com/switchboardhub/switchboard/internal/kubehub"
)

const (
	// patience is for what a loaded machine takes long for; nothing waits for it to
	// pass when all is well.
	patience = 60 * time.Second
	machine  = "machine-0"
)

// cluster is a real API server with the real operator, and a kubelet of ours to which
// it forwards connections. Tests play the StatefulSet controller. It is started by the
// first test that needs it.
type cluster struct {
	client.Client
	kubelet    kubelet
	nodes      fakeAddresses
	kubeconfig string // of the person on call, who has the documented rights

	env      *envtest.Environment
	machines *httptest.Server
	stop     context.CancelFunc
	done     chan error
}

var (
	theCluster  *cluster
	errCluster  error
	clusterOnce sync.Once
)

func TestMain(m *testing.M) {
	code := m.Run()
	if theCluster != nil {
		if err := theCluster.shutDown(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if code == 0 {
		// What client-go keeps for the life of a process.
		if err := goleak.Find(
			goleak.IgnoreAnyFunction("k8s.io/klog/v2.(*flushDaemon).run.func1"),
			goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
			goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
			goleak.IgnoreAnyFunction("golang.org/x/net/http2.(*ClientConn).readLoop"),
			goleak.IgnoreAnyFunction("net/http.(*http2ClientConn).readLoop"),
		); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// useCluster returns the one cluster of this package's tests.
func useCluster(t *testing.T) *cluster {
	t.Helper()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Fatal("KUBEBUILDER_ASSETS is not set: it names the folder of etcd and kube-apiserver; `make test` sets it")
	}
	clusterOnce.Do(func() { theCluster, errCluster = startCluster() })
	if errCluster != nil {
		t.Fatalf("start the API server: %v", errCluster)
	}
	return theCluster
}

func startCluster() (_ *cluster, err error) {
	kubehub.SilenceLogs()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), switchboardv1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	c := &cluster{
		stop: stop,
		done: make(chan error, 1),
		env: &envtest.Environment{
			Scheme:                   scheme,
			CRDDirectoryPaths:        []string{filepath.Join("..", "..", "config", "crd", "bases")},
			ErrorIfCRDPathMissing:    true,
			ControlPlaneStartTimeout: patience,
			ControlPlaneStopTimeout:  patience,
		},
	}
	defer func() {
		if err != nil {
			stop()
			_ = c.env.Stop() // what has started, if only in part
		}
	}()
	cfg, err := c.env.Start()
	if err != nil {
		return nil, err
	}
	if c.Client, err = client.New(cfg, client.Options{Scheme: scheme}); err != nil {
		return nil, err
	}
	if err := errors.Join(c.startMachine(ctx), c.grantOnCall(ctx)); err != nil {
		return nil, err
	}
	cfg.QPS = -1
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme:  scheme,
		Metrics: metricsserver.Options{BindAddress: "0"},
		Cache:   controllers.CacheOptions(nil),
		Client:  controllers.ClientOptions(),
	})
	if err != nil {
		return nil, err
	}
	r := &controllers.HubReconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Recorder: mgr.GetEventRecorder("switchboard-operator"),
		Nodes: &c.nodes, NodeImage: "switchboard:test",
	}
	if err := r.SetupWithManager(ctx, mgr, controller.Options{}); err != nil {
		return nil, err
	}
	go func() { c.done <- mgr.Start(ctx) }()
	return c, nil
}

// startMachine makes the API server ask our kubelet for the pods of a machine.
func (c *cluster) startMachine(ctx context.Context) error {
	c.machines = httptest.NewTLSServer(c.kubelet.handler())
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: machine}}
	if err := c.Create(ctx, node); err != nil {
		return err
	}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(c.machines.Listener.Addr().(*net.TCPAddr).Port)
	return c.Status().Update(ctx, node)
}

// grantOnCall makes a user with the rights that the reference page lists.
func (c *cluster) grantOnCall(ctx context.Context) error {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", "kubectl-hub.md"))
	if err != nil {
		return err
	}
	_, text, found := strings.Cut(string(page), "```yaml\n")
	text, _, closed := strings.Cut(text, "```")
	role := &rbacv1.ClusterRole{}
	if err := yaml.UnmarshalStrict([]byte(text), role); err != nil || !found || !closed {
		return fmt.Errorf("the page shows no ClusterRole: %w", err)
	}
	c.kubeconfig, err = c.bind(ctx, role)
	return err
}

// bind makes a user who has a role, named as it is, and returns the user's kubeconfig
// file.
func (c *cluster) bind(ctx context.Context, role *rbacv1.ClusterRole) (string, error) {
	name := role.Name
	if err := c.Create(ctx, role); err != nil {
		return "", err
	}
	err := c.Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
	})
	if err != nil {
		return "", err
	}
	user, err := c.env.AddUser(envtest.User{Name: name}, nil)
	if err != nil {
		return "", err
	}
	data, err := user.KubeConfig()
	if err != nil {
		return "", err
	}
	f, err := os.CreateTemp("", "kubeconfig-")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	return f.Name(), errors.Join(err, f.Close())
}

// grantOnlyHubs returns the kubeconfig file of somebody who may read Hubs and no more.
func (h *hubInTest) grantOnlyHubs(t *testing.T) string {
	t.Helper()
	file, err := h.bind(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "hubs-only-" + h.namespace},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{"switchboard.dev"}, Resources: []string{"hubs"}, Verbs: []string{"get", "list"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(file) })
	return file
}

func (c *cluster) shutDown() error {
	c.stop()
	if err := <-c.done; err != nil {
		return fmt.Errorf("the manager ended: %w", err)
	}
	err := c.env.Stop()
	c.machines.CloseClientConnections()
	c.machines.Close()
	return errors.Join(err, os.Remove(c.kubeconfig))
}

// eventually waits until check returns nil.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still not so after %v: %v", patience, err)
		}
		<-tick.C
	}
}

// run runs the plugin as the person on call and returns its exit status and what it
// printed.
func (c *cluster) run(ctx context.Context, namespace string, args ...string) (status int, out, errOut string) {
	var stdout, stderr bytes.Buffer
	args = append(args, "--kubeconfig", c.kubeconfig, "-n", namespace)
	status = kubectlhub.Run(ctx, "v1-test", args, strings.NewReader(""), &stdout, &stderr)
	return status, stdout.String(), stderr.String()
}

// fakeAddresses lets the operator ask nodes by their pods' addresses, which only
// exist in the API server.
type fakeAddresses struct {
	mu     sync.Mutex // guards the fields below
	urls   map[string]string
	lastIP int
}

func (f *fakeAddresses) add(url string) (ip string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.urls == nil {
		f.urls = make(map[string]string)
	}
	f.lastIP++
	ip = fmt.Sprintf("10.9.%d.%d", f.lastIP/200, 1+f.lastIP%200)
	f.urls[ip] = url
	return ip
}

// Status implements controllers.NodeStatus.
func (f *fakeAddresses) Status(ctx context.Context, address string) (report controllers.NodeReport, err error) {
	f.mu.Lock()
	url := f.urls[address]
	f.mu.Unlock()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/v1/status", http.NoBody)
	if err != nil {
		return report, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return report, err
	}
	defer resp.Body.Close()
	return report, json.NewDecoder(resp.Body).Decode(&report)
}
