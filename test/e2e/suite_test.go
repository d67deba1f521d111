//go:build e2e

// Package e2e tries what a user does on a real cluster: install the chart, apply
// a Hub, let pods on different Kubernetes nodes talk, change the Hub, scale it
// and take it away again.
//
// It knows the cluster only by KUBECONFIG and the image only by IMAGE, which
// must be on the nodes already, so it runs on kind as well as on anything else.
// README.md says how.
package e2e

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
)

const (
	operatorNamespace = "switchboard-e2e-system"
	hubNamespace      = "switchboard-e2e"
	release           = "switchboard"
	hubName           = "agents"
	crdName           = "hubs.switchboard.dev"
	topicCRDName      = "topics.switchboard.dev"
	grantCRDName      = "grants.switchboard.dev"
)

// suite is what every step needs.
type suite struct {
	ctx       context.Context //nolint:containedctx // the suite's life, ended by a signal
	kubectl   string
	helm      string
	image     string
	checker   string // the image of test/check/checker
	client    client.Client
	clientset *kubernetes.Clientset
	// workers are Kubernetes nodes that take pods, at least two.
	workers []string
	// missed is what eventually last gave up on.
	missed string
}

func newSuite(t *testing.T) *suite {
	t.Helper()
	kubeconfig := os.Getenv("KUBECONFIG")
	if kubeconfig == "" {
		t.Fatal("set KUBECONFIG to the file of the cluster to try")
	}
	// A signal ends the steps and not the process, so that the cluster is tidied.
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	t.Cleanup(stop)

	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	log.SetLogger(logr.Discard()) // the client's own log tells nothing that its errors don't
	config.QPS = -1               // polling a cluster of our own
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme, switchboardv1alpha1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	s := &suite{
		ctx:     ctx,
		kubectl: environment("KUBECTL", "kubectl"),
		helm:    environment("HELM", "helm"),
		image:   environment("IMAGE", "switchboard:dev"),
		checker: environment("CHECKER_IMAGE", "switchboard-checker:dev"),
	}
	if s.client, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	if s.clientset, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	s.findWorkers(t)
	s.refuseAUsedCluster(t)
	return s
}

func (s *suite) findWorkers(t *testing.T) {
	t.Helper()
	var nodes corev1.NodeList
	if err := s.client.List(s.ctx, &nodes); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes.Items {
		free := !n.Spec.Unschedulable
		for _, taint := range n.Spec.Taints {
			free = free && taint.Effect == corev1.TaintEffectPreferNoSchedule
		}
		if free {
			s.workers = append(s.workers, n.Labels[corev1.LabelHostname])
		}
	}
	if len(s.workers) < 2 {
		t.Fatalf("the cluster has %d nodes that take pods (%v), want two or more: pods on different nodes are to talk",
			len(s.workers), s.workers)
	}
}

// refuseAUsedCluster keeps the suite, which removes at its end what it tests,
// from removing somebody's hubs.
func (s *suite) refuseAUsedCluster(t *testing.T) {
	t.Helper()
	for _, obj := range []client.Object{
		&apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: crdName}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operatorNamespace}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: hubNamespace}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: readmeSystem}},
	} {
		err := s.client.Get(s.ctx, client.ObjectKeyFromObject(obj), obj)
		switch {
		case err == nil:
			t.Fatalf("%T %s is in the cluster already: the suite would remove it at its end; remove it first if it is of an earlier run",
				obj, obj.GetName())
		case !apierrors.IsNotFound(err):
			t.Fatal(err)
		}
	}
}

// makeNamespaces makes both namespaces with the strictest Pod Security level: a
// pod that breaks its rules is refused. At the test's end kubectl does what else tidies
// up, and they go, with the Hub.
func (s *suite) makeNamespaces(t *testing.T, tidy ...[]string) {
	t.Helper()
	t.Cleanup(func() {
		s.tidy(t, append(tidy,
			// Before its namespace, and before the definition that would take it away.
			[]string{"-n", hubNamespace, "delete", "hubs", "--all", "--cascade=foreground"},
			[]string{"delete", "namespace", hubNamespace, "--ignore-not-found"},
			[]string{"delete", "namespace", operatorNamespace, "--ignore-not-found"})...)
	})
	t.Cleanup(func() { s.dump(t, operatorNamespace, hubNamespace) }) // before it is tidied away
	for _, name := range []string{operatorNamespace, hubNamespace} {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name:   name,
			Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
		}}
		if err := s.client.Create(s.ctx, ns); err != nil {
			t.Fatal(err)
		}
	}
}

// tidy runs kubectl with each of args and then removes what the chart leaves,
// so that the cluster is as it was found, whatever the steps came to. With
// E2E_KEEP set a failed run stays to be looked at.
func (s *suite) tidy(t *testing.T, args ...[]string) {
	t.Helper()
	if t.Failed() && os.Getenv("E2E_KEEP") != "" {
		t.Log("E2E_KEEP is set: everything stays in the cluster")
		return
	}
	// The test's own context has ended by now.
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	tidying := *s
	tidying.ctx = ctx
	for _, a := range append(args,
		// What is outside of namespaces, should uninstalling have failed or not come.
		[]string{"delete", "clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/instance=" + release},
		[]string{"delete", "customresourcedefinition", crdName, topicCRDName, grantCRDName, "--ignore-not-found"},
	) {
		if out, err := tidying.run(tidying.kubectl, "", a...); err != nil {
			t.Errorf("tidy up: %v\n%s", err, out)
		}
	}
}

// splitImage returns an image's name and tag, as the chart takes them.
func splitImage(image string) (repository, tag string) {
	i := strings.LastIndex(image, ":")
	if i < 0 {
		return image, "latest"
	}
	return image[:i], image[i+1:]
}

func environment(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
