package manyhubs_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

const (
	namespace = "default"
	// atOnce is how many Hubs are set up at the same time.
	atOnce = 8
	// settlePatience is for one Hub.
	settlePatience = 5 * time.Minute
	shards         = 16
)

// nodes stands in for all hub nodes. Each has an address of its own on loopback,
// where it says of itself what it was told to.
type nodes struct {
	server *http.Server

	mu      sync.Mutex // guards the fields below
	answers map[string][]byte
	asked   map[string]int
	last    int // the address given last
}

func startNodes(t *testing.T) *nodes {
	t.Helper()
	n := &nodes{
		answers: map[string][]byte{},
		asked:   map[string]int{},
		last:    (os.Getpid() % 256) << 8, // others may test on this machine
	}
	n.server = &http.Server{Handler: http.HandlerFunc(n.answer), ReadHeaderTimeout: startPatience}
	t.Cleanup(func() { _ = n.server.Close() })
	return n
}

func (n *nodes) answer(w http.ResponseWriter, req *http.Request) {
	local, _ := req.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	address := local.IP.String()
	n.mu.Lock()
	n.asked[address]++
	answer := n.answers[address]
	n.mu.Unlock()
	_, _ = w.Write(answer)
}

// listen starts a node, and returns its address.
func (n *nodes) listen(ctx context.Context) (string, error) {
	for {
		n.mu.Lock()
		n.last++
		last := n.last
		n.mu.Unlock()
		address := fmt.Sprintf("127.%d.%d.%d", 64+last>>16, last>>8&0xff, last&0xff)
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(int(manifests.PortHTTP))))
		if errors.Is(err, syscall.EADDRINUSE) && last>>16 < 64 {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("listen as a node: %w", err)
		}
		go func() { _ = n.server.Serve(listener) }() // until the server is closed
		return address, nil
	}
}

func (n *nodes) set(address string, report controllers.NodeReport) error {
	answer, err := json.Marshal(report)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers[address] = answer
	return nil
}

// forget starts the count of leastAsked again.
func (n *nodes) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.asked)
}

// leastAsked is how often the node was asked that was asked least.
func (n *nodes) leastAsked() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	least := math.MaxInt
	for address := range n.answers {
		least = min(least, n.asked[address])
	}
	return least
}

// settleHubs makes count Hubs, and what the StatefulSet controller and kubelets would
// make of them, until the operator has nothing more to do.
func settleHubs(t *testing.T, c *cluster, n *nodes, count int) {
	t.Helper()
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(atOnce)
	for i := range count {
		g.Go(func() error {
			name := fmt.Sprintf("hub-%d", i)
			if err := settleHub(ctx, c, n, name); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func settleHub(ctx context.Context, c *cluster, n *nodes, name string) error {
	hub := &switchboardv1alpha1.Hub{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	if err := c.Create(ctx, hub); err != nil {
		return err
	}
	workload := &appsv1.StatefulSet{}
	err := poll(ctx, func(ctx context.Context) error {
		return c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: manifests.NodeName(hub)}, workload)
	})
	if err != nil {
		return fmt.Errorf("no StatefulSet: %w", err)
	}
	settings := &corev1.ConfigMap{}
	if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: manifests.ConfigMapName(hub)}, settings); err != nil {
		return err
	}
	hash := sha256.Sum256([]byte(settings.Data[manifests.ConfigKey]))
	report := controllers.NodeReport{Hub: manifests.Identity(hub), ConfigHash: hex.EncodeToString(hash[:]), Clients: 10}
	report.History.Shards = shards

	replicas := *workload.Spec.Replicas
	for ordinal := range replicas {
		report.Node = fmt.Sprintf("%s-%d", workload.Name, ordinal)
		report.History.Led = 0
		if ordinal == 0 {
			report.History.Led, report.History.Whole = shards, shards
		}
		if err := runPod(ctx, c, n, workload, report); err != nil {
			return err
		}
	}
	before := workload.DeepCopy()
	workload.Status = appsv1.StatefulSetStatus{
		ObservedGeneration: workload.Generation,
		Replicas:           replicas, ReadyReplicas: replicas, CurrentReplicas: replicas, UpdatedReplicas: replicas, AvailableReplicas: replicas,
		CurrentRevision: revision, UpdateRevision: revision,
	}
	if err := c.Status().Patch(ctx, workload, client.MergeFrom(before)); err != nil {
		return err
	}
	return poll(ctx, func(ctx context.Context) error {
		if err := c.Get(ctx, client.ObjectKeyFromObject(hub), hub); err != nil {
			return err
		}
		conditions := hub.Status.Conditions
		if !meta.IsStatusConditionFalse(conditions, switchboardv1alpha1.ConditionProgressing) || !meta.IsStatusConditionTrue(conditions, switchboardv1alpha1.ConditionConfigApplied) || !hub.Status.SafeToRestart {
			return fmt.Errorf("not settled: %+v", hub.Status)
		}
		return nil
	})
}

// revision names every Hub's pod template: there is one of each.
const revision = "first"

// runPod makes a pod of the workload, and says of it what a kubelet would; the node
// in it answers with the report.
func runPod(ctx context.Context, c *cluster, n *nodes, workload *appsv1.StatefulSet, report controllers.NodeReport) error {
	address, err := n.listen(ctx)
	if err != nil {
		return err
	}
	if err := n.set(address, report); err != nil {
		return err
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       namespace,
			Name:            report.Node,
			Labels:          maps.Clone(workload.Spec.Template.Labels),
			Annotations:     maps.Clone(workload.Spec.Template.Annotations),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(workload, appsv1.SchemeGroupVersion.WithKind("StatefulSet"))},
		},
		Spec: *workload.Spec.Template.Spec.DeepCopy(),
	}
	pod.Labels[appsv1.StatefulSetRevisionLabel] = revision
	if err := c.Create(ctx, pod); err != nil {
		return err
	}
	before := pod.DeepCopy()
	now := metav1.Now()
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, StartTime: &now, QOSClass: corev1.PodQOSBurstable,
		HostIP: address, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: pod.Spec.Containers[0].Name, Image: pod.Spec.Containers[0].Image, ImageID: "sha256:" + report.ConfigHash, Ready: true,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		}},
	}
	for _, condition := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: condition, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	return c.Status().Patch(ctx, pod, client.MergeFrom(before))
}

// poll waits until check returns nil.
func poll(ctx context.Context, check func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, settlePatience, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		return last == nil, nil
	})
	if err != nil {
		return fmt.Errorf("still not so after %v: %w", settlePatience, last)
	}
	return nil
}
