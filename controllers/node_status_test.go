package controllers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// serveNode serves handler on loopback and returns how to ask it. No connection may
// outlive its question.
func serveNode(t *testing.T, handler http.HandlerFunc) (nodes HTTPNodes, address string) {
	t.Helper()
	var open atomic.Int64
	srv := httptest.NewUnstartedServer(handler)
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		open.Add(map[http.ConnState]int64{http.StateNew: 1, http.StateClosed: -1}[state])
	}
	srv.Start()
	t.Cleanup(srv.Close)
	t.Cleanup(func() {
		for end := time.Now().Add(time.Minute); open.Load() > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("%d connections are still open", open.Load())
				return
			}
		}
	})
	address, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nodes.Port, err = strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return nodes, address
}

func TestHTTPNodesAsk(t *testing.T) {
	const answer = `{"node":"agents-node-0","hub":"default/agents/1","version":"v1","state":"active","ready":true,
		"incarnation":"a","configHash":"abc","configError":"no","clients":12,"sessions":13,"uptimeSeconds":1.5}`
	tests := map[string]struct {
		handler http.HandlerFunc
		want    NodeReport
		err     string
	}{
		"a node": {
			handler: func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodGet || r.URL.Path != "/v1/status" {
					http.NotFound(w, r)
				}
				_, _ = fmt.Fprint(w, answer)
			},
			want: NodeReport{Node: "agents-node-0", Hub: "default/agents/1", ConfigHash: "abc", ConfigError: "no", Clients: 12},
		},
		"a node that can't": {
			handler: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusServiceUnavailable) },
			err:     "503",
		},
		"something else": {
			handler: func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "<html>") },
			err:     "read a node's answer",
		},
		"an endless answer": {
			handler: func(w http.ResponseWriter, r *http.Request) {
				_, _ = fmt.Fprint(w, `{"node":"`)
				for r.Context().Err() == nil {
					if _, err := fmt.Fprint(w, strings.Repeat("x", 1<<10)); err != nil {
						return
					}
				}
			},
			err: "read a node's answer",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			nodes, address := serveNode(t, tt.handler)
			got, err := nodes.Status(t.Context(), address)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHTTPNodesGiveUp(t *testing.T) {
	nodes, address := serveNode(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := nodes.Status(ctx, address); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}

// scripted answers from a function.
type scripted func(address string) (NodeReport, error)

func (f scripted) Status(_ context.Context, address string) (NodeReport, error) { return f(address) }

func TestOnlyReadyNodesOfThisHubCount(t *testing.T) {
	r := &HubReconciler{Nodes: scripted(func(address string) (NodeReport, error) {
		switch address {
		case "ours":
			return NodeReport{Hub: "me", Clients: 1}, nil
		case "theirs":
			return NodeReport{Hub: "them", Clients: 100}, nil
		}
		return NodeReport{}, errors.New("must not be asked")
	})}
	var nodes []observedNode
	for _, address := range []string{"ours", "theirs", "unready", ""} {
		node := observedNode{ready: address != "unready"}
		node.pod.Status = corev1.PodStatus{PodIP: address}
		nodes = append(nodes, node)
	}
	r.askNodes(t.Context(), "me", nodes, testNow)
	if nodes[0].err != nil || nodes[0].report.Clients != 1 {
		t.Errorf("our node: %+v, want its report", nodes[0])
	}
	if nodes[1].err == nil {
		t.Error("a node of another hub at an old address counts")
	}
	for _, n := range nodes[2:] {
		if n.err != nil || n.report != (NodeReport{}) {
			t.Errorf("node at %q was asked: %+v", n.pod.Status.PodIP, n)
		}
	}
}

func TestNodeThatHasNotBeenReadyForLongIsAskedWhy(t *testing.T) {
	r := &HubReconciler{Nodes: scripted(func(address string) (NodeReport, error) {
		switch address {
		case "late", "ready":
			return NodeReport{Hub: "me", Clients: 1, Disk: &DiskReport{Away: "no room"}}, nil
		case "theirs":
			return NodeReport{Hub: "them", Disk: &DiskReport{Away: "theirs"}}, nil
		case "silent":
			return NodeReport{}, errors.New("no answer")
		}
		t.Errorf("%s is asked", address)
		return NodeReport{}, nil
	})}
	notReady := func(since time.Duration) []corev1.PodCondition {
		return []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.NewTime(testNow.Add(-since))}}
	}
	nodes := []observedNode{{ready: true}, {}, {}, {}, {}}
	nodes[0].pod.Status = corev1.PodStatus{PodIP: "ready"}
	for i, address := range []string{"late", "theirs", "silent"} {
		nodes[i+1].pod.Status = corev1.PodStatus{PodIP: address, Conditions: notReady(2 * time.Minute)}
	}
	nodes[4].pod.Status = corev1.PodStatus{PodIP: "starting", Conditions: notReady(time.Second)}
	r.askNodes(t.Context(), "me", nodes, testNow)
	for i, want := range []string{"no room", "no room", "", "", ""} {
		n := nodes[i]
		if n.away != want {
			t.Errorf("node at %q is without its disk for %q, want %q", n.pod.Status.PodIP, n.away, want)
		}
		if !n.ready && (n.err != nil || n.report != (NodeReport{})) {
			t.Errorf("node at %q, which is not ready, counts: %+v", n.pod.Status.PodIP, n)
		}
	}
}
