package cluster_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

const (
	shareLimit  = 256 << 10
	shareTopics = 24 // enough that every node leads some
)

func shareTopic(n int) string { return fmt.Sprintf("orders.%d", n%shareTopics) }

// limited sets nodes up for tenants that may keep so much, and have topics without history.
func (i *identities) limited(change func(*config.Config)) func(*config.Config) {
	return func(cfg *config.Config) {
		i.tenants(ownWorld)(cfg)
		cfg.Limits.PerNamespace.HistoryBytes = shareLimit
		none := 0
		cfg.Topics = []config.Topic{{Pattern: "*.live", History: &config.TopicHistory{MaxArtifacts: &none}}}
		if change != nil {
			change(cfg)
		}
	}
}

// shopKeeps returns how many bytes of history the topics of namespace shop have, by what the hub lists.
func shopKeeps(t *testing.T, admin *client.Client) (bytes int64) {
	t.Helper()
	for {
		answer, err := admin.Request(patient(t), "$hub.topics", text("{}"))
		if err != nil {
			t.Fatal(err)
		}
		var list struct {
			Topics []struct {
				Topic string `json:"topic"`
				Bytes int64  `json:"bytes"`
			} `json:"topics"`
			Incomplete bool `json:"incomplete"`
		}
		if err := json.Unmarshal(answer.Payload, &list); err != nil {
			t.Fatal(err)
		}
		if list.Incomplete { // a shard is getting another leader
			continue
		}
		bytes = 0
		for _, topic := range list.Topics {
			if strings.HasPrefix(topic.Topic, "shop.") {
				bytes += topic.Bytes
			}
		}
		return bytes
	}
}

// waitKnown returns when nodes know what the topics of namespace shop keep.
func waitKnown(t *testing.T, c *cluster.Cluster, bytes int64, nodes ...int) {
	t.Helper()
	for _, n := range nodes {
		c.WaitFor(fmt.Sprintf("node %d to know of %d bytes", n, bytes), func() bool {
			return strings.Contains(c.Metrics(n), fmt.Sprintf("switchboard_namespace_history_bytes{tenant=\"shop\"} %d\n", bytes))
		})
	}
}

// overQuota reports whether a publish was refused for what its tenant keeps.
func overQuota(t *testing.T, err error) bool {
	t.Helper()
	if err == nil {
		return false
	}
	coded, ok := errors.AsType[*wire.Error](err)
	if !ok || coded.Code != wire.CodeStorageFull || !strings.Contains(err.Error(), "limits.perNamespace.historyBytes") {
		t.Fatalf("Publish = %v", err)
	}
	return true
}

// fill publishes on all nodes at the same time until nothing is taken on any topic.
func fill(t *testing.T, publishers []*client.Client) {
	t.Helper()
	payload := strings.Repeat("x", 1000)
	var filling sync.WaitGroup
	for _, p := range publishers {
		filling.Go(func() {
			for n, refused := 0, 0; refused < shareTopics; n++ {
				_, err := p.Publish(t.Context(), shareTopic(n), text(payload))
				if coded, ok := errors.AsType[*wire.Error](err); err != nil && (!ok || coded.Code != wire.CodeStorageFull) {
					t.Errorf("Publish = %v", err)
					return
				}
				if refused++; err == nil {
					refused = 0
				}
			}
		})
	}
	filling.Wait()
}

// Who keeps as much as it may is refused on every node and every topic, whoever leads it,
// and nobody else notices. Purging and retention make room.
func TestATenantKeepsNoMoreThanItsShare(t *testing.T) {
	i := newIdentities(t)
	c := cluster.Start(t, 3, i.limited(nil))
	admin := connect(t, c.Node(0), "alice", client.WithToken("alice:secret"))
	var shop, bank []*client.Client
	for n := range 3 {
		shop = append(shop, connect(t, c.Node(n), fmt.Sprint("worker-", n), i.of("shop")))
		bank = append(bank, connect(t, c.Node(n), fmt.Sprint("worker-", n), i.of("bank")))
	}
	everywhere := func(who []*client.Client, do func(p *client.Client, topic string)) {
		for _, p := range who {
			for n := range shareTopics {
				do(p, shareTopic(n))
			}
		}
	}
	refusedEverywhere := func() {
		t.Helper()
		everywhere(shop, func(p *client.Client, topic string) {
			if _, err := p.Publish(patient(t), topic, text(strings.Repeat("x", 1000))); !overQuota(t, err) {
				t.Errorf("%s: a publish is taken", topic)
			}
		})
	}

	fill(t, shop)
	// Each node knows for sure what it leads, and hears soon of the others.
	held := shopKeeps(t, admin)
	if held < shareLimit-2000 || held > 3*shareLimit {
		t.Errorf("%d bytes are kept, the limit is %d", held, shareLimit)
	}
	waitKnown(t, c, held, 0, 1, 2)
	refusedEverywhere()
	if now := shopKeeps(t, admin); now != held {
		t.Errorf("%d bytes are kept after nothing was taken, %d before", now, held)
	}
	if _, err := admin.Publish(patient(t), "shop."+shareTopic(0), text(strings.Repeat("x", 1000))); !overQuota(t, err) {
		t.Error("whoever is of no namespace adds to what is full")
	}

	answer, err := admin.Request(patient(t), "$hub.namespaces", text("{}"))
	if want := fmt.Sprintf(`{"maxHistoryBytes":%d,"namespaces":[{"namespace":"shop","historyBytes":%d}]}`, shareLimit, held); err != nil || string(answer.Payload) != want {
		t.Errorf("the namespaces are %s, %v, want %s", answer.Payload, err, want)
	}

	// The other tenant goes on, and so does what is not kept.
	everywhere(bank, func(p *client.Client, topic string) {
		if _, err := p.Publish(patient(t), topic, text(strings.Repeat("x", 1000))); err != nil {
			t.Errorf("bank: %v", err)
		}
	})
	got := make(inbox, 10)
	if _, err := shop[1].Subscribe(patient(t), "live", got.handle); err != nil {
		t.Fatal(err)
	}
	if _, err := shop[1].Publish(patient(t), "live", text("still")); err != nil {
		t.Errorf("a live topic: %v", err)
	}
	if a := got.next(t); string(a.Payload) != "still" {
		t.Errorf("got %q", a.Payload)
	}
	read := 0
	for _, err := range shop[2].History(patient(t), shareTopic(0), client.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		read++
	}
	if read == 0 {
		t.Error("nothing can be read")
	}
	for n := range 3 {
		if m := c.Metrics(n); strings.Contains(m, "switchboard_artifacts_over_quota_total 0\n") || !strings.Contains(m, fmt.Sprintf("switchboard_namespace_history_limit_bytes %d\n", shareLimit)) {
			t.Errorf("node %d: refusals, or the limit, are not in the metrics", n)
		}
	}

	// A purge makes room.
	for n := 0; shopKeeps(t, admin) > shareLimit/2; n++ {
		if _, err := admin.Request(patient(t), "$hub.topics.purge", text(fmt.Sprintf(`{"topic":"shop.%s"}`, shareTopic(n)))); err != nil {
			t.Fatal(err)
		}
	}
	waitKnown(t, c, shopKeeps(t, admin), 0, 1, 2)
	everywhere(shop, func(p *client.Client, topic string) {
		if _, err := p.Publish(patient(t), topic, text("small")); err != nil {
			t.Errorf("after a purge: %v", err)
		}
	})

	// So does retention, when what it keeps changes in place.
	fill(t, shop)
	waitKnown(t, c, shopKeeps(t, admin), 0, 1, 2)
	refusedEverywhere()
	configure(t, c, 3, func(cfg *config.Config) { cfg.History.MaxArtifacts = 1 })
	waitKnown(t, c, shopKeeps(t, admin), 0, 1, 2)
	everywhere(shop, func(p *client.Client, topic string) {
		if _, err := p.Publish(patient(t), topic, text("small")); err != nil {
			t.Errorf("after retention: %v", err)
		}
	})

	// Without the limit nobody counts.
	configure(t, c, 3, func(cfg *config.Config) { cfg.Limits.PerNamespace.HistoryBytes, cfg.History.MaxArtifacts = 0, 100_000 })
	everywhere(shop, func(p *client.Client, topic string) {
		for range 2 {
			if _, err := p.Publish(patient(t), topic, text(strings.Repeat("x", 10_000))); err != nil {
				t.Errorf("without a limit: %v", err)
			}
		}
	})
	for n := range 3 {
		c.WaitFor("nothing to be counted", func() bool { return !strings.Contains(c.Metrics(n), "switchboard_namespace_history_bytes{") })
	}
}

// What is known of a tenant's share is right after other nodes lead, and after all of them
// began anew.
func TestSharesOutliveTheirLeaders(t *testing.T) {
	i := newIdentities(t)
	dir := t.TempDir()
	c := cluster.Start(t, 3, i.limited(func(cfg *config.Config) { cfg.Storage.Dir = filepath.Join(dir, cfg.Node) }))
	worker := func(node int) *client.Client {
		return connect(t, c.Node(node), "worker", i.of("shop"))
	}
	admin := func(node int) *client.Client {
		return connect(t, c.Node(node), "alice", client.WithToken("alice:secret"))
	}
	fill(t, []*client.Client{worker(0)})
	held := shopKeeps(t, admin(0))
	waitKnown(t, c, held, 0, 1, 2)
	full := func(nodes ...int) {
		t.Helper()
		for _, node := range nodes {
			w := worker(node)
			for n := range shareTopics {
				if _, err := w.Publish(patient(t), shareTopic(n), text(strings.Repeat("x", 1000))); !overQuota(t, err) {
					t.Errorf("node %d, %s: a publish is taken", node, shareTopic(n))
				}
			}
			_ = w.Close()
		}
		if now := shopKeeps(t, admin(nodes[0])); now != held {
			t.Errorf("%d bytes are kept, %d before", now, held)
		}
	}
	full(0, 1, 2)

	c.Kill(1)
	c.WaitFor("other leaders", func() bool { return shopKeeps(t, admin(0)) == held })
	waitKnown(t, c, held, 0, 2)
	full(0, 2)

	c.Revive(1)
	waitKnown(t, c, held, 0, 1, 2)
	full(0, 1, 2)

	for n := range 3 {
		c.Kill(n)
	}
	for n := range 3 {
		c.Run(n)
	}
	for n := range 3 {
		c.WaitReady(c.Node(n))
	}
	waitKnown(t, c, held, 0, 1, 2)
	full(0, 1, 2)
}

// Who publishes without waiting is told of each artifact whether there was room for it.
func TestRefusalsOfWhatIsOnItsWay(t *testing.T) {
	i := newIdentities(t)
	c := cluster.Start(t, 2, i.limited(nil))
	worker := connect(t, c.Node(0), "worker", i.of("shop"))
	payload := strings.Repeat("x", 1000)
	var acks []client.Ack
	for range 2 * shareLimit / 1000 {
		ack, err := worker.PublishAsync(patient(t), "orders", text(payload))
		if err != nil {
			t.Fatal(err)
		}
		acks = append(acks, ack)
	}
	stored := make(map[wire.Sequence]bool)
	refused := 0
	for _, ack := range acks {
		seq, err := ack.Wait(patient(t))
		if overQuota(t, err) {
			refused++
			continue
		}
		stored[seq] = true
	}
	kept := 0
	for a, err := range worker.History(patient(t), "orders", client.Range{}) {
		if err != nil {
			t.Fatal(err)
		}
		if !stored[a.Sequence] {
			t.Errorf("artifact %d is kept and was refused", a.Sequence)
		}
		kept++
	}
	if kept != len(stored) || refused == 0 || kept < shareLimit/1100-100 || kept*1000 > shareLimit {
		t.Errorf("%d artifacts are kept, %d acknowledged, %d refused", kept, len(stored), refused)
	}
}
