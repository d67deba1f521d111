package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// ownWorld is a rule that lets tenants do everything in what is theirs.
var ownWorld = config.Rule{
	Name: "own world", When: `identity.namespace != ""`,
	ConnectAs: []string{"*"}, SendTo: []string{"*"}, Publish: []string{">"}, Subscribe: []string{">"}, History: []string{">"}, Admin: config.AdminManage,
}

// tenants sets nodes up for tenants, and for alice, who looks after the hub.
func (i *identities) tenants(rules ...config.Rule) func(*config.Config) {
	rules = append(rules, config.Rule{
		Name: "people", When: `identity.method == "Static"`, ConnectAs: []string{"*"}, SendTo: []string{"*"},
		Publish: []string{">"}, Subscribe: []string{">"}, History: []string{">"}, Admin: config.AdminManage,
	})
	return func(cfg *config.Config) {
		i.set(rules...)(cfg)
		cfg.Tenancy = config.TenancyNamespace
		cfg.History = config.History{MaxArtifacts: 1000}
	}
}

// of is the option of a client that is a pod of a namespace.
func (i *identities) of(namespace string) client.Option {
	i.t.Helper()
	token, err := i.issuer.ServiceAccountToken(audience, namespace, "worker", time.Now().Add(time.Hour))
	if err != nil {
		i.t.Fatal(err)
	}
	return client.WithToken(token)
}

// Two tenants use the same names for everything, at the same time, and hear nothing of each
// other; whoever looks after the hub sees both.
func TestTenantsHaveNamesOfTheirOwn(t *testing.T) {
	i := newIdentities(t)
	c := cluster.Start(t, 3, i.tenants(ownWorld))
	admin := connect(t, c.Node(2), "alice", client.WithToken("alice:secret"))
	everything := make(inbox, 1000)
	if _, err := admin.Subscribe(patient(t), ">", everything.handle); err != nil {
		t.Fatal(err)
	}
	type world struct {
		worker, asker      *client.Client
		direct, live, told inbox
	}
	worlds := make(map[string]*world)
	for _, ns := range []string{"shop", "bank"} {
		w := &world{direct: make(inbox, 100), live: make(inbox, 100), told: make(inbox, 100)}
		worlds[ns] = w
		w.worker = connect(t, c.Node(0), "worker", i.of(ns), client.WithHandler(func(ctx context.Context, a *wire.Artifact) (*wire.Artifact, error) {
			return text("done by " + ns), w.direct.handle(ctx, a)
		}))
		w.asker = connect(t, c.Node(1), "asker", i.of(ns))
		if _, err := w.worker.Subscribe(patient(t), "orders.>", w.live.handle); err != nil {
			t.Fatal(err)
		}
		if _, err := w.worker.Subscribe(patient(t), "broadcast", w.told.handle); err != nil {
			t.Fatal(err)
		}
	}
	for ns, w := range worlds {
		if err := w.asker.Send(patient(t), "worker", text("for "+ns)); err != nil {
			t.Fatal(err)
		}
		if a := w.direct.next(t); string(a.Payload) != "for "+ns || a.From != "asker" || a.To != "worker" {
			t.Errorf("%s: the worker gets %q from %q for %q", ns, a.Payload, a.From, a.To)
		}
		reply, err := w.asker.Request(patient(t), "worker", text("?"))
		if err != nil || string(reply.Payload) != "done by "+ns || reply.From != "worker" {
			t.Errorf("%s: the reply is %+v, %v", ns, reply, err)
		}
		w.direct.next(t)
		for n := range 3 {
			seq, err := w.asker.Publish(patient(t), "orders.new", text(fmt.Sprint(ns, n)))
			if err != nil || seq != wire.Sequence(n+1) {
				t.Errorf("%s: Publish = %d, %v", ns, seq, err)
			}
			if a := w.live.next(t); string(a.Payload) != fmt.Sprint(ns, n) || a.Topic != "orders.new" || a.From != "asker" || a.Sequence != seq {
				t.Errorf("%s: the subscriber gets %q, %d of %q from %q", ns, a.Payload, a.Sequence, a.Topic, a.From)
			}
			if a := everything.next(t); a.Topic != ns+".orders.new" || a.From != ns+"/asker" {
				t.Errorf("the hub's own people get %q from %q", a.Topic, a.From)
			}
		}
		if _, err := w.asker.Publish(patient(t), "broadcast", text("to all of "+ns)); err != nil {
			t.Fatal(err)
		}
		if a := w.told.next(t); string(a.Payload) != "to all of "+ns || a.Topic != "broadcast" {
			t.Errorf("%s: the broadcast is %q on %q", ns, a.Payload, a.Topic)
		}
		everything.next(t)
		var all []string
		for a, err := range w.asker.History(patient(t), "orders.new", client.Range{}) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, a.Topic+"="+string(a.Payload))
		}
		if got, want := strings.Join(all, " "), fmt.Sprintf("orders.new=%[1]s0 orders.new=%[1]s1 orders.new=%[1]s2", ns); got != want {
			t.Errorf("%s: the history is %s, want %s", ns, got, want)
		}
	}

	// Whoever is of no tenant reaches its clients, and is answered.
	reply, err := admin.Request(patient(t), "shop/worker", text("how are you?"))
	if err != nil || string(reply.Payload) != "done by shop" || reply.From != "shop/worker" {
		t.Errorf("the reply is %+v, %v", reply, err)
	}
	if a := worlds["shop"].direct.next(t); a.From != "/alice" || a.To != "worker" {
		t.Errorf("the question is from %q for %q", a.From, a.To)
	}
	for name, left := range map[string]inbox{"shop's direct": worlds["shop"].direct, "bank's direct": worlds["bank"].direct, "shop's live": worlds["shop"].live, "bank's live": worlds["bank"].live} {
		if n := len(left); n != 0 {
			t.Errorf("%s: %d artifacts too many", name, n)
		}
	}
}

// What tenants can't do says so in their own names.
func TestTenantsCannotReachOut(t *testing.T) {
	i := newIdentities(t)
	c := cluster.Start(t, 1, i.tenants(ownWorld, config.Rule{Name: "out", SendTo: []string{"/alice", "/*", "bank/*"}, Publish: []string{"bank.>"}}))
	node := c.Node(0)
	connect(t, node, "alice", client.WithToken("alice:secret"))
	other := make(inbox, 10)
	worker := connect(t, node, "worker", i.of("bank"), client.WithHandler(func(ctx context.Context, a *wire.Artifact) (*wire.Artifact, error) { return nil, other.handle(ctx, a) }))
	if _, err := worker.Subscribe(patient(t), ">", other.handle); err != nil {
		t.Fatal(err)
	}
	spy := connect(t, node, "spy", i.of("shop"))

	for _, to := range []string{"bank/worker", "/bank/worker"} { // its own ones of these names
		if missing, _ := errors.AsType[*wire.NoClientError](spy.Send(patient(t), to, text("x"))); missing == nil || missing.ID != to {
			t.Errorf("Send to %s = %v", to, missing)
		}
	}
	for _, to := range []string{"/alice", "/$hub.clients"} {
		if denied, ok := errors.AsType[*wire.PermissionError](spy.Send(patient(t), to, text("x"))); !ok || denied.Target != to && to != "/$hub.clients" {
			t.Errorf("Send to %s = %v, want a PermissionError that says so", to, denied)
		}
	}
	if _, err := spy.Publish(patient(t), "bank.orders", text("x")); err != nil { // shop.bank.orders
		t.Error(err)
	}
	for _, question := range []string{"clients", "topics", "presence", "nodes", "namespaces"} {
		_, err := spy.Request(patient(t), "$hub."+question, text("{}"))
		if denied, ok := errors.AsType[*wire.PermissionError](err); !ok || !strings.Contains(err.Error(), `namespace "shop", which has names of its own`) {
			t.Errorf("$hub.%s = %v, %v", question, denied, err)
		}
	}
	if _, err := spy.Subscribe(patient(t), wire.TopicPresence, other.handle); codeOf(err) != wire.CodePermission {
		t.Errorf("Subscribe to presence = %v", err)
	}
	refusedWith(t, node.Client(), wire.CodeInvalidClientID, "slash", client.WithID("/alice"), i.of("shop"))
	refusedWith(t, node.Client(), wire.CodeInvalidClientID, "longer than", client.WithID(strings.Repeat("x", wire.MaxClientID)), i.of("shop"))
	if n := len(other); n != 0 {
		t.Errorf("%d artifacts came from another tenant", n)
	}
}

// What rules name are the tenant's own names, and what is denied is named likewise.
func TestRulesOfTenants(t *testing.T) {
	i := newIdentities(t)
	c := cluster.Start(t, 1, i.tenants(config.Rule{Name: "workers", ConnectAs: []string{"{namespace}-*"}, Publish: []string{"orders.>"}, Subscribe: []string{"orders.new"}}))
	node := c.Node(0)
	worker := connect(t, node, "shop-1", i.of("shop"))
	if _, err := worker.Publish(patient(t), "orders.new", text("x")); err != nil {
		t.Error(err)
	}
	_, err := worker.Publish(patient(t), "prices.new", text("x"))
	if denied, ok := errors.AsType[*wire.PermissionError](err); !ok || denied.Target != "prices.new" || !strings.Contains(err.Error(), `ask for a rule with publish: ["prices.new"]`) {
		t.Errorf("Publish = %v", err)
	}
	if _, err := worker.Subscribe(patient(t), "orders.>", make(inbox, 1).handle); codeOf(err) != wire.CodePermission {
		t.Errorf("Subscribe = %v", err)
	}
	refusedWith(t, node.Client(), wire.CodePermission, `connectAs: ["bank-1"]`, client.WithID("bank-1"), i.of("shop"))
	if m := c.Metrics(0); !strings.Contains(m, `switchboard_permission_denied_total{action="publish"} 1`) {
		t.Error("the denial is not counted")
	}
}

// Sessions, positions and durable subscriptions outlive connections as they do elsewhere.
func TestTenantsLoseNothing(t *testing.T) {
	i := newIdentities(t)
	c := cluster.Start(t, 2, i.tenants(ownWorld))
	var line gate
	got, jobs, dead := make(inbox, 1000), make(inbox, 1000), make(inbox, 10)
	worker := connect(t, c.Node(0), "worker", i.of("shop"), client.WithDialer(line.dial), client.WithHandler(func(ctx context.Context, a *wire.Artifact) (*wire.Artifact, error) { return nil, got.handle(ctx, a) }))
	sender := connect(t, c.Node(1), "sender", i.of("shop"))
	log := make(inbox, 1000)
	if _, err := worker.Subscribe(patient(t), "log.*", log.handle, client.SinceAll()); err != nil {
		t.Fatal(err)
	}
	if _, err := worker.Subscribe(patient(t), "jobs", func(ctx context.Context, a *wire.Artifact) error {
		if string(a.Payload) == "bad" {
			return errors.New("no")
		}
		return jobs.handle(ctx, a)
	}, client.Durable("workers"), client.MaxDeliveries(1, "jobs.dead")); err != nil {
		t.Fatal(err)
	}
	if _, err := sender.Subscribe(patient(t), "jobs.dead", dead.handle, client.SinceAll()); err != nil {
		t.Fatal(err)
	}
	publish := func(topic, payload string) {
		t.Helper()
		if _, err := sender.Publish(patient(t), topic, text(payload)); err != nil {
			t.Fatal(err)
		}
	}
	const rounds = 30
	for n := range rounds {
		if n%10 == 5 {
			line.shut()
			line.open()
		}
		if err := sender.Send(patient(t), "worker", text(fmt.Sprint(n))); err != nil {
			t.Fatal(err)
		}
		publish("log.a", fmt.Sprint(n))
		publish("jobs", fmt.Sprint(n))
	}
	publish("jobs", "bad")
	for n := range rounds {
		for name, box := range map[string]inbox{"direct": got, "log": log, "jobs": jobs} {
			if a := box.next(t); string(a.Payload) != fmt.Sprint(n) {
				t.Fatalf("%s: got %s, want %d", name, a.Payload, n)
			}
		}
	}
	if a := dead.next(t); string(a.Payload) != "bad" || a.Topic != "jobs.dead" {
		t.Errorf("the dead letter is %q on %q", a.Payload, a.Topic)
	}
}

// Tenancy is turned on and off in place: those whose names change come back under them.
func TestTenancyChangesInPlace(t *testing.T) {
	i := newIdentities(t)
	c := cluster.Start(t, 1, i.set(everything))
	reasons := make(chan error, 10)
	connect(t, c.Node(0), "worker", i.of("shop"), client.OnDisconnect(func(err error) { reasons <- err }))
	admin := connect(t, c.Node(0), "alice", client.WithToken("alice:secret"), client.OnDisconnect(func(err error) { t.Errorf("whose name is the same is disconnected: %v", err) }))
	for _, step := range []struct {
		change func(*config.Config)
		id     string
	}{
		{i.tenants(ownWorld), "shop/worker"},
		{func(cfg *config.Config) { cfg.Tenancy = config.TenancyNone }, "worker"},
	} {
		configure(t, c, 1, step.change)
		if err := <-reasons; codeOf(err) != wire.CodeUnavailable {
			t.Errorf("the connection ended with %v", err)
		}
		for deadline := time.Now().Add(cluster.Patience); ; {
			if err := admin.Send(patient(t), step.id, text("x")); err == nil {
				break
			} else if time.Now().After(deadline) {
				t.Fatalf("nobody is %q: %v", step.id, err)
			}
		}
	}
}
