package admin

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// someNode is a node that is ready or not, and asks for tokens or is open to all.
type someNode struct {
	ready, drains, open atomic.Bool
	asked               atomic.Value  // where MayView was last asked from
	rebalance           time.Duration // what it takes
}

func (n *someNode) Ready() bool    { return n.ready.Load() }
func (n *someNode) Counts() Counts { return Counts{MeshLinks: 2} }
func (n *someNode) Drain()         { n.drains.Store(true) }

func (n *someNode) Rebalance(ctx context.Context) int {
	select {
	case <-time.After(n.rebalance):
		return 7
	case <-ctx.Done():
		return 0
	}
}

func (n *someNode) MayView(_ context.Context, from, token, question string) error {
	n.asked.Store(from)
	switch {
	case n.open.Load(), token == "viewer", token == "viewer of "+question:
		return nil
	case token == "nobody":
		return &wire.PermissionError{Identity: "nobody", Action: wire.ActionView, Target: question}
	}
	return &wire.Error{Code: wire.CodeUnauthenticated, Detail: "a token is needed"}
}

func TestListsAreForThoseWhoMayView(t *testing.T) {
	h, err := hub.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	node := new(someNode)
	api := routes(Config{Node: node, Hub: h, Log: slog.New(slog.DiscardHandler), TLS: plainly})
	for name, test := range map[string]struct {
		path, from, host, header string
		want                     int
		says                     string
	}{
		"from the pod itself":            {"/v1/clients", "127.0.0.1:1", "127.0.0.1:7480", "", http.StatusOK, "clients"},
		"with a token that may":          {"/v1/clients", "10.0.0.9:1", "hub:7480", "Bearer viewer", http.StatusOK, "clients"},
		"with one for this question":     {"/v1/topics", "10.0.0.9:1", "hub:7480", "Bearer viewer of $hub.topics", http.StatusOK, "topics"},
		"of durable subscriptions":       {"/v1/durables", "10.0.0.9:1", "hub:7480", "Bearer viewer of $hub.durables", http.StatusOK, `{"durables":[]`},
		"of these, for another question": {"/v1/durables", "10.0.0.9:1", "hub:7480", "Bearer viewer of $hub.topics", http.StatusUnauthorized, "a token is needed"},
		"of these, by the pod itself":    {"/v1/durables", "127.0.0.1:1", "localhost:7480", "", http.StatusOK, `{"durables":[]`},
		"with one for another":           {"/v1/nodes", "10.0.0.9:1", "hub:7480", "Bearer viewer of $hub.topics", http.StatusUnauthorized, "a token is needed"},
		"without a token":                {"/v1/clients", "10.0.0.9:1", "hub:7480", "", http.StatusUnauthorized, "a token is needed"},
		"with one for something else":    {"/v1/topics", "10.0.0.9:1", "hub:7480", "Bearer nobody", http.StatusForbidden, "admin: View"},
		"its own status":                 {"/healthz", "10.0.0.9:1", "hub:7480", "", http.StatusOK, "ok"},
		"under the pod's name":           {"/v1/topics", "127.0.0.1:1", "localhost:7480", "", http.StatusOK, "topics"},
		"from afar under that name":      {"/v1/topics", "10.0.0.9:1", "localhost:7480", "", http.StatusUnauthorized, "a token is needed"},
		"by a sidecar, with a token":     {"/v1/topics", "127.0.0.6:1", "hub:7480", "Bearer viewer", http.StatusOK, "topics"},
		"by a sidecar, without one":      {"/v1/topics", "127.0.0.6:1", "hub:7480", "", http.StatusUnauthorized, "a token is needed"},
		"by a sidecar, as if local":      {"/v1/topics", "127.0.0.6:1", "localhost:7480", "", http.StatusUnauthorized, "a token is needed"},
		"by a sidecar, to its own probe": {"/healthz", "127.0.0.6:1", "hub:7480", "", http.StatusOK, "ok"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, test.path, nil)
			r.RemoteAddr, r.Host = test.from, test.host
			if test.header != "" {
				r.Header.Set("Authorization", test.header)
			}
			w := httptest.NewRecorder()
			api.ServeHTTP(w, r)
			if w.Code != test.want || !strings.Contains(w.Body.String(), test.says) {
				t.Errorf("got %d %s, want %d with %q", w.Code, w.Body, test.want, test.says)
			}
			if asked := node.asked.Load(); test.header != "" && asked != test.from {
				t.Errorf("the token is checked as one from %v, want %s", asked, test.from)
			}
		})
	}
	if err := h.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAPI(t *testing.T) {
	h, err := hub.New()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	node := new(someNode)
	s := New(Config{Node: node, Hub: h, Log: slog.New(slog.DiscardHandler), TLS: plainly}, ln)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }() // ended by the test's context, waited for below
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	expect := func(path string, code int, text string) {
		t.Helper()
		method, path, ok := strings.Cut(path, " ")
		if !ok {
			method, path = http.MethodGet, method
		}
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+ln.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != code || !strings.Contains(string(body), text) {
			t.Errorf("%s = %d, %q, %v; want %d with %q", path, resp.StatusCode, body, err, code, text)
		}
	}
	expect("/healthz", http.StatusOK, "ok")
	expect("/readyz", http.StatusServiceUnavailable, "not ready")
	node.ready.Store(true)
	expect("/readyz", http.StatusOK, "ok")
	expect("/v1/clients", http.StatusOK, `{"clients":`)
	expect("/v1/status", http.StatusServiceUnavailable, `{"error":`) // this hub has no node around it
	expect("/metrics", http.StatusOK, "\nswitchboard_mesh_links 2\n")
	expect("/metrics", http.StatusOK, "\nswitchboard_clients 0\n")
	expect("/metrics", http.StatusOK, "\nprocess_cpu_seconds_total ")
	expect("/metrics", http.StatusOK, "\nprocess_resident_memory_bytes ")
	expect("/", http.StatusOK, "/metrics")
	expect("/", http.StatusOK, "/v1/durables\n")
	expect("/nothing", http.StatusNotFound, "")
	expect("POST /v1/rebalance", http.StatusOK, `{"moved":7}`)
	expect("GET /v1/drain", http.StatusMethodNotAllowed, "")
	if node.drains.Load() {
		t.Error("the node drains unasked")
	}
	expect("POST /v1/drain", http.StatusAccepted, `{"state":"draining"}`)
	if !node.drains.Load() {
		t.Error("the node does not drain")
	}
}

func TestOnlyTheNodeItselfMayMoveClients(t *testing.T) {
	node := new(someNode)
	h, err := hub.New()
	if err != nil {
		t.Fatal(err)
	}
	api := routes(Config{Node: node, Log: slog.New(slog.DiscardHandler), Hub: h, TLS: plainly})
	for _, path := range []string{"/v1/drain", "/v1/rebalance"} {
		for from, want := range map[string]int{"10.1.2.3:4": http.StatusForbidden, "[2001:db8::1]:4": http.StatusForbidden, "127.0.0.6:4": http.StatusForbidden, "[::ffff:127.0.0.6]:4": http.StatusForbidden, "what": http.StatusForbidden} {
			req := httptest.NewRequest(http.MethodPost, path, nil)
			req.RemoteAddr, req.Host = from, "localhost"
			answer := httptest.NewRecorder()
			api.ServeHTTP(answer, req)
			if answer.Code != want || node.drains.Load() {
				t.Errorf("%s from %s = %d, the node drains: %v", path, from, answer.Code, node.drains.Load())
			}
		}
	}
}
