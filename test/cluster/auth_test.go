package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/auth"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/internal/throwaway"
	"github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

const audience = "agents.default.switchboard.dev"

// identities are those who make tokens for a hub, and the files that its nodes read.
type identities struct {
	t      *testing.T
	dir    string
	issuer *throwaway.Issuer
}

func newIdentities(t *testing.T) *identities {
	t.Helper()
	issuer, err := throwaway.NewIssuer("https://kubernetes.default.svc")
	if err != nil {
		t.Fatal(err)
	}
	i := &identities{t, t.TempDir(), issuer}
	keys, err := issuer.Keys()
	if err != nil {
		t.Fatal(err)
	}
	i.write("jwks.json", string(keys))
	i.write("tokens", i.static("alice", "ops"))
	return i
}

func (i *identities) write(name, content string) string {
	i.t.Helper()
	path := filepath.Join(i.dir, name)
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		i.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		i.t.Fatal(err)
	}
	return path
}

// static returns a line of the list of static tokens; the secret is "secret".
func (i *identities) static(name, groups string) string {
	i.t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		i.t.Fatal(err)
	}
	return name + ":" + string(hash) + ":" + groups + "\n"
}

// token returns what a pod of team-a has.
func (i *identities) token(account string, holds time.Duration) string {
	i.t.Helper()
	token, err := i.issuer.ServiceAccountToken(audience, "team-a", account, time.Now().Add(holds))
	if err != nil {
		i.t.Fatal(err)
	}
	return token
}

// pod is the option of a client that is a pod of team-a.
func (i *identities) pod(account string) client.Option {
	return client.WithToken(i.token(account, time.Hour))
}

// set is for the config of the nodes.
func (i *identities) set(rules ...config.Rule) func(*config.Config) {
	return func(cfg *config.Config) {
		cfg.Authentication = config.Authentication{
			ServiceAccount: &config.TokenIssuer{Issuer: i.issuer.Name, Audiences: []string{audience}, KeysFile: filepath.Join(i.dir, "jwks.json")},
			Static:         &config.Static{File: filepath.Join(i.dir, "tokens")},
		}
		cfg.Authorization.Rules = rules
	}
}

// everything is a rule that lets everybody do everything.
var everything = config.Rule{
	Name: "everything", ConnectAs: []string{"*"}, SendTo: []string{"*"}, Publish: []string{">"}, Subscribe: []string{">"}, History: []string{">"}, Admin: config.AdminManage,
}

// configure changes the config of all nodes.
func configure(t *testing.T, c *cluster.Cluster, nodes int, change func(*config.Config)) {
	t.Helper()
	for i := range nodes {
		cfg := c.Node(i).Config()
		change(&cfg)
		if err := c.Node(i).Configure(cfg, "changed"); err != nil {
			t.Fatal(err)
		}
	}
}

// refusedWith checks what a client that connects hears.
func refusedWith(t *testing.T, address string, code wire.Code, text string, opts ...client.Option) {
	t.Helper()
	err := expect(t, address, []string{text}, opts...)
	if err != nil && codeOf(err) != code {
		t.Errorf("Connect = %v, want code %d", err, code)
	}
}

func codeOf(err error) wire.Code {
	var (
		coded  *wire.Error
		denied *wire.PermissionError
	)
	switch {
	case errors.As(err, &denied):
		return wire.CodePermission
	case errors.As(err, &coded):
		return coded.Code
	}
	return 0
}

func TestWhoMayConnect(t *testing.T) {
	i := newIdentities(t)
	certs := newCertificates(t)
	ca := newCA(t)
	clientsCA := i.write("clients.crt", string(ca.PEM()))
	c := cluster.Start(t, 1, func(cfg *config.Config) {
		certs.set(config.TLSOptional)(cfg)
		i.set(
			config.Rule{Name: "workers", When: `identity.namespace == "team-a"`, ConnectAs: []string{"worker-*"}},
			config.Rule{Name: "devices", When: `"devices" in identity.groups`, ConnectAs: []string{"{name}"}},
			config.Rule{Name: "people", When: `identity.method == "Static"`, ConnectAs: []string{"*"}},
		)(cfg)
		cfg.Authentication.MutualTLS = &config.MutualTLS{CAFile: clientsCA}
	})
	node := c.Node(0).Client()
	wrongAudience, err := i.issuer.ServiceAccountToken("https://kubernetes.default.svc", "team-a", "worker", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	refusedWith(t, node, wire.CodeUnauthenticated, "a token is needed", client.WithID("worker-1"))
	refusedWith(t, node, wire.CodeUnauthenticated, "audience", client.WithID("worker-1"), client.WithToken(wrongAudience))
	refusedWith(t, node, wire.CodeUnauthenticated, "expired", client.WithID("worker-1"), client.WithToken(i.token("worker", -time.Second)))
	refusedWith(t, node, wire.CodePermission, `"system:serviceaccount:team-a:worker" is not allowed to connect as "admin": ask for a rule with connectAs: ["admin"]`, client.WithID("admin"), i.pod("worker"))
	refusedWith(t, node, wire.CodeUnauthenticated, "not one of this hub's", client.WithToken("alice:guess"))
	connect(t, c.Node(0), "worker-1", i.pod("worker"))
	connect(t, c.Node(0), "anything", client.WithToken("alice:secret"))

	device := func(ca *throwaway.CA, name string) client.Option {
		cert, key, err := ca.IssueClient(time.Now().Add(time.Hour), name, "devices")
		if err != nil {
			t.Fatal(err)
		}
		return client.WithCertificateFiles(i.write(name+".crt", string(cert)), i.write(name+".key", string(key)))
	}
	connect(t, c.Node(0), "device-7", certs.trust(), device(ca, "device-7"))
	refusedWith(t, node, wire.CodePermission, "connect as", client.WithID("device-8"), certs.trust(), device(ca, "device-7"))
	refusedWith(t, node, wire.CodeUnauthenticated, "unknown authority", client.WithID("device-7"), certs.trust(), device(newCA(t), "device-7"))
	expect(t, node, []string{"read the token", "no such file"}, client.WithTokenFile(filepath.Join(i.dir, "none")))
}

// Every kind of client tries everything that there is.
func TestPrivileges(t *testing.T) {
	i, links := newIdentities(t), newLinkCertificates(t)
	c := cluster.Start(t, 3, func(cfg *config.Config) {
		links.set(config.TLSRequired)(cfg)
		cfg.History = config.History{MaxArtifacts: 100}
		account := func(name string) string { return fmt.Sprintf("identity.serviceAccount == %q", name) }
		all := []string{"*"}
		i.set(
			config.Rule{Name: "everybody", ConnectAs: []string{"{serviceAccount}"}},
			config.Rule{Name: "sender", When: account("sender"), SendTo: []string{"target"}},
			config.Rule{Name: "publisher", When: account("publisher"), Publish: []string{"orders.>"}},
			config.Rule{Name: "subscriber", When: account("subscriber"), Subscribe: []string{"orders.>"}},
			config.Rule{Name: "reader", When: account("reader"), Subscribe: []string{"orders.>"}, History: []string{"orders.>"}},
			config.Rule{Name: "viewer", When: account("viewer"), Admin: config.AdminView},
			config.Rule{Name: "manager", When: account("manager"), Admin: config.AdminManage},
			config.Rule{Name: "root", When: account("root"), SendTo: all, Publish: []string{">"}, Subscribe: []string{">"}, History: []string{">"}, Admin: config.AdminManage},
			config.Rule{Name: "target", When: account("target"), ConnectAs: all},
			// No rule is about the operator.
			config.Rule{Name: "operator", When: `identity.method == "Operator"`, SendTo: all, Publish: []string{">"}, Subscribe: []string{">"}, History: []string{">"}, Admin: config.AdminManage},
		)(cfg)
	})
	target := connect(t, c.Node(2), "target", i.pod("target"))
	target.Handle(func(context.Context, *wire.Artifact) (*wire.Artifact, error) { return text("yes"), nil })
	root := connect(t, c.Node(0), "root", i.pod("root"))
	if _, err := root.Publish(patient(t), "orders.new", text("first")); err != nil {
		t.Fatal(err)
	}
	var backup bytes.Buffer
	if _, err := root.Backup(patient(t), &backup, nil); err != nil {
		t.Fatal(err)
	}

	ignore := func(context.Context, *wire.Artifact) error { return nil }
	subscribe := func(pattern string, opts ...client.SubscribeOption) func(context.Context, *client.Client) error {
		return func(ctx context.Context, c *client.Client) error {
			s, err := c.Subscribe(ctx, pattern, ignore, opts...)
			if err == nil {
				err = s.Unsubscribe(ctx)
			}
			return err
		}
	}
	ask := func(question, body string) func(context.Context, *client.Client) error {
		return func(ctx context.Context, c *client.Client) error {
			_, err := c.Request(ctx, "$hub."+question, text(body))
			return err
		}
	}
	commands := []struct {
		name string
		may  string // those accounts that may
		do   func(context.Context, *client.Client) error
	}{
		{"send", "sender root", func(ctx context.Context, c *client.Client) error { return c.Send(ctx, "target", text("x")) }},
		{"send to somebody else", "root", func(ctx context.Context, c *client.Client) error { return c.Send(ctx, "root", text("x")) }},
		{"request", "sender root", func(ctx context.Context, c *client.Client) error {
			_, err := c.Request(ctx, "target", text("?"))
			return err
		}},
		{"publish", "publisher root", func(ctx context.Context, c *client.Client) error {
			_, err := c.Publish(ctx, "orders.new", text("x"))
			return err
		}},
		{"publish to everybody", "root", func(ctx context.Context, c *client.Client) error {
			_, err := c.Publish(ctx, "broadcast", text("x"))
			return err
		}},
		{"subscribe", "subscriber reader root", subscribe("orders.*")},
		{"subscribe to more", "root", subscribe(">")},
		{"subscribe in a group", "subscriber reader root", subscribe("orders.new", client.Group("g"))},
		{"subscribe to broadcast", "sender publisher subscriber reader viewer manager root", subscribe("broadcast")},
		{"subscribe from the start", "reader root", subscribe("orders.new", client.SinceAll())},
		{"a durable subscription", "reader root", subscribe("orders.new", client.Durable("d"))},
		{"history", "reader root", func(ctx context.Context, c *client.Client) error {
			for _, err := range c.History(ctx, "orders.new", client.Range{}) {
				if err != nil {
					return err
				}
			}
			return nil
		}},
		{"watch who comes and goes", "viewer manager root", subscribe(wire.TopicPresence)},
		{"list clients", "viewer manager root", ask("clients", "{}")},
		{"list topics", "viewer manager root operator", ask("topics", "{}")},
		{"list nodes", "viewer manager root", ask("nodes", "{}")},
		{"list durable subscriptions", "viewer manager root", ask("durables", "{}")},
		{"list namespaces", "viewer manager root", ask("namespaces", "{}")},
		{"who is there", "viewer manager root", ask("presence", "{}")},
		{"describe a topic", "viewer manager root", ask("topics.describe", `{"topic":"orders.new"}`)},
		{"purge a topic", "manager root operator", ask("topics.purge", `{"topic":"orders.old"}`)},
		{"purge another topic", "manager root", ask("topics.purge", `{"topic":"bills.old"}`)},
		{"restore", "manager root", func(ctx context.Context, c *client.Client) error {
			_, err := c.Restore(ctx, bytes.NewReader(backup.Bytes()), nil)
			return err
		}},
		{"delete a durable subscription", "manager root", ask("durables.delete", `{"topic":"orders.new","name":"none"}`)},
	}
	for n, account := range []string{"sender", "publisher", "subscriber", "reader", "viewer", "manager", "root", "operator"} {
		who, identity := root, "system:serviceaccount:team-a:"+account
		switch account {
		case "root":
		case "operator":
			id, token := links.operator("orders.>")
			who, identity = connect(t, c.Node(n%2), id, token), auth.OperatorName
		default:
			who = connect(t, c.Node(n%2), account, i.pod(account))
		}
		for _, command := range commands {
			t.Run(account+"/"+command.name, func(t *testing.T) {
				err := settled(t, func(ctx context.Context) error { return command.do(ctx, who) })
				denied, _ := errors.AsType[*wire.PermissionError](err)
				switch may := strings.Contains(" "+command.may+" ", " "+account+" "); {
				case may && codeOf(err) != 0 && codeOf(err) != wire.CodeNoDurable:
					t.Errorf("is refused: %v", err)
				case !may && (denied == nil || denied.Identity != identity):
					t.Errorf("= %v, want a PermissionError", err)
				}
			})
		}
	}
	if m := c.Metrics(0) + c.Metrics(1); !strings.Contains(m, `switchboard_permission_denied_total{action="publish"}`) || strings.Count(m, `switchboard_permission_denied_total{action="publish"} 0`) == 2 {
		t.Error("denials are not counted")
	}
}

// settled does something again while what refuses it passes, such as a shard that is
// getting another leader.
func settled(t *testing.T, do func(context.Context) error) error {
	t.Helper()
	ctx := patient(t)
	for {
		err := do(ctx)
		var passing interface{ Temporary() bool }
		if !errors.As(err, &passing) || !passing.Temporary() || ctx.Err() != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func text(s string) *wire.Artifact { return &wire.Artifact{Payload: []byte(s)} }

// A token that is replaced before it expires is told to the node on the connection that
// there is.
func TestTokensAreRenewedInPlace(t *testing.T) {
	i := newIdentities(t)
	c := cluster.Start(t, 1, i.set(everything))
	first := i.token("worker", 4*time.Second)
	file := i.write("token", first)
	var lost atomic.Int64
	worker := connect(t, c.Node(0), "worker", client.WithTokenFile(file), client.OnDisconnect(func(error) { lost.Add(1) }))
	i.write("token", i.token("worker", time.Hour))
	deadline := time.Now().Add(6 * time.Second) // the first token has expired by then
	got := make(inbox, 1)
	if _, err := worker.Subscribe(patient(t), "x", got.handle); err != nil {
		t.Fatal(err)
	}
	for time.Now().Before(deadline) {
		if _, err := worker.Publish(patient(t), "x", text("y")); err != nil {
			t.Fatal(err)
		}
		got.next(t)
	}
	if n := lost.Load(); n != 0 {
		t.Errorf("the connection was lost %d times", n)
	}
}

// A client whose token expires loses its connection, and nothing else once it has a new one.
func TestExpiryEndsTheConnectionAndNotTheSession(t *testing.T) {
	i := newIdentities(t)
	c := cluster.Start(t, 2, i.set(everything))
	file := i.write("token", i.token("worker", 2*time.Second))
	got := make(inbox, 1000)
	reasons := make(chan error, 100)
	connect(t, c.Node(0), "worker", client.WithTokenFile(file), client.OnDisconnect(func(err error) { reasons <- err }),
		client.WithHandler(func(ctx context.Context, a *wire.Artifact) (*wire.Artifact, error) { return nil, got.handle(ctx, a) }))
	sender := connect(t, c.Node(1), "sender", i.pod("sender"))
	err := <-reasons
	if codeOf(err) != wire.CodeUnauthenticated {
		t.Fatalf("the connection ended with %v", err)
	}
	for n := range 100 {
		if err := sender.Send(patient(t), "worker", text(fmt.Sprint(n))); err != nil {
			t.Fatal(err)
		}
	}
	i.write("token", i.token("worker", time.Hour))
	for n := range 100 {
		if a := got.next(t); string(a.Payload) != fmt.Sprint(n) {
			t.Fatalf("got %s, want %d", a.Payload, n)
		}
	}
}

func TestRulesChangeInPlace(t *testing.T) {
	i := newIdentities(t)
	c := cluster.Start(t, 2, i.set(everything))
	expelled := make(chan error, 10)
	worker := connect(t, c.Node(0), "worker", i.pod("worker"))
	guest := connect(t, c.Node(1), "guest", i.pod("guest"), client.WithMaxReconnects(0), client.OnDisconnect(func(err error) { expelled <- err }))
	kept, lost := make(inbox, 10), make(inbox, 10)
	orders, err := worker.Subscribe(patient(t), "orders.*", kept.handle)
	if err != nil {
		t.Fatal(err)
	}
	news, err := worker.Subscribe(patient(t), "news.>", lost.handle)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := worker.Publish(patient(t), "news.a", text("x")); err != nil {
		t.Fatal(err)
	}
	lost.next(t)

	configure(t, c, 2, i.set(config.Rule{Name: "workers", ConnectAs: []string{"worker"}, Publish: []string{"orders.>"}, Subscribe: []string{"orders.>"}}))
	if err := <-expelled; codeOf(err) != wire.CodePermission {
		t.Errorf("the guest's connection ended with %v", err)
	}
	<-news.Done()
	if denied, ok := errors.AsType[*wire.PermissionError](news.Err()); !ok || denied.Target != "news.>" || denied.Action != wire.ActionSubscribe {
		t.Errorf("the subscription ended with %v", news.Err())
	}
	if _, err := worker.Publish(patient(t), "news.a", text("x")); codeOf(err) != wire.CodePermission {
		t.Errorf("Publish = %v, want a PermissionError", err)
	}
	if _, err := worker.Publish(patient(t), "orders.a", text("still")); err != nil {
		t.Error(err)
	}
	if a := kept.next(t); string(a.Payload) != "still" || orders.Err() != nil {
		t.Errorf("got %s, %v", a.Payload, orders.Err())
	}
	_ = guest.Close() // it has ended
}

func TestAuthenticationIsTurnedOnAndOffInPlace(t *testing.T) {
	i := newIdentities(t)
	c := cluster.Start(t, 1, nil)
	reasons := make(chan error, 100)
	file := filepath.Join(i.dir, "later")
	worker := connect(t, c.Node(0), "worker", client.WithTokenFile(i.write("later", "")), client.OnDisconnect(func(err error) { reasons <- err }))
	configure(t, c, 1, i.set(everything))
	if err := <-reasons; codeOf(err) != wire.CodeUnauthenticated {
		t.Errorf("the connection ended with %v", err)
	}
	i.write(filepath.Base(file), "alice:secret")
	if _, err := worker.Publish(patient(t), "x", text("y")); err != nil {
		t.Fatal(err)
	}

	i.write("tokens", "")
	if err := <-reasons; codeOf(err) != wire.CodeUnauthenticated {
		t.Errorf("without its token on the list the connection ended with %v", err)
	}
	configure(t, c, 1, func(cfg *config.Config) {
		cfg.Authentication, cfg.Authorization = config.Authentication{}, config.Authorization{}
	})
	if _, err := worker.Publish(patient(t), "x", text("y")); err != nil {
		t.Fatal(err)
	}
}

// Who may not read the history of a topic hears what it missed while it was away.
func TestResumingWithoutTheRightToHistory(t *testing.T) {
	i := newIdentities(t)
	c := cluster.Start(t, 3, func(cfg *config.Config) {
		cfg.History = config.History{MaxArtifacts: 100}
		i.set(
			config.Rule{Name: "all", ConnectAs: []string{"*"}, Subscribe: []string{"orders.>"}},
			config.Rule{Name: "publishers", When: `identity.serviceAccount == "publisher"`, Publish: []string{">"}},
		)(cfg)
	})
	publisher := connect(t, c.Node(1), "publisher", i.pod("publisher"))
	got := make(inbox, 100)
	gaps := make(chan *client.HistoryGapError, 10)
	var cut atomic.Bool
	worker, err := client.Connect(patient(t), c.Node(0).Client()+","+c.Node(1).Client(), client.WithID("worker"), i.pod("worker"),
		client.WithDialer(func(ctx context.Context, network, address string) (net.Conn, error) {
			if cut.Load() {
				return nil, errors.New("the network is cut")
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = worker.Close() })
	if _, err := worker.Subscribe(patient(t), "orders.>", got.handle, client.OnGap(func(gap *client.HistoryGapError) { gaps <- gap })); err != nil {
		t.Fatal(err)
	}
	publish := func(payload string) {
		t.Helper()
		if _, err := publisher.Publish(patient(t), "orders.new", text(payload)); err != nil {
			t.Fatal(err)
		}
	}
	publish("1")
	if a := got.next(t); string(a.Payload) != "1" {
		t.Fatalf("got %s", a.Payload)
	}
	cut.Store(true)
	c.Kill(0)
	publish("2")
	publish("3")
	cut.Store(false)
	if gap := <-gaps; gap.Topic != "orders.new" || gap.From != 2 || gap.To != 3 {
		t.Errorf("the gap is %v", gap)
	}
	publish("4")
	if a := got.next(t); string(a.Payload) != "4" {
		t.Errorf("got %s", a.Payload)
	}
}

func TestListsOverHTTPNeedAToken(t *testing.T) {
	i := newIdentities(t)
	c := cluster.Start(t, 1, i.set(everything))
	connect(t, c.Node(0), "worker", client.WithToken("alice:secret"))
	resp, err := http.Get(c.Node(0).HTTP() + "/v1/clients") // from loopback
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if list, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || err != nil || !strings.Contains(string(list), `"identity":"alice"`) {
		t.Errorf("from the node itself: %s %s, %v", resp.Status, list, err)
	}
	if err := c.Node(0).MayView(t.Context(), "", "alice:secret", "$hub.clients"); err != nil {
		t.Error(err)
	}
	if err := c.Node(0).MayView(t.Context(), "", "", "$hub.clients"); codeOf(err) != wire.CodeUnauthenticated {
		t.Errorf("without a token: %v", err)
	}
}

// Whose token can't be judged now hears that it may be later, and not that it is wrong.
func TestATokenThatNobodyCanJudgeMayBeTakenLater(t *testing.T) {
	i := newIdentities(t)
	c := cluster.Start(t, 1, func(cfg *config.Config) {
		i.set(everything)(cfg)
		accounts := cfg.Authentication.ServiceAccount
		accounts.KeysFile = filepath.Join(i.dir, "none.json")
		accounts.TokenReview = &config.TokenReview{Server: "https://127.0.0.1:1", TokenFile: filepath.Join(i.dir, "none")}
	})
	refusedWith(t, c.Node(0).Client(), wire.CodeUnavailable, "can't be asked about it: try again", client.WithID("worker"), i.pod("worker"))
}
