package controllers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers"
)

const (
	nodeImage = "switchboard:test"
	// patience is for what a loaded machine takes long for; nothing waits for it
	// to pass when all is well.
	patience = time.Minute
	operator = "the-operator"
)

// cluster is a real API server with the operator running against it as a user
// that has the rights of config/rbac and no others. There is no controller
// manager and no kubelet: tests play these parts. It is started by the first
// test that needs it.
type cluster struct {
	client.Client
	nodes    *fakeNodes
	faults   *faults
	watches  *heldWatches
	purger   *fakePurger
	issuer   *issuerInTest
	requests *requestLog
	rights   *rightsLog
	role     *rbacv1.ClusterRole
	clock    *testClock
	log      *operatorLog
	// reconcileTime bounds reconciliations of the operators that are started; 0 means
	// as it is in operation.
	reconcileTime time.Duration

	env        *envtest.Environment
	userConfig *rest.Config // of the operator
	stop       context.CancelFunc
	done       chan error
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
			// Of a node: memberlist's Shutdown does not wait for the probe under way.
			goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"),
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
	t.Cleanup(func() { theCluster.log.tellLast(t) })
	return theCluster
}

func startCluster() (_ *cluster, err error) {
	said := &operatorLog{}
	log.SetLogger(logr.FromSlogHandler(slog.NewJSONHandler(said, &slog.HandlerOptions{Level: slog.LevelDebug})))
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return nil, err
	}
	if err := switchboardv1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	c := &cluster{
		nodes:    &fakeNodes{},
		faults:   &faults{},
		watches:  &heldWatches{},
		purger:   &fakePurger{},
		issuer:   &issuerInTest{},
		requests: &requestLog{},
		rights:   &rightsLog{used: sets.New[string]()},
		clock:    &testClock{},
		log:      said,
		env: &envtest.Environment{
			Scheme:                   scheme,
			CRDDirectoryPaths:        []string{filepath.Join("..", "config", "crd", "bases")},
			ErrorIfCRDPathMissing:    true,
			ControlPlaneStartTimeout: patience,
			ControlPlaneStopTimeout:  patience,
		},
	}
	defer func() {
		if err != nil {
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

	user, err := c.env.AddUser(envtest.User{Name: operator}, nil)
	if err != nil {
		return nil, err
	}
	if c.role, err = grant(context.Background(), c.Client); err != nil {
		return nil, err
	}
	c.userConfig = user.Config()
	c.userConfig.Wrap(c.faults.wrap)
	c.userConfig.Wrap(c.watches.wrap)
	c.userConfig.Wrap(c.requests.wrap)
	c.userConfig.Wrap(c.rights.wrap)
	c.userConfig.QPS = -1
	if c.issuer.real, err = controllers.NewAPIServerIssuer(c.userConfig); err != nil {
		return nil, err
	}
	if err := c.startOperator(); err != nil {
		return nil, err
	}
	return c, nil
}

// startOperator starts an operator, which knows nothing of one before it, and waits
// until it has read what there is: without the right to list something it would not
// begin.
func (c *cluster) startOperator() error {
	ctx, stop := context.WithCancel(context.Background())
	mgr, err := ctrl.NewManager(c.userConfig, ctrl.Options{
		Scheme:  c.env.Scheme,
		Metrics: metricsserver.Options{BindAddress: "0"},
		Cache:   controllers.CacheOptions(nil),
		Client:  controllers.ClientOptions(),
	})
	if err != nil {
		stop()
		return err
	}
	r := &controllers.HubReconciler{
		Client:    mgr.GetClient(),
		Live:      mgr.GetAPIReader(),
		Recorder:  mgr.GetEventRecorder("switchboard-operator"),
		Nodes:     c.nodes,
		Issuer:    c.issuer,
		NodeImage: nodeImage,
		Now:       c.clock.now,
	}
	// There may be a second one in this process.
	opts := controller.Options{SkipNameValidation: new(true), ReconciliationTimeout: c.reconcileTime}
	topics := &controllers.TopicReconciler{Hubs: r, Purger: c.purger}
	if err := errors.Join(r.SetupWithManager(ctx, mgr, opts), topics.SetupWithManager(mgr, opts)); err != nil {
		stop()
		return err
	}
	c.stop, c.done = stop, make(chan error, 1)
	go func() { c.done <- mgr.Start(ctx) }()
	syncCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, watched := range controllers.Watched() {
		if _, err := mgr.GetCache().GetInformer(syncCtx, watched); err != nil {
			return errors.Join(fmt.Errorf("the operator reads no %T: %w", watched, err), c.halt())
		}
	}
	return nil
}

// halt stops the operator.
func (c *cluster) halt() error {
	c.stop()
	if err := <-c.done; err != nil {
		return fmt.Errorf("the manager ended: %w", err)
	}
	return nil
}

// replaceOperator stops the operator and starts another one.
func (c *cluster) replaceOperator(t *testing.T) {
	t.Helper()
	if err := c.halt(); err != nil {
		t.Fatal(err)
	}
	if err := c.startOperator(); err != nil {
		t.Fatal(err)
	}
}

// testClock is the operator's. It goes as the real one does, but for what a test has
// put it on by.
type testClock struct {
	mu    sync.Mutex // guards ahead
	ahead time.Duration
}

func (c *testClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

// putOn puts the clock on until the end of the test.
func (c *testClock) putOn(t *testing.T, by time.Duration) {
	t.Helper()
	add := func(by time.Duration) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ahead += by
	}
	add(by)
	t.Cleanup(func() { add(-by) })
}

// grant gives the operator's user the role that is generated from the markers, which it
// returns, and that for the cluster's issuer.
func grant(ctx context.Context, c client.Client) (*rbacv1.ClusterRole, error) {
	if _, err := grantRole(ctx, c, "issuer_role.yaml"); err != nil {
		return nil, err
	}
	return grantRole(ctx, c, "role.yaml")
}

func grantRole(ctx context.Context, c client.Client, file string) (*rbacv1.ClusterRole, error) {
	data, err := os.ReadFile(filepath.Join("..", "config", "rbac", file))
	if err != nil {
		return nil, err
	}
	role := &rbacv1.ClusterRole{}
	if err := yaml.UnmarshalStrict(data, role); err != nil {
		return nil, err
	}
	if err := c.Create(ctx, role); err != nil {
		return nil, err
	}
	return role, c.Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: operator}},
	})
}

func (c *cluster) shutDown() error {
	if err := c.halt(); err != nil {
		return err
	}
	if err := c.env.Stop(); err != nil {
		return fmt.Errorf("stop the API server: %w", err)
	}
	return nil
}

// namespace makes a namespace of the test's own, in which only pods run that
// pass the restricted level.
func (c *cluster) namespace(t *testing.T) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "hub-",
		Labels:       map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}
	if err := c.Create(t.Context(), ns); err != nil {
		t.Fatalf("create a namespace: %v", err)
	}
	return ns.Name
}

// eventually waits until check returns nil.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		last = check()
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("still not so after %v: %v", patience, last)
	}
}

// fakeNodes answers for the nodes of all tests' pods, by pod address.
type fakeNodes struct {
	mu      sync.Mutex // guards the fields below
	reports map[string]controllers.NodeReport
	asked   map[string]int
	lastIP  int
}

func (f *fakeNodes) Status(_ context.Context, address string) (controllers.NodeReport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked == nil {
		f.asked = map[string]int{}
	}
	f.asked[address]++
	report, ok := f.reports[address]
	if !ok {
		return controllers.NodeReport{}, fmt.Errorf("nobody at %s", address)
	}
	return report, nil
}

func (f *fakeNodes) set(address string, report controllers.NodeReport) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reports == nil {
		f.reports = map[string]controllers.NodeReport{}
	}
	f.reports[address] = report
}

// change changes what the node at address says.
func (f *fakeNodes) change(address string, how func(*controllers.NodeReport)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	report := f.reports[address]
	how(&report)
	f.reports[address] = report
}

// asks returns how often the node at address was asked.
func (f *fakeNodes) asks(address string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[address]
}

func (f *fakeNodes) newAddress() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastIP++
	return fmt.Sprintf("10.9.%d.%d", f.lastIP/200, 1+f.lastIP%200)
}

// requestLog remembers the requests with which the operator changes something.
type requestLog struct {
	mu     sync.Mutex // guards writes
	writes []string
}

// in returns the writes to a namespace so far, events left out.
func (l *requestLog) in(namespace string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for _, w := range l.writes {
		if strings.Contains(w, "/namespaces/"+namespace+"/") && !strings.Contains(w, "/events") {
			found = append(found, w)
		}
	}
	return found
}

func (l *requestLog) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		if req.Method != http.MethodGet {
			l.mu.Lock()
			l.writes = append(l.writes, req.Method+" "+req.URL.Path)
			l.mu.Unlock()
		}
		return next.RoundTrip(req)
	})
}

// faults lets the API server fail some of the operator's writes.
type faults struct {
	mu   sync.Mutex // guards the fields below
	in   string     // the namespace; empty: none
	next []int      // statuses of the next answers; 0 is a connection that breaks
}

// begin lets the next writes to a namespace fail.
func (f *faults) begin(namespace string, statuses ...int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.in, f.next = namespace, statuses
}

// left returns how many are yet to come.
func (f *faults) left() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.next)
}

func (f *faults) take(req *http.Request) (status int, fails bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if req.Method == http.MethodGet || len(f.next) == 0 || !strings.Contains(req.URL.Path, "/namespaces/"+f.in+"/") || strings.Contains(req.URL.Path, "/events") {
		return 0, false
	}
	status, f.next = f.next[0], f.next[1:]
	return status, true
}

func (f *faults) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		status, fails := f.take(req)
		switch {
		case !fails:
			return next.RoundTrip(req)
		case status == 0:
			return nil, errors.New("the connection broke")
		}
		answer := httptest.NewRecorder()
		answer.Header().Set("Content-Type", "application/json")
		if status == http.StatusTooManyRequests {
			answer.Header().Set("Retry-After", "0")
		}
		answer.WriteHeader(status)
		reason := map[int]metav1.StatusReason{http.StatusConflict: metav1.StatusReasonConflict, http.StatusGatewayTimeout: metav1.StatusReasonTimeout}[status]
		_ = json.NewEncoder(answer).Encode(metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
			Status:   metav1.StatusFailure, Code: int32(status), Reason: reason, Message: http.StatusText(status),
		})
		return answer.Result(), nil
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
