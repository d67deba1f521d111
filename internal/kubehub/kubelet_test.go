package kubehub_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// sidecar is a container that others put into pods.
const sidecar = "istio-proxy"

// kubelet is the part of a machine that the API server asks: for the logs of pods,
// and for connections to their ports.
type kubelet struct {
	mu   sync.Mutex // guards the field below
	pods map[string]*podOnMachine
}

// podOnMachine is what a kubelet has of a pod.
type podOnMachine struct {
	ports    map[string]string // port of the pod → address
	log      []string
	previous []string
	lost     chan struct{} // when there is one, nothing answers for the pod until it is closed
	ended    chan struct{} // closed when the pod is gone
}

func (k *kubelet) set(namespace, pod string, p *podOnMachine) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pods == nil {
		k.pods = make(map[string]*podOnMachine)
	}
	if old := k.pods[namespace+"/"+pod]; old != nil {
		close(old.ended)
	}
	k.pods[namespace+"/"+pod] = p
}

func (k *kubelet) pod(r *http.Request) *podOnMachine {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pods[r.PathValue("namespace")+"/"+r.PathValue("pod")]
}

func (k *kubelet) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", k.logs)
	mux.HandleFunc("/portForward/{namespace}/{pod}", k.portForward)
	return mux
}

func (k *kubelet) logs(w http.ResponseWriter, r *http.Request) {
	p := k.pod(r)
	if p == nil || r.PathValue("container") == sidecar {
		http.Error(w, "no such pod here, or none of its logs", http.StatusNotFound)
		return
	}
	lines := p.log
	if r.URL.Query().Get("previous") == "true" {
		if lines = p.previous; lines == nil {
			http.Error(w, "previous terminated container not found", http.StatusBadRequest)
			return
		}
	}
	if tail, err := strconv.Atoi(r.URL.Query().Get("tailLines")); err == nil {
		lines = lines[max(0, len(lines)-tail):]
	}
	for _, line := range lines {
		_, _ = fmt.Fprintln(w, line)
	}
	if r.URL.Query().Get("follow") == "true" {
		w.(http.Flusher).Flush()
		select {
		case <-p.ended:
		case <-r.Context().Done():
		}
	}
}

func (k *kubelet) portForward(w http.ResponseWriter, r *http.Request) {
	p := k.pod(r)
	if p != nil && p.lost != nil {
		<-p.lost
	}
	if _, err := httpstream.Handshake(r, w, []string{portforward.PortForwardProtocolV1Name}); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	streams := make(chan httpstream.Stream, 2)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		streams <- s
		return nil
	})
	if conn == nil {
		return // it has said why
	}
	defer func() { _ = conn.Close() }()
	var problem, data httpstream.Stream
	for problem == nil || data == nil {
		select {
		case s := <-streams:
			if s.Headers().Get(corev1.StreamType) == corev1.StreamTypeError {
				problem = s
			} else {
				data = s
			}
		case <-conn.CloseChan():
			return
		case <-time.After(patience):
			return
		}
	}
	if text := forward(p, data); text != "" {
		_, _ = io.WriteString(problem, text)
	}
	_ = problem.Close()
	_ = data.Close()
	<-conn.CloseChan() // the other side ends it
}

// forward copies between a stream and a pod's port until the port's side ends.
func forward(p *podOnMachine, data httpstream.Stream) (problem string) {
	port := data.Headers().Get(corev1.PortHeader)
	if p == nil {
		return "no such pod here"
	}
	conn, err := net.Dial("tcp", p.ports[port])
	if err != nil {
		return fmt.Sprintf("connect to port %s inside the pod: %s", port, strings.ReplaceAll(err.Error(), p.ports[port], "it"))
	}
	go func() {
		_, _ = io.Copy(conn, data)
		_ = conn.Close()
	}()
	_, _ = io.Copy(data, conn)
	return ""
}
