package secrets_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/internal/hubctl"
	"github.com/switchboardhub/switchboard/internal/throwaway"
	"github.com/switchboardhub/switchboard/test/ports"
	"github.com/switchboardhub/switchboard/test/secrets"
	"github.com/switchboardhub/switchboard/wire"
)

const (
	patience = 30 * time.Second
	hubName  = "test/secrets"
	audience = "agents.default.switchboard.dev"
)

// said is everything that a hub and its clients say, by who says it.
type said struct {
	mu    sync.Mutex // guards texts
	texts map[string]*bytes.Buffer
}

func (s *said) add(who, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.texts == nil {
		s.texts = make(map[string]*bytes.Buffer)
	}
	if s.texts[who] == nil {
		s.texts[who] = new(bytes.Buffer)
	}
	s.texts[who].WriteString(text)
}

func (s *said) has(who, text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.texts[who] != nil && bytes.Contains(s.texts[who].Bytes(), []byte(text))
}

// whos returns who has said something.
func (s *said) whos() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.texts))
}

// of returns what somebody has said.
func (s *said) of(who string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.texts[who] == nil {
		return ""
	}
	return s.texts[who].String()
}

// writer is somebody who says something.
type writer struct {
	*said
	who string
}

func (w writer) Write(b []byte) (int, error) {
	w.add(w.who, string(b))
	return len(b), nil
}

// hubInTest is a hub of two nodes that has secrets of every kind.
type hubInTest struct {
	t   *testing.T
	set secrets.Set
	said
	dir string

	issuer, people, strangers *throwaway.Issuer
	clientsCA, linksCA        *throwaway.CA
	alice                     string // a static token
	configs                   []config.Config
	clients                   []*client.Client
	addresses                 atomic.Uint32 // of elsewhere, so far
}

func (h *hubInTest) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// secret makes one up.
func (h *hubInTest) secret(name string) string {
	h.t.Helper()
	s := rand.Text()
	h.set.AddText(h.t, name, s)
	return s
}

// token notes that a token is a secret, and returns it.
func (h *hubInTest) token(name string) func(token string, err error) string {
	h.t.Helper()
	return func(token string, err error) string {
		h.t.Helper()
		h.must(err)
		h.set.AddText(h.t, name, token)
		return token
	}
}

func (h *hubInTest) path(name string) string { return filepath.Join(h.dir, name) }

// write replaces a file in one step.
func (h *hubInTest) write(name, text string) string {
	h.t.Helper()
	path := h.path(name)
	h.must(os.MkdirAll(filepath.Dir(path), 0o700))
	h.must(os.WriteFile(path+".new", []byte(text), 0o600))
	h.must(os.Rename(path+".new", path))
	return path
}

// certificate issues one for the nodes, and notes the key.
func (h *hubInTest) certificate(name, dir string, ca *throwaway.CA, names ...string) {
	h.t.Helper()
	cert, key, err := ca.Issue(time.Now().Add(time.Hour), names...)
	h.must(err)
	h.set.AddKey(h.t, name, key)
	h.write(dir+"/ca.crt", string(ca.PEM()))
	h.write(dir+"/tls.key", string(key))
	h.write(dir+"/tls.crt", string(cert))
}

// gossipKey makes a key up, as its file has it.
func (h *hubInTest) gossipKey(name string) string {
	h.t.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	h.set.Add(h.t, name, key)
	text := base64.StdEncoding.EncodeToString(key)
	h.set.AddText(h.t, name, text)
	return text
}

// static returns a line of the list of static tokens.
func (h *hubInTest) static(name, secret string) string {
	h.t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(secret), bcrypt.MinCost)
	h.must(err)
	h.set.Add(h.t, "the hash of "+name+"'s secret", hash)
	return name + ":" + string(hash) + ":people\n"
}

func newHub(t *testing.T) *hubInTest {
	t.Helper()
	h := &hubInTest{t: t, dir: t.TempDir()}
	for issuer, name := range map[**throwaway.Issuer]string{&h.issuer: "https://kubernetes.default.svc", &h.people: "https://people.example", &h.strangers: "https://strangers.example"} {
		made, err := throwaway.NewIssuer(name)
		h.must(err)
		*issuer = made
	}
	for ca := range map[**throwaway.CA]bool{&h.clientsCA: true, &h.linksCA: true} {
		made, err := throwaway.New()
		h.must(err)
		*ca = made
	}
	for name, issuer := range map[string]*throwaway.Issuer{"cluster.json": h.issuer, "people.json": h.people} {
		keys, err := issuer.Keys()
		h.must(err)
		h.write("auth/"+name, string(keys))
	}
	secret := h.secret("alice's secret")
	h.alice = "alice:" + secret
	h.write("auth/tokens", h.static("alice", secret))
	h.write("auth/clients.crt", string(h.clientsCA.PEM()))
	h.certificate("the key of the client port", "tls", h.clientsCA, "localhost", "127.0.0.1")
	h.certificate("the key of the links", "links", h.linksCA, config.ClusterID(hubName).String())
	h.write("gossip/key", h.gossipKey("the gossip key of before"))

	gossip := []string{ports.Free(t), ports.Free(t)}
	for i := range gossip {
		cfg := config.Default()
		cfg.Hub, cfg.Node, cfg.Replicas, cfg.Advertise, cfg.Peers = hubName, fmt.Sprintf("node-%d", i), len(gossip), "127.0.0.1", gossip
		_, port, err := net.SplitHostPort(ports.Free(t))
		h.must(err)
		cfg.Listen = config.Listen{Client: ports.Free(t), Cluster: ports.Free(t), Gossip: gossip[i], HTTP: ":" + port} // also for who is not on this machine
		cfg.GossipKeyFile = h.path("gossip/key")
		cfg.TLS = config.TLS{Clients: config.TLSOptional, Directory: h.path("tls"), Cluster: config.TLSRequired, ClusterDirectory: h.path("links")}
		cfg.Authentication = config.Authentication{
			ServiceAccount: &config.TokenIssuer{Issuer: h.issuer.Name, Audiences: []string{audience}, KeysFile: h.path("auth/cluster.json")},
			OIDC: []config.TokenIssuer{
				{Issuer: h.people.Name, Audiences: []string{audience}, KeysFile: h.path("auth/people.json")},
				{Issuer: "https://127.0.0.1:1/nowhere", Audiences: []string{audience}}, // its keys can't be fetched
			},
			MutualTLS: &config.MutualTLS{CAFile: h.path("auth/clients.crt")},
			Static:    &config.Static{File: h.path("auth/tokens")},
		}
		cfg.Authorization.Rules = []config.Rule{
			{Name: "all", ConnectAs: []string{"*"}, SendTo: []string{"*"}, Publish: []string{"live.>", "kept.>", "strict.>", "dead"}, Subscribe: []string{">"}, History: []string{">"}},
			{Name: "admins", When: `identity.method != "OIDC"`, Admin: config.AdminManage},
		}
		cfg.History.MaxArtifacts = 0
		some := 1000
		cfg.Topics = []config.Topic{
			{Pattern: "kept.>", History: &config.TopicHistory{MaxArtifacts: &some}},
			{Pattern: "dead", History: &config.TopicHistory{MaxArtifacts: &some}},
			{Pattern: "strict.>", Filter: "artifact.size < 5"},
		}
		cfg.Storage.Dir, cfg.Storage.Shards = filepath.Join(t.TempDir(), "history"), 2
		cfg.Limits.MaxArtifactSize = 64 << 10
		cfg.Drain.Timeout = config.Duration(time.Second)
		cfg.Log = config.Log{Level: "debug", Format: []string{"json", "text"}[i]}
		h.configs = append(h.configs, cfg)
	}
	return h
}

// configure writes the nodes' config, changed.
func (h *hubInTest) configure(change func(*config.Config)) {
	h.t.Helper()
	for _, cfg := range h.configs {
		change(&cfg)
		text, err := cfg.Marshal()
		h.must(err)
		h.write(cfg.Node+"/hubnode.yaml", string(text))
	}
}

// run runs the nodes, as the program does, and returns what stops them.
func (h *hubInTest) run() (stop func()) {
	h.t.Helper()
	h.configure(func(*config.Config) {})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, cfg := range h.configs {
		o := hubnode.Options{ConfigFile: h.path(cfg.Node + "/hubnode.yaml"), Version: "test", LogOutput: writer{&h.said, cfg.Node}}
		running.Go(func() {
			if err := hubnode.RunFile(ctx, o); err != nil {
				h.t.Errorf("%s: %v", o.ConfigFile, err)
			}
		})
	}
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		http.DefaultClient.CloseIdleConnections()
	})
	h.t.Cleanup(stop)
	for i := range h.configs {
		h.waitFor("readiness", func() bool {
			code, _ := h.get(i, "/readyz")
			return code == http.StatusOK
		})
		h.waitFor("a link", func() bool { return h.has(h.configs[i].Node, "node linked") })
	}
	return stop
}

func (h *hubInTest) waitFor(what string, holds func() bool) {
	h.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			h.t.Fatalf("no %s within %s", what, patience)
		}
	}
}

// waitForLine waits until all nodes have logged something.
func (h *hubInTest) waitForLine(text string) {
	h.t.Helper()
	for _, cfg := range h.configs {
		h.waitFor(fmt.Sprintf("line with %q in the log of %s", text, cfg.Node), func() bool { return h.has(cfg.Node, text) })
	}
}

// get asks a node over HTTP, from loopback, and notes the answer.
func (h *hubInTest) get(node int, path string) (code int, body string) {
	h.t.Helper()
	return h.http("127.0.0.1", node, "GET", path, "")
}

func (h *hubInTest) http(host string, node int, method, path, bearer string) (code int, body string) {
	h.t.Helper()
	_, port, err := net.SplitHostPort(h.configs[node].Listen.HTTP)
	h.must(err)
	req, err := http.NewRequestWithContext(h.t.Context(), method, "http://"+net.JoinHostPort(host, port)+path, nil)
	h.must(err)
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	h.must(err)
	h.add("HTTP", fmt.Sprintf("%s %s: %s %v\n%s\n", method, path, resp.Status, resp.Header, text))
	return resp.StatusCode, string(text)
}

func (h *hubInTest) context() context.Context {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	h.t.Cleanup(cancel)
	return ctx
}

// heard notes what a client hears, which has to be an error.
func (h *hubInTest) heard(what string, err error) {
	h.t.Helper()
	if err == nil {
		h.t.Errorf("%s is no error", what)
		return
	}
	h.add("errors", fmt.Sprintf("%s: %v\n%#v\n", what, err, err))
	for _, unwrapped := range []any{new(wire.Error), new(wire.PermissionError)} {
		if coded, ok := unwrapped.(*wire.Error); ok && errors.As(err, &coded) {
			h.add("errors", fmt.Sprintf("%+v\n", *coded))
		}
	}
}

// connect connects a client to a node; what it is told is noted.
func (h *hubInTest) connect(node int, id string, opts ...client.Option) *client.Client {
	h.t.Helper()
	told := func(err error) { h.add("errors", fmt.Sprintf("%s is told: %v\n", id, err)) }
	c, err := client.Connect(h.context(), h.configs[node].Listen.Client, append(opts, client.WithID(id), client.OnError(told), client.OnDisconnect(told))...)
	h.must(err)
	h.clients = append(h.clients, c)
	h.t.Cleanup(func() { _ = c.Close() })
	return c
}

// refused connects a client that has to be refused.
func (h *hubInTest) refused(what string, opts ...client.Option) {
	h.t.Helper()
	c, err := client.Connect(h.context(), h.configs[0].Listen.Client, append([]client.Option{client.WithID("w"), client.WithDialer(h.elsewhere().DialContext)}, opts...)...)
	if err == nil {
		_ = c.Close()
	}
	h.heard("connecting with "+what, err)
}

// elsewhere dials from an address that was not used before: nodes log one mistake from each, once
// a minute.
func (h *hubInTest) elsewhere() *net.Dialer {
	n := h.addresses.Add(1)
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(n>>8), byte(n))}}
}

// raw sends bytes to an address and notes what comes back until the connection ends. It may
// be called by several at a time.
func (h *hubInTest) raw(address string, b []byte) {
	h.t.Helper()
	conn, err := h.elsewhere().Dial("tcp", address)
	if err != nil {
		h.t.Error(err)
		return
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = conn.Write(b) // it may end at once
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
	answer, _ := io.ReadAll(conn) // however it ended
	h.add("raw answers", string(answer)+"\n")
}

func (h *hubInTest) hubctl(wantStatus int, args ...string) {
	h.t.Helper()
	args = append([]string{"--server", h.configs[1].Listen.Client, "--id", "console", "-o", "json"}, args...)
	w := writer{&h.said, "hubctl"}
	if status := hubctl.Run(h.context(), "test", args, strings.NewReader(""), w, w); status != wantStatus {
		h.t.Errorf("hubctl %q exits with %d, want %d", args, status, wantStatus)
	}
}

// What a hub is shown that is secret is in nothing that it says: not at the most talkative
// level of its logs either, and whatever goes wrong.
func TestAHubTellsNoSecret(t *testing.T) {
	h := newHub(t)
	stop := h.run()
	good := h.logins()
	h.refusals()
	h.reviews()
	h.garbage()
	h.traffic(good)
	h.wrongFiles()
	h.rotateGossipKey()
	h.admin(good)
	h.revoke(good)
	for _, path := range []string{"/metrics", "/v1/status", "/v1/clients", "/v1/topics", "/v1/nodes", "/v1/namespaces", "/v1/durables", "/", "/healthz", "/nothing"} {
		for node := range h.configs {
			h.get(node, path)
		}
	}
	for _, c := range h.clients {
		_ = c.Close() // some have ended
	}
	stop()

	// All of it was said, or there is nothing to be seen here.
	for who, texts := range map[string][]string{
		"node-0":      {`"level":"DEBUG"`, "client refused", `"msg":"denied"`, "config refused", "gossip keys refused", "gossip keys changed", "certificate refused", "a file for authentication can't be used", "link refused", "client is not allowed any more", "can't ask the API server", "can't be read as HTTP", "418 I'm a teapot", "node stopped"},
		"node-1":      {"level=DEBUG", "msg=denied", "config refused", "node stopped"},
		"errors":      {"expired", "audience", "not one of this hub's", "is not allowed to publish", "malformed"},
		"raw answers": {"malformed"},
		"HTTP":        {"switchboard_clients", "gossipKeys", `"clients":[`, "401 Unauthorized", "403 Forbidden"},
		"hubctl":      {`"id":"console"`, "is not allowed to publish", "no client"},
	} {
		for _, text := range texts {
			if who == "HTTP" && strings.HasPrefix(text, "40") && outward(t) == "" {
				continue // this machine has no address that is not its loopback's
			}
			if !h.has(who, text) {
				t.Errorf("%s: nothing is said of %q", who, text)
			}
		}
	}
	for _, who := range h.whos() {
		h.set.Check(t, who, []byte(h.of(who)))
	}
	// And it would be seen.
	h.set.Each(func(name string, value []byte) {
		line := fmt.Appendf(nil, `{"level":"DEBUG","msg":"client refused","error":%q}`, value)
		if !slices.ContainsFunc(h.set.Find(line), func(f secrets.Finding) bool { return f.Name == name }) {
			t.Errorf("%s would not be found", name)
		}
	})
}
