// Command metricsadapter answers the custom metrics API for pods, as
// prometheus-adapter does, but with what the pods say of themselves at that moment.
// It stands in for Prometheus and its adapter where a HorizontalPodAutoscaler is to
// follow metrics in a test.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
)

const (
	listen = ":6443"
	// metricsPort is the name of the port where pods have their metrics.
	metricsPort = "http"
	scrapeLimit = 5 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err) //nolint:gocritic // the process ends, and with it what stop would end
	}
}

func run(ctx context.Context) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	clientset, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	// The API server asks over TLS and is told not to look at the certificate.
	server := httptest.NewUnstartedServer(newHandler(clientset))
	_ = server.Listener.Close()
	server.Listener = l
	server.StartTLS()
	defer server.Close()
	<-ctx.Done()
	return nil
}

// adapter answers from the pods that the API server knows.
type adapter struct{ clientset kubernetes.Interface }

func newHandler(clientset kubernetes.Interface) http.Handler {
	a := adapter{clientset}
	group := "/apis/" + v1beta2.SchemeGroupVersion.String()
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+group, a.resources)
	mux.HandleFunc("GET "+group+"/namespaces/{namespace}/pods/{pod}/{metric}", a.podMetric)
	return mux
}

// resources is the discovery document. Which metrics there are, only the pods know.
func (a adapter) resources(w http.ResponseWriter, _ *http.Request) {
	answer(w, &metav1.APIResourceList{
		TypeMeta:     metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"},
		GroupVersion: v1beta2.SchemeGroupVersion.String(),
		APIResources: []metav1.APIResource{},
	})
}

// podMetric answers with the sum of a metric's series in each pod that is asked for.
func (a adapter) podMetric(w http.ResponseWriter, r *http.Request) {
	if pod := r.PathValue("pod"); pod != v1beta2.AllObjects {
		http.Error(w, "only pods/* is answered", http.StatusNotFound)
		return
	}
	metric := r.PathValue("metric")
	pods, err := a.clientset.CoreV1().Pods(r.PathValue("namespace")).List(r.Context(), metav1.ListOptions{LabelSelector: r.FormValue("labelSelector")})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	list := &v1beta2.MetricValueList{TypeMeta: metav1.TypeMeta{Kind: "MetricValueList", APIVersion: v1beta2.SchemeGroupVersion.String()}}
	for i := range pods.Items {
		pod := &pods.Items[i]
		value, err := scrape(r.Context(), pod, metric)
		if err != nil { // as one that Prometheus can't scrape: it has no value
			log.Printf("%s: %v", pod.Name, err)
			continue
		}
		list.Items = append(list.Items, v1beta2.MetricValue{
			DescribedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name},
			Metric:          v1beta2.MetricIdentifier{Name: metric},
			Timestamp:       metav1.Now(),
			Value:           *resource.NewMilliQuantity(int64(value*1000), resource.DecimalSI),
		})
	}
	answer(w, list)
}

func answer(w http.ResponseWriter, what any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(what); err != nil {
		log.Print(err)
	}
}

// scrape reads a pod's metrics and returns the sum of those of that name.
func scrape(ctx context.Context, pod *corev1.Pod, metric string) (float64, error) {
	port, ok := portNamed(pod, metricsPort)
	if !ok || pod.Status.PodIP == "" {
		return 0, fmt.Errorf("it has no port %q or no address", metricsPort)
	}
	ctx, cancel := context.WithTimeout(ctx, scrapeLimit)
	defer cancel()
	url := "http://" + net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(port))) + "/metrics"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(res.Body)
	if err != nil {
		return 0, err
	}
	family, ok := families[metric]
	if !ok {
		return 0, fmt.Errorf("it has no metric %s", metric)
	}
	var sum float64
	for _, m := range family.GetMetric() {
		sum += value(m)
	}
	return sum, nil
}

func value(m *dto.Metric) float64 {
	return m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetUntyped().GetValue()
}

func portNamed(pod *corev1.Pod, name string) (int32, bool) {
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == name {
				return p.ContainerPort, true
			}
		}
	}
	return 0, false
}
