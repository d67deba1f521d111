package controllers_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/controllers"
	"github.com/switchboardhub/switchboard/controllers/pki"
	"github.com/switchboardhub/switchboard/hubnode/config"
	hubcluster "github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// port returns the port of host:port.
func port(t *testing.T, address string) int {
	t.Helper()
	_, digits, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(digits)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// keeping returns how many artifacts each topic of a hub keeps, nil while not all
// nodes say so.
func keeping(t *testing.T, node *hubcluster.Node) map[string]int {
	t.Helper()
	resp, err := http.Get(node.HTTP() + "/v1/topics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list struct {
		Topics []struct {
			Topic     string `json:"topic"`
			Artifacts int    `json:"artifacts"`
			History   bool   `json:"history"`
		} `json:"topics"`
		Incomplete bool `json:"incomplete"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	if list.Incomplete {
		return nil
	}
	found := make(map[string]int)
	for _, topic := range list.Topics {
		if topic.History {
			found[topic.Topic] = topic.Artifacts
		}
	}
	return found
}

func waitForKept(t *testing.T, node *hubcluster.Node, want map[string]int) {
	t.Helper()
	eventually(t, func() error {
		if diff := cmp.Diff(want, keeping(t, node)); diff != "" {
			return fmt.Errorf("kept (-want +got):\n%s", diff)
		}
		return nil
	})
}

// TestPurgeOnARealHub purges through one of three nodes, which lead the topics'
// shards by turns.
func TestPurgeOnARealHub(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	hub := hubcluster.Start(t, 3, func(c *config.Config) { c.History.MaxArtifacts = 100 })
	c, err := client.Connect(t.Context(), hub.Node(0).Client())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	want := make(map[string]int)
	publish := func(topic string) {
		if _, err := c.Publish(t.Context(), topic, &wire.Artifact{Payload: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		want[topic]++
	}
	for i := range 20 {
		publish(fmt.Sprintf("orders.%d", i))
		publish(fmt.Sprintf("orders.%d", i))
		publish(fmt.Sprintf("bills.%d", i))
	}
	publish("orders")

	node := hub.Node(1)
	purger := controllers.HubClient{HTTP: controllers.HTTPNodes{Port: port(t, node.HTTP()[len("http://"):])}, Port: port(t, node.Client())}
	_, err = purger.PurgeTopics(t.Context(), controllers.PurgedHub{Identity: "another", Addresses: []string{"127.0.0.1"}}, "orders.>")
	if err == nil || !strings.Contains(err.Error(), "belongs to hub") {
		t.Errorf("purge on a node of another hub: %v, want it refused", err)
	}
	this := controllers.PurgedHub{Identity: c.Server().Hub, Addresses: []string{"127.0.0.1"}}
	waitForKept(t, node, want)

	// A loaded machine may change leaders: then the purge is tried again, as the
	// operator does.
	var done controllers.Purged
	tries := 0
	purge := func() {
		eventually(t, func() error {
			tries++
			more, err := purger.PurgeTopics(t.Context(), this, "orders.*")
			done.Topics, done.Artifacts = done.Topics+more.Topics, done.Artifacts+more.Artifacts
			return err
		})
	}
	purge()
	// What a try did whose answer was lost is not counted.
	if tries == 1 && done != (controllers.Purged{Topics: 20, Artifacts: 40}) {
		t.Errorf("purged %+v, want 20 topics and 40 artifacts", done)
	}
	for topic := range want {
		if strings.HasPrefix(topic, "orders.") {
			want[topic] = 0
		}
	}
	waitForKept(t, node, want)
	before := done
	if purge(); done != before {
		t.Errorf("a second purge went from %+v to %+v, want nothing to do", before, done)
	}

	// Without a leader nobody knows what a shard keeps.
	leaderless := func() bool {
		_, err := purger.PurgeTopics(t.Context(), this, "bills.*")
		return err != nil && strings.Contains(err.Error(), "no leader")
	}
	hub.Kill(0)
	hub.Kill(2)
	hub.WaitFor("a purge that is refused for want of a leader", leaderless)
}

// A hub whose clients have to encrypt is asked over TLS for its topics, too.
func TestPurgeOverTLS(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	authority, err := pki.NewAuthority("agents", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	creds, err := authority.Issue(pki.Names{DNS: []string{"agents.default.svc"}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := written(t, creds)
	hub := hubcluster.Start(t, 1, func(c *config.Config) {
		c.History.MaxArtifacts = 100
		c.TLS.Clients, c.TLS.Directory = config.TLSRequired, dir
	})
	node := hub.Node(0)
	trust := func(name string) *tls.Config {
		pool := x509.NewCertPool()
		pool.AddCert(authority.Certificate)
		return &tls.Config{RootCAs: pool, ServerName: name, MinVersion: tls.VersionTLS13}
	}
	c, err := client.Connect(t.Context(), node.Client(), client.WithTLS(trust("agents.default.svc")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := c.Publish(t.Context(), "orders", &wire.Artifact{Payload: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	purger := controllers.HubClient{HTTP: controllers.HTTPNodes{Port: port(t, node.HTTP()[len("http://"):])}, Port: port(t, node.Client())}
	this := controllers.PurgedHub{Identity: c.Server().Hub, Addresses: []string{"127.0.0.1"}, TLS: trust("another.default.svc")}
	if _, err := purger.PurgeTopics(t.Context(), this, ">"); err == nil || !strings.Contains(err.Error(), "certificate is valid for") {
		t.Errorf("purge by a certificate of another name: %v, want it refused", err)
	}
	this.TLS = trust("agents.default.svc")

	plain := purger
	plain.HTTP.Port = port(t, hubcluster.Start(t, 1, func(*config.Config) {}).Node(0).HTTP()[len("http://"):])
	if _, err := plain.PurgeTopics(t.Context(), this, ">"); err == nil || !strings.Contains(err.Error(), "kubectl hub restart") {
		t.Errorf("purge where the list would cross the network in the clear: %v, want it refused, and what to do", err)
	}
	eventually(t, func() error {
		done, err := purger.PurgeTopics(t.Context(), this, ">")
		if err == nil && done.Topics != 1 {
			err = fmt.Errorf("purged %+v", done)
		}
		return err
	})
}

// written returns a folder with credentials as nodes read them.
func written(t *testing.T, creds *pki.Credentials) string {
	t.Helper()
	data, err := creds.Data()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range data {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// fromAfar serves a node's HTTP port as to those who are not on the node's machine: lists
// are for who may view.
func fromAfar(t *testing.T, node *hubcluster.Node) string {
	t.Helper()
	there, err := url.Parse(node.HTTP())
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(there)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if err := node.MayView(r.Context(), r.RemoteAddr, token, "$hub."+strings.TrimPrefix(r.URL.Path, "/v1/")); err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	return front.URL
}

// nodesOf makes what the nodes of a hub know each other by.
func nodesOf(t *testing.T, hub string, authority *pki.Authority) *pki.Credentials {
	t.Helper()
	creds, err := authority.Issue(pki.Names{URIs: []*url.URL{config.ClusterID(hub)}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return creds
}

// A hub that asks who its clients are lets the operator purge that has its nodes'
// credentials, and nobody else.
func TestPurgeProvesWhoItIs(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	var authorities [2]*pki.Authority
	for i := range authorities {
		var err error
		if authorities[i], err = pki.NewAuthority("agents", time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	identity := "test/" + t.Name()
	creds := nodesOf(t, identity, authorities[0])
	dir := written(t, creds)
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	tokens := filepath.Join(dir, "tokens")
	if err := os.WriteFile(tokens, append([]byte("alice:"), hash...), 0o600); err != nil {
		t.Fatal(err)
	}
	hub := hubcluster.Start(t, 3, func(c *config.Config) {
		c.History.MaxArtifacts = 100
		c.TLS.Cluster, c.TLS.ClusterDirectory = config.TLSRequired, dir
		c.Authentication.Static = &config.Static{File: tokens}
		c.Authorization.Rules = []config.Rule{{Name: "all", ConnectAs: []string{"*"}, Publish: []string{">"}}}
	})
	c, err := client.Connect(t.Context(), hub.Node(0).Client(), client.WithToken("alice:secret"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	want := make(map[string]int)
	for i := range 20 {
		for _, topic := range []string{fmt.Sprintf("orders.%d", i), fmt.Sprintf("bills.%d", i)} {
			if _, err := c.Publish(t.Context(), topic, &wire.Artifact{Payload: []byte("x")}); err != nil {
				t.Fatal(err)
			}
			want[topic]++
		}
	}
	node := hub.Node(1)
	purger := controllers.HubClient{HTTP: controllers.HTTPNodes{Port: port(t, fromAfar(t, node)[len("http://"):])}, Port: port(t, node.Client())}
	for name, test := range map[string]struct {
		credentials *pki.Credentials
		says        string
	}{
		"nothing":                         {nil, "a token is needed"},
		"those of another hub":            {nodesOf(t, "test/another", authorities[1]), "unknown authority"},
		"those of one with our authority": {nodesOf(t, "test/another", authorities[0]), "has to be for spiffe://switchboard.dev/hub/" + identity + "/cluster"},
		"those of another authority":      {nodesOf(t, identity, authorities[1]), "unknown authority"},
	} {
		_, err := purger.PurgeTopics(t.Context(), controllers.PurgedHub{Identity: identity, Addresses: []string{"127.0.0.1"}, Credentials: test.credentials}, "orders.>")
		if err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "kubectl hub restart") {
			t.Errorf("a purge with %s: %v, want an error with %q and what to do", name, err, test.says)
		}
	}
	waitForKept(t, node, want)

	eventually(t, func() error {
		var purging sync.WaitGroup // of two Topics at the same time
		var errs [2]error
		for i, pattern := range []string{"orders.>", "bills.*"} {
			purging.Go(func() {
				_, errs[i] = purger.PurgeTopics(t.Context(), controllers.PurgedHub{Identity: identity, Addresses: []string{"127.0.0.1"}, Credentials: creds}, pattern)
			})
		}
		purging.Wait()
		return errors.Join(errs[:]...)
	})
	for topic := range want {
		want[topic] = 0
	}
	waitForKept(t, node, want)
}
