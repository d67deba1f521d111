package manyhubs_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

const (
	systemNamespace = "switchboard-system"
	account         = "system:serviceaccount:" + systemNamespace + ":switchboard-operator"
	startPatience   = time.Minute
	// The kernel counts a process's time in hundredths of a second.
	tick = 10 * time.Millisecond
)

// auditPolicy makes the API server write down what the operator asks of it, but for
// the lease, which it renews whatever there is to do, and the events about that.
const auditPolicy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: None
  namespaces: [` + systemNamespace + `]
- level: Metadata
  users: ["` + account + `"]
- level: None
`

// cluster is an API server, without controllers and kubelets, and what starts the
// operator against it with the operator's rights.
type cluster struct {
	client.Client
	auditLog   string
	kubeconfig string
	operator   string // the program
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Fatal("KUBEBUILDER_ASSETS is not set: it names the folder of etcd and kube-apiserver; `make test` sets it")
	}
	dir := t.TempDir()
	c := &cluster{
		auditLog:   filepath.Join(dir, "audit.log"),
		kubeconfig: filepath.Join(dir, "kubeconfig"),
		operator:   filepath.Join(dir, "operator"),
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", c.operator, "../../cmd/operator").CombinedOutput(); err != nil {
		t.Fatalf("build the operator: %v\n%s", err, out)
	}
	policy := filepath.Join(dir, "policy.yaml")
	write(t, policy, []byte(auditPolicy))

	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), switchboardv1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	env := &envtest.Environment{
		Scheme:                   scheme,
		CRDDirectoryPaths:        []string{filepath.Join("..", "..", "config", "crd", "bases")},
		ErrorIfCRDPathMissing:    true,
		ControlPlaneStartTimeout: startPatience,
		ControlPlaneStopTimeout:  startPatience,
	}
	env.ControlPlane.GetAPIServer().Configure().
		Set("service-cluster-ip-range", "10.0.0.0/16"). // two Services a Hub
		Set("audit-policy-file", policy).
		Set("audit-log-path", c.auditLog)
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Errorf("stop the API server: %v", err)
		}
	})
	cfg, err := env.Start()
	if err != nil {
		t.Fatalf("start the API server: %v", err)
	}
	cfg.QPS = -1
	if c.Client, err = client.New(cfg, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: systemNamespace}}); err != nil {
		t.Fatal(err)
	}
	admin, err := env.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	kubectl, err := admin.Kubectl()
	if err != nil {
		t.Fatal(err)
	}
	if _, stderr, err := kubectl.Run("apply", "-k", filepath.Join("..", "..", "config", "rbac")); err != nil {
		message, _ := bufio.NewReader(stderr).ReadString(0)
		t.Fatalf("give the operator its rights: %v\n%s", err, message)
	}
	user, err := env.AddUser(envtest.User{Name: account}, nil)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := user.KubeConfig()
	if err != nil {
		t.Fatal(err)
	}
	write(t, c.kubeconfig, kubeconfig)
	return c
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// process is a running operator.
type process struct {
	cmd *exec.Cmd
}

// run starts the operator as the chart does.
func (c *cluster) run(t *testing.T) *process {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), c.operator,
		"--node-image=switchboard:test", "--kubeconfig="+c.kubeconfig, "--log-level=warn",
		"--leader-elect", "--leader-election-namespace="+systemNamespace,
		"--metrics-bind-address=127.0.0.1:0", "--health-probe-bind-address=127.0.0.1:0",
	)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_, _ = cmd.Process.Kill(), cmd.Wait()
		}
	})
	return p
}

// end stops the operator, which gives up its lease for the next one.
func (p *process) end(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Fatalf("the operator ended: %v", err)
	}
}

// cpu is the processor time that the operator has used. Only Linux tells.
func (p *process) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, afterName, _ := strings.Cut(string(stat), ") ")
	var ticks int64
	for _, field := range strings.Fields(afterName)[11:13] { // utime, stime
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// resident is how many MiB the operator has in memory now, and had at most.
func (p *process) resident() (now, peak int, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &now)
		_, _ = fmt.Sscanf(line, "VmHWM: %d kB", &peak)
	}
	return now >> 10, peak >> 10, nil
}

// requests returns what the operator has asked of the API server so far, as the
// server's audit log has it: reads counted, each write with its verb and path.
func (c *cluster) requests(t *testing.T) (reads int, writes []string) {
	t.Helper()
	file, err := os.Open(c.auditLog)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for lines := json.NewDecoder(file); lines.More(); {
		var event struct {
			Verb       string `json:"verb"`
			RequestURI string `json:"requestURI"`
		}
		if err := lines.Decode(&event); err != nil {
			t.Fatalf("read the audit log: %v", err)
		}
		switch event.Verb {
		case "get", "list", "watch":
			reads++
		default:
			writes = append(writes, event.Verb+" "+event.RequestURI)
		}
	}
	return reads, writes
}
