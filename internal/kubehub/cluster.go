package kubehub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
)

// Options say which cluster is meant, as kubectl's flags of these names do.
type Options struct {
	Kubeconfig string // empty: KUBECONFIG, ~/.kube/config, or the pod's service account
	Context    string // empty: the current one
	Namespace  string // empty: the context's
	UserAgent  string
}

// Cluster is a namespace of a cluster. Its methods may be called at the same time.
type Cluster struct {
	// Namespace is where Hubs are looked for.
	Namespace string

	config *rest.Config
	client client.Client
	core   corev1client.CoreV1Interface
}

// SilenceLogs ends the logs of the Kubernetes libraries, which are the process's: what
// they say is in the errors, too. Call it before anything else.
func SilenceLogs() {
	log.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
}

// Connect returns the cluster that o names. It asks nobody yet.
func Connect(o Options) (*Cluster, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.Kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: o.Context}
	overrides.Context.Namespace = o.Namespace
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	config, err := loader.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, errors.New("no cluster is configured: name a file with --kubeconfig or KUBECONFIG")
	} else if err != nil {
		return nil, fmt.Errorf("find the cluster: %w", err)
	}
	namespace, _, err := loader.Namespace()
	if err != nil {
		return nil, fmt.Errorf("find the namespace: %w", err)
	}
	config.UserAgent = o.UserAgent
	config.QPS = -1 // a person waits; the API server knows how much is fair
	config.WarningHandlerWithContext = rest.NoWarnings{}

	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), switchboardv1alpha1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("register the API types: %w", err)
	}
	c := &Cluster{Namespace: namespace, config: config}
	if c.client, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	if c.core, err = corev1client.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	return c, nil
}

// Hub returns the Hub of that name, or without a name the only one there is.
func (c *Cluster) Hub(ctx context.Context, name string) (*switchboardv1alpha1.Hub, error) {
	if name != "" {
		hub := &switchboardv1alpha1.Hub{}
		err := c.client.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: name}, hub)
		if apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("no Hub %q in namespace %q; see kubectl get hubs --all-namespaces", name, c.Namespace)
		}
		return hub, explain(err)
	}
	var hubs switchboardv1alpha1.HubList
	if err := c.client.List(ctx, &hubs, client.InNamespace(c.Namespace)); err != nil {
		return nil, explain(err)
	}
	switch len(hubs.Items) {
	case 0:
		return nil, fmt.Errorf("no Hub in namespace %q; name another one with -n, see kubectl get hubs --all-namespaces", c.Namespace)
	case 1:
		return &hubs.Items[0], nil
	}
	var names []string
	for i := range hubs.Items {
		names = append(names, hubs.Items[i].Name)
	}
	return nil, fmt.Errorf("namespace %q has %d Hubs, say which: %s", c.Namespace, len(names), strings.Join(names, ", "))
}

// explain says what a person can do about an answer of the API server.
func explain(err error) error {
	if meta.IsNoMatchError(err) {
		return fmt.Errorf("this cluster knows no Hubs: install the operator, or name another cluster with --context: %w", err)
	}
	return err
}

// nodes returns the Hub's pods by ordinal, also those that are ending.
func (c *Cluster) nodes(ctx context.Context, hub *switchboardv1alpha1.Hub) ([]corev1.Pod, error) {
	var pods corev1.PodList
	if err := c.client.List(ctx, &pods, client.InNamespace(hub.Namespace), client.MatchingLabels(manifests.Selector(hub))); err != nil {
		return nil, fmt.Errorf("list the nodes' pods: %w", err)
	}
	slices.SortFunc(pods.Items, func(a, b corev1.Pod) int {
		return cmp.Or(cmp.Compare(ordinal(a.Name), ordinal(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	return pods.Items, nil
}

// ordinal is the number at the end of a pod's name.
func ordinal(pod string) int {
	n, err := strconv.Atoi(pod[strings.LastIndexByte(pod, '-')+1:])
	if err != nil {
		return -1
	}
	return n
}

// Node returns the node of the Hub that a person calls so: by its pod's name or by
// its ordinal.
func (c *Cluster) Node(ctx context.Context, hub *switchboardv1alpha1.Hub, called string) (*corev1.Pod, error) {
	pods, err := c.nodes(ctx, hub)
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range pods {
		name := pods[i].Name
		if name == called || name == manifests.NodeName(hub)+"-"+called {
			return &pods[i], nil
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("Hub %s has no nodes now", hub.Name)
	}
	return nil, fmt.Errorf("Hub %s has no node %q: name one by its ordinal or pod, of %s", hub.Name, called, strings.Join(names, ", "))
}

// nodePod is how pods of nodes are called.
var nodePod = regexp.MustCompile(`^(.+)-node-\d+$`)

// Find returns what a person means by the arguments [HUB] [NODE], and the node's name
// as given. A single one is the node when it is an ordinal, or a pod's name and no
// Hub's; the Hub is then the pod's, or the only one.
func (c *Cluster) Find(ctx context.Context, args []string) (hub *switchboardv1alpha1.Hub, node string, err error) {
	name := ""
	switch len(args) {
	case 0:
	case 1:
		name = args[0]
		if _, err := strconv.Atoi(name); err == nil {
			name, node = "", name
		} else if m := nodePod.FindStringSubmatch(name); m != nil {
			if hub, err := c.Hub(ctx, name); err == nil {
				return hub, "", nil
			}
			name, node = m[1], name
		}
	default:
		name, node = args[0], args[1]
	}
	hub, err = c.Hub(ctx, name)
	return hub, node, err
}

func podReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && pod.DeletionTimestamp.IsZero()
		}
	}
	return false
}
