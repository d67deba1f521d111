// Package admin is a node's HTTP API: probes, metrics and status.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/hubnode/strangers"
	"github.com/switchboardhub/switchboard/wire"
)

const (
	headerTime   = 5 * time.Second
	shutdownTime = time.Second
)

// Node is what the API needs of the node around it.
type Node interface {
	Ready() bool
	// Counts are the node's own numbers, beside its hub's.
	Counts() Counts
	// Drain makes the node move its clients away and end.
	Drain()
	// MayView returns nil, or why whoever has a token may not see the answer to a question
	// such as "$hub.topics". from is the address that it is asked from.
	MayView(ctx context.Context, from, token, question string) error
	// Rebalance moves clients beyond the node's share away and returns how many.
	Rebalance(ctx context.Context) int
}

// Counts are a node's own numbers.
type Counts struct {
	DirectoryEntries int // clients known on other nodes
	MeshLinks        int
	GossipMembers    int
	GossipHealth     int               // 0 is healthy, higher is worse
	GossipKeys       int               // that are accepted; 0 when it is plain
	GossipKeysStale  int               // 1 while their file is not in use, else 0
	MeshLinked       uint64            // links that came up
	MeshEncrypted    int               // of the links
	MeshRefused      map[string]uint64 // links whose handshake failed, by the reason
	AnnounceRefused  uint64            // announcements that their sender may not make
	FilterErrors     uint64            // artifacts on which a filter had no answer

	HandshakesCrowded uint64            // connections ended before they had shaken hands, for so many others
	TurnedAway        map[string]uint64 // connections that were one too many from their addresses, by limit: connections, rate
	Delayed           uint64            // connections that waited, as so many came within a second
	TokenReviews      map[string]uint64 // by result: accepted, refused, failed, busy
	TLSHandshakes     map[string]uint64 // by result: full, resumed, refused, timed_out, failed
	CertificateStart  map[string]int64  // by port: seconds since 1970; absent without a certificate
	CertificateExpiry map[string]int64  // likewise
	CertificateStale  map[string]int    // by port: 1 while its files can't be used, else 0

	// Of this node's replicas, by their shards' numbers.
	RaftLeader    map[string]int // 1 where it leads, else 0
	RaftTerm      map[string]uint64
	RaftApplied   map[string]uint64 // the last log entry in the store
	RaftCommitted map[string]uint64 // the last log entry known to be with a majority
	RaftPending   map[string]int    // bytes that wait to be stored
	RaftVoters    map[string]int

	RaftRecovered uint64 // groups that went on without a majority lost for good
	RaftRemade    uint64 // replicas made anew over damage
	DiskFree      uint64 // bytes, of the disk for history; 0 when it is in memory
	DiskSize      uint64 // bytes, likewise
	DiskReserve   uint64 // bytes: with fewer free, publishes are refused
	DiskFull      int    // 1 while it is nearly full, else 0
	DiskAway      int    // 1 while it can't be opened, else 0
	MemoryUsed    int64  // bytes, when last looked at
	MemoryLimit   int64  // bytes; 0: there is none
	MemoryLevel   int    // 0 ample, 1 tight, 2 critical

	// Of tenants' histories, while there is a limit.
	NamespaceHistory      map[string]int64 // bytes in the whole hub, by namespace, as far as the node knows
	NamespaceHistoryLimit int64            // bytes; 0: there is none
	OverQuota             uint64           // artifacts refused for it, on the topics that the node leads

	// Of durable subscriptions to topics that this node leads, by "topic/name".
	DurablePending  map[string]uint64
	DurableInFlight map[string]int
	DurableLost     map[string]uint64
}

// Config is what the API serves. All fields are required.
type Config struct {
	Node Node
	Hub  *hub.Hub
	Log  *slog.Logger
	// TLS returns how connections that begin now may be encrypted.
	TLS func() TLS
}

// Server is the HTTP API. Make it with [New] and run it with Run.
type Server struct {
	ln  net.Listener
	web *http.Server
}

// New returns an API on ln, which it closes when Run ends.
func New(cfg Config, ln net.Listener) *Server {
	crowd := strangers.NewCrowdOf(connectionsMost, connectionsEach)
	return &Server{ln: listener{ln, cfg.TLS, crowd}, web: &http.Server{
		Handler: occupied(routes(cfg)), ConnContext: withConnection,
		ReadHeaderTimeout: headerTime, ReadTimeout: requestTime, WriteTimeout: answerTime, IdleTimeout: idleTime,
		ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}}
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
		defer cancel()
		if s.web.Shutdown(limit) != nil {
			_ = s.web.Close() // requests that outlast the grace are cut
		}
	})
	err := s.web.Serve(s.ln)
	if stop() { // it failed on its own
		return fmt.Errorf("serve HTTP: %w", err)
	}
	<-done
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func routes(cfg Config) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !cfg.Node.Ready() {
			say(w, http.StatusServiceUnavailable, "not ready: joining or draining, see /v1/status")
			return
		}
		say(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) { ask(cfg.Hub, "status", w, r) })
	for _, question := range []string{"clients", "topics", "durables", "nodes", "namespaces"} {
		mux.HandleFunc("GET /v1/"+question, allowed(cfg, question, func(w http.ResponseWriter, r *http.Request) { ask(cfg.Hub, question, w, r) }))
	}
	mux.HandleFunc("POST /v1/drain", fromHere(func(w http.ResponseWriter, _ *http.Request) {
		cfg.Node.Drain()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusAccepted)
		_, _ = fmt.Fprintln(w, `{"state":"draining"}`) // the asker may have gone
	}))
	mux.HandleFunc("POST /v1/rebalance", fromHere(func(w http.ResponseWriter, r *http.Request) {
		within(w, 0) // it takes as long as there are clients to move, unless the asker goes
		moved := cfg.Node.Rebalance(r.Context())
		within(w, answerTime)
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, "{\"moved\":%d}\n", moved) // the asker may have gone
	}))
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{cfg.Hub.Metrics, cfg.Node.Counts}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux.Handle("GET /metrics", whole(promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: scrapesMost})))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		say(w, http.StatusOK, strings.Join([]string{"Switchboard node", "/healthz", "/readyz", "/metrics", "/v1/status", "/v1/clients", "/v1/topics", "/v1/durables", "/v1/nodes", "/v1/namespaces", "POST /v1/drain", "POST /v1/rebalance"}, "\n"))
	})
	return sameOrigin(mux)
}

// allowed lets those through who may see lists: programs on the node's own machine, or in
// its pod, and whoever has a token that a rule lets view. Where clients have to encrypt, so
// have these: what they are told, and their token, is nobody else's.
func allowed(cfg Config, question string, handle http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !isHere(r) || !underLocalName(r) {
			if cfg.TLS().Required && !isEncrypted(r) {
				say(w, http.StatusForbidden, "ask over https: tls.clients is Required, so lists are not told, nor tokens taken, on plain connections")
				return
			}
			token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if err := cfg.Node.MayView(r.Context(), r.RemoteAddr, token, "$hub."+question); err != nil {
				status := http.StatusUnauthorized
				if denied := new(wire.PermissionError); errors.As(err, &denied) {
					status = http.StatusForbidden
				}
				w.Header().Set("WWW-Authenticate", "Bearer")
				say(w, status, wire.FaultOf(err, wire.CodeUnauthenticated).Detail)
				return
			}
			// Where everybody may see them, that is everybody who reaches the port by themselves.
			if isHere(r) && !underAddress(r) && cfg.Node.MayView(r.Context(), r.RemoteAddr, "", "$hub."+question) == nil {
				sayName(w)
				return
			}
		}
		handle(w, r)
	}
}

// isHere reports whether a program on the node's own machine, or in its pod, asks.
func isHere(r *http.Request) bool { return isLoopback(r.RemoteAddr) }

// isLoopback reports whether a connection is from 127.0.0.1 or ::1, as one that a program or the
// kubelet opens in the pod. The rest of 127.0.0.0/8 is not: Istio's sidecar forwards from 127.0.0.6
// what comes from anywhere.
func isLoopback(remote string) bool {
	at, err := netip.ParseAddrPort(remote)
	from := at.Addr().Unmap()
	return err == nil && (from == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || from == netip.IPv6Loopback())
}

// fromHere lets only programs on the node's own machine, or in its pod, through.
func fromHere(handle http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !isHere(r) {
			say(w, http.StatusForbidden, "ask from the node itself, over its loopback interface: kubectl port-forward does, or kubectl exec")
			return
		}
		if !underLocalName(r) {
			sayName(w)
			return
		}
		handle(w, r)
	}
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, text) // the asker may have gone
}

// ask answers with what the hub says, as JSON.
func ask(h *hub.Hub, question string, w http.ResponseWriter, r *http.Request) {
	within(w, listTime)
	answer, err := h.Ask(r.Context(), question)
	within(w, sized(len(answer)))
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprintf(w, "{\"error\":%q}\n", wire.FaultOf(err, wire.CodeUnavailable).Detail) // the asker may have gone
		return
	}
	_, _ = w.Write(append(answer, '\n')) // the asker may have gone
}
