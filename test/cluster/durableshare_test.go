package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// oneShard sets nodes up for tenants whose topics are all in one shard.
func (i *identities) oneShard(rules ...config.Rule) func(*config.Config) {
	return func(cfg *config.Config) {
		i.tenants(rules...)(cfg)
		cfg.Storage.Shards = 1
	}
}

func ignored(context.Context, *wire.Artifact) error { return nil }

// beginDurable begins a durable subscription that nobody uses.
func beginDurable(t *testing.T, c *client.Client, topic, name string) error {
	t.Helper()
	return settled(t, func(ctx context.Context) error {
		s, err := c.Subscribe(ctx, topic, ignored, client.Durable(name))
		if err == nil {
			err = s.Unsubscribe(ctx)
		}
		return err
	})
}

// deleteDurable deletes one, by the names of whoever asks.
func deleteDurable(t *testing.T, c *client.Client, topic, name string) (answer string, err error) {
	t.Helper()
	err = settled(t, func(ctx context.Context) error {
		a, err := c.Request(ctx, "$hub.durables.delete", text(fmt.Sprintf(`{"topic":%q,"name":%q}`, topic, name)))
		if err == nil {
			answer = string(a.Payload)
		}
		return err
	})
	return answer, err
}

// A tenant that begins as many durable subscriptions as it can, on all nodes, leaves the
// others theirs, and makes room for itself.
func TestATenantHasNoMoreThanItsShareOfDurables(t *testing.T) {
	const most, tries = 1024, 1100
	i := newIdentities(t)
	c := cluster.Start(t, 3, i.oneShard(ownWorld))
	admin := connect(t, c.Node(0), "alice", client.WithToken("alice:secret"))
	var shop, bank []*client.Client
	for n := range 3 {
		shop = append(shop, connect(t, c.Node(n), fmt.Sprint("worker-", n), i.of("shop")))
		bank = append(bank, connect(t, c.Node(n), fmt.Sprint("worker-", n), i.of("bank")))
	}
	full := func(err error) bool {
		coded, ok := errors.AsType[*wire.Error](err)
		return ok && coded.Code == wire.CodeInvalidRequest && strings.Contains(coded.Detail, "namespace shop has the 1024 durable subscriptions already") &&
			strings.Contains(coded.Detail, "hubctl durables delete TOPIC NAME")
	}
	var (
		filling     sync.WaitGroup
		next, begun atomic.Int64
	)
	for at := range 24 {
		filling.Go(func() {
			for n := next.Add(1); n <= tries; n = next.Add(1) {
				switch err := beginDurable(t, shop[at%3], fmt.Sprint("jobs-", n%5), fmt.Sprint(n)); {
				case err == nil:
					begun.Add(1)
				case !full(err):
					t.Errorf("Subscribe = %v", err)
				}
			}
		})
	}
	filling.Wait()
	if n := begun.Load(); n != most {
		t.Errorf("%d were begun, want %d", n, most)
	}
	var one wire.DurableInfo
	for _, d := range durables(t, admin, "") {
		if strings.HasPrefix(d.Topic, "shop.") {
			one = d
		}
	}
	own := strings.TrimPrefix(one.Topic, "shop.")
	for n := range 3 {
		if err := beginDurable(t, shop[n], "other", "x"); !full(err) {
			t.Errorf("node %d: one more: %v", n, err)
		}
		if err := beginDurable(t, shop[n], own, one.Name); err != nil {
			t.Errorf("node %d: one that is there: %v", n, err)
		}
		if err := beginDurable(t, bank[n], "jobs-0", fmt.Sprint(n)); err != nil {
			t.Errorf("node %d: another tenant's: %v", n, err)
		}
	}
	answer, err := deleteDurable(t, shop[1], own, one.Name)
	if want := fmt.Sprintf(`{"topic":%q,"name":%q}`, own, one.Name); err != nil || answer != want {
		t.Errorf("deleting one is answered %s, %v, want %s", answer, err, want)
	}
	if err := beginDurable(t, shop[2], "other", "x"); err != nil {
		t.Errorf("in place of the deleted one: %v", err)
	}
	if err := beginDurable(t, shop[0], "other", "y"); !full(err) {
		t.Errorf("one more than that: %v", err)
	}
}

// A tenant deletes those durable subscriptions of its own namespace that it may use; what else
// its rules say makes no difference.
func TestWhoDeletesDurablesOfTenants(t *testing.T) {
	i := newIdentities(t)
	rule := func(account string, subscribe, history []string) config.Rule {
		return config.Rule{
			Name: account, When: fmt.Sprintf("identity.serviceAccount == %q", account), ConnectAs: []string{account},
			Subscribe: subscribe, History: history, Admin: config.AdminManage, // which is for nobody who is of a namespace
		}
	}
	all, jobs := []string{">"}, []string{"jobs"}
	c := cluster.Start(t, 2, i.oneShard(rule("worker", all, all), rule("clerk", jobs, jobs), rule("listener", all, nil), rule("reader", nil, all), rule("manager", nil, nil)))
	admin := connect(t, c.Node(0), "alice", client.WithToken("alice:secret"))
	there := []string{"bank.jobs", "shop.bills", "shop.jobs"} // by the hub's names
	left := func() string {
		t.Helper()
		var topics []string
		for _, d := range durables(t, admin, "") {
			topics = append(topics, d.Topic)
		}
		return strings.Join(topics, " ")
	}
	for _, test := range []struct {
		who, topic string
		deletes    string      // empty: nothing
		denied     wire.Action // empty: it is not denied
	}{
		{"shop worker", "jobs", "shop.jobs", ""},
		{"shop worker", "bills", "shop.bills", ""},
		{"shop worker", "shop.jobs", "", ""}, // shop.shop.jobs
		{"shop worker", "bank.jobs", "", ""},
		{"shop worker", "", "", wire.ActionSubscribe},
		{"shop worker", "$hub.jobs", "", wire.ActionSubscribe},
		{"shop worker", "*", "", ""}, // there is none of that name
		{"bank worker", "jobs", "bank.jobs", ""},
		{"bank worker", "bills", "", ""},
		{"shop clerk", "jobs", "shop.jobs", ""},
		{"shop clerk", "bills", "", wire.ActionSubscribe},
		{"shop listener", "jobs", "", wire.ActionHistory},
		{"shop reader", "jobs", "", wire.ActionSubscribe},
		{"shop manager", "jobs", "", wire.ActionSubscribe},
		{"alice", "bank.jobs", "bank.jobs", ""},
		{"alice", "shop.jobs", "shop.jobs", ""},
		{"alice", "jobs", "", ""},
	} {
		t.Run(test.who+"/"+test.topic, func(t *testing.T) {
			for _, topic := range there {
				if err := beginDurable(t, admin, topic, "d"); err != nil {
					t.Fatal(err)
				}
			}
			asker := admin
			if namespace, account, ok := strings.Cut(test.who, " "); ok {
				token, err := i.issuer.ServiceAccountToken(audience, namespace, account, time.Now().Add(time.Hour))
				if err != nil {
					t.Fatal(err)
				}
				asker = connect(t, c.Node(1), account, client.WithToken(token))
			}
			_, err := deleteDurable(t, asker, test.topic, "d")
			denied, _ := errors.AsType[*wire.PermissionError](err)
			switch {
			case test.deletes != "" && err != nil:
				t.Errorf("it is refused: %v", err)
			case test.denied != "" && (denied == nil || denied.Action != test.denied || denied.Target != test.topic):
				t.Errorf("got %v, want it to lack %q", err, test.denied)
			case test.deletes == "" && test.denied == "" && codeOf(err) != wire.CodeNoDurable:
				t.Errorf("got %v, want that there is none", err)
			}
			want := slices.DeleteFunc(slices.Clone(there), func(topic string) bool { return topic == test.deletes })
			if got := left(); got != strings.Join(want, " ") {
				t.Errorf("what is left is of %s, want %s", got, strings.Join(want, " "))
			}
		})
	}
}
