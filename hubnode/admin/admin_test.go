package admin

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/switchboardhub/switchboard/hubnode/hub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// someNode is a node that is ready or not.
type someNode struct{ ready atomic.Bool }

func (n *someNode) Ready() bool    { return n.ready.Load() }
func (n *someNode) Counts() Counts { return Counts{MeshLinks: 2} }

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
	s := New(Config{Node: node, Hub: h, Log: slog.New(slog.DiscardHandler)}, ln)
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
		resp, err := http.Get("http://" + ln.Addr().String() + path)
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
	expect("/", http.StatusOK, "/metrics")
	expect("/nothing", http.StatusNotFound, "")
}
