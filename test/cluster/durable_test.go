package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// tally counts how often each sequence was handled.
type tally struct {
	mu   sync.Mutex // guards n
	n    map[wire.Sequence]int
	last wire.Sequence
}

func newTally() *tally { return &tally{n: make(map[wire.Sequence]int)} }

func (t *tally) handle(_ context.Context, a *wire.Artifact) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n[a.Sequence]++
	t.last = a.Sequence
	return nil
}

func (t *tally) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.n)
}

// repeats returns how often something was handled that had been handled before.
func (t *tally) repeats() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, times := range t.n {
		n += times - 1
	}
	return n
}

// durables asks the hub for a topic's durable subscriptions.
func durables(t *testing.T, cl *client.Client, topic string) []wire.DurableInfo {
	t.Helper()
	answer, err := cl.Request(patient(t), "$hub.durables", &wire.Artifact{Payload: []byte(`{"topic":"` + topic + `"}`)})
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Durables []wire.DurableInfo `json:"durables"`
	}
	if err := json.Unmarshal(answer.Payload, &list); err != nil {
		t.Fatal(err)
	}
	return list.Durables
}

func join(t *testing.T, addrs, id string, opts ...client.Option) *client.Client {
	t.Helper()
	cl, err := client.Connect(patient(t), addrs, append(opts, client.WithID(id))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Close() })
	return cl
}

func publish(t *testing.T, cl *client.Client, topic string, n int) {
	t.Helper()
	for i := range n {
		if _, err := cl.PublishAsync(patient(t), topic, &wire.Artifact{Payload: []byte(strconv.Itoa(i))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := cl.Flush(patient(t)); err != nil {
		t.Fatal(err)
	}
}

func allNodes(c *cluster.Cluster) string {
	return c.Node(0).Client() + "," + c.Node(1).Client() + "," + c.Node(2).Client()
}

// Workers on three nodes share a topic's work while every node crashes in turn and
// workers come and go. All of it is done.
func TestWorkIsDoneWhateverCrashes(t *testing.T) {
	storages(t, func(t *testing.T, settings func(*config.Config)) {
		t.Helper()
		const all = 900
		c := cluster.Start(t, 3, settings)
		addrs := allNodes(c)
		pub := join(t, addrs, "pub")
		done := newTally()
		for i := range 4 {
			w := join(t, addrs, fmt.Sprintf("worker-%d", i))
			if _, err := w.Subscribe(patient(t), "jobs", done.handle, client.Durable("workers"), client.Shared(), client.AckWait(2*time.Second), client.Prefetch(32)); err != nil {
				t.Fatal(err)
			}
		}
		for node := range 3 {
			publish(t, pub, "jobs", all/6)
			crashing := make(chan struct{})
			go func() {
				defer close(crashing)
				c.Kill(node)
			}()
			publish(t, pub, "jobs", all/6)
			<-crashing
			c.Revive(node)
		}
		c.WaitFor("all work", func() bool { return done.count() == all })
		c.WaitFor("all work settled", func() bool {
			d := durables(t, pub, "jobs")
			return len(d) == 1 && d[0].Position == all+1 && d[0].InFlight == 0 && d[0].Pending == 0
		})
		t.Logf("%d of %d handled more than once", done.repeats(), all)
	})
}

// A subscription of one goes on where it was, also under another client. Who waits
// for it gets it when its client has left.
func TestDurableGoesOn(t *testing.T) {
	c := cluster.Start(t, 3, keepHistory)
	addrs := allNodes(c)
	pub := join(t, addrs, "pub")
	publish(t, pub, "orders", 100)
	first, second := newTally(), newTally()
	one := join(t, c.Node(0).Client(), "one")
	if _, err := one.Subscribe(patient(t), "orders", first.handle, client.Durable("billing")); err != nil {
		t.Fatal(err)
	}
	c.WaitFor("the first to have all", func() bool { return first.count() == 100 })
	two := join(t, c.Node(1).Client(), "two")
	sub, err := two.Subscribe(patient(t), "orders", second.handle, client.Durable("billing"))
	if err != nil {
		t.Fatal(err)
	}
	publish(t, pub, "orders", 50)
	c.WaitFor("the first to have more", func() bool { return first.count() == 150 })
	if n := second.count(); n != 0 {
		t.Fatalf("the second has %d though the first is there", n)
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	publish(t, pub, "orders", 50)
	c.WaitFor("the second to have the rest", func() bool { return second.count() == 50 })
	if first.repeats()+second.repeats() > 0 || first.last != 150 || second.last != 200 {
		t.Errorf("the first got up to %d, the second to %d, with %d and %d repeats", first.last, second.last, first.repeats(), second.repeats())
	}
	if err := sub.Unsubscribe(patient(t)); err != nil {
		t.Fatal(err)
	}
	d := durables(t, pub, "orders")
	if len(d) != 1 || d[0].Name != "billing" || d[0].Position != 201 || len(d[0].Members) != 0 {
		t.Errorf("got %+v", d)
	}
	if _, err := pub.Request(patient(t), "$hub.durables.delete", &wire.Artifact{Payload: []byte(`{"topic":"orders","name":"billing"}`)}); err != nil {
		t.Fatal(err)
	}
	if d := durables(t, pub, "orders"); len(d) != 0 {
		t.Errorf("deleted, and still there: %+v", d)
	}
}

// Deleted under a client that waits, it begins anew.
func TestDurableIsDeletedUnderItsClient(t *testing.T) {
	c := cluster.Start(t, 3, keepHistory)
	cl := join(t, allNodes(c), "cl")
	publish(t, cl, "orders", 10)
	got := newTally()
	if _, err := cl.Subscribe(patient(t), "orders", got.handle, client.Durable("billing")); err != nil {
		t.Fatal(err)
	}
	c.WaitFor("all of it", func() bool { return got.count() == 10 })
	c.WaitFor("all of it settled", func() bool { d := durables(t, cl, "orders"); return len(d) == 1 && d[0].Position == 11 })
	if _, err := cl.Request(patient(t), "$hub.durables.delete", &wire.Artifact{Payload: []byte(`{"topic":"orders","name":"billing"}`)}); err != nil {
		t.Fatal(err)
	}
	c.WaitFor("all of it again", func() bool { return got.repeats() == 10 })
}

// What fails comes again, and after the third time goes to the dead-letter topic.
func TestWhatFailsIsDeadInTheEnd(t *testing.T) {
	c := cluster.Start(t, 3, keepHistory)
	addrs := allNodes(c)
	cl := join(t, addrs, "worker")
	var mu sync.Mutex
	tries := make(map[string][]int)
	_, err := cl.Subscribe(patient(t), "jobs", func(ctx context.Context, a *wire.Artifact) error {
		mu.Lock()
		defer mu.Unlock()
		tries[string(a.Payload)] = append(tries[string(a.Payload)], client.Deliveries(ctx))
		if string(a.Payload) == "3" {
			return errors.New("no")
		}
		return nil
	}, client.Durable("w"), client.Shared(), client.MaxDeliveries(3, "dead"))
	if err != nil {
		t.Fatal(err)
	}
	dead := make(chan *wire.Artifact, 10)
	if _, err := cl.Subscribe(patient(t), "dead", func(_ context.Context, a *wire.Artifact) error {
		dead <- a
		return nil
	}, client.SinceAll()); err != nil {
		t.Fatal(err)
	}
	publish(t, cl, "jobs", 6)
	select {
	case a := <-dead:
		if string(a.Payload) != "3" || a.From != "worker" || a.Attributes[wire.AttributeDeadTopic] != "jobs" ||
			a.Attributes[wire.AttributeDeadSequence] != "4" || a.Attributes[wire.AttributeDeadDurable] != "w" || a.Attributes[wire.AttributeDeadDeliveries] != "3" {
			t.Errorf("dead letter is %+v", a)
		}
	case <-patient(t).Done():
		t.Fatal("no dead letter came")
	}
	c.WaitFor("all settled", func() bool {
		d := durables(t, cl, "jobs")
		return len(d) == 1 && d[0].Position == 7
	})
	mu.Lock()
	defer mu.Unlock()
	for payload, n := range tries {
		want := "[1]"
		if payload == "3" {
			want = "[1 2 3]"
		}
		if fmt.Sprint(n) != want {
			t.Errorf("%s was tried as %v, want %s", payload, n, want)
		}
	}
}

// A client that vanishes keeps its artifacts from others no longer than AckWait, and
// not at all when it comes back.
func TestWhatAVanishedClientHad(t *testing.T) {
	c := cluster.Start(t, 3, keepHistory)
	addrs := allNodes(c)
	pub := join(t, addrs, "pub")
	publish(t, pub, "jobs", 10)
	stuck := make(chan struct{})
	entered := make(chan wire.Sequence, 20)
	work := func(wait bool) client.Handler {
		return func(ctx context.Context, a *wire.Artifact) error {
			entered <- a.Sequence
			if wait {
				<-stuck
			}
			return nil
		}
	}
	opts := []client.SubscribeOption{client.Durable("w"), client.Shared(), client.AckWait(time.Second), client.Prefetch(4)}
	lost, err := client.Connect(patient(t), addrs, client.WithID("lost"), client.WithoutSession())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lost.Subscribe(patient(t), "jobs", work(true), opts...); err != nil {
		t.Fatal(err)
	}
	<-entered
	// Its place is taken: what its first life had is given out again at once.
	back := join(t, addrs, "lost", client.WithoutSession())
	if _, err := back.Subscribe(patient(t), "jobs", work(false), opts...); err != nil {
		t.Fatal(err)
	}
	seen := make(map[wire.Sequence]bool)
	for len(seen) < 10 {
		select {
		case seq := <-entered:
			seen[seq] = true
		case <-patient(t).Done():
			t.Fatalf("only %v came", seen)
		}
	}
	close(stuck)
	_ = lost.Close() // replaced
}

// What a filter refuses is settled, and what it lets pass is done, on whichever node the
// workers and the leader are, also when leaders change.
func TestDurableWithAFilter(t *testing.T) {
	storages(t, func(t *testing.T, settings func(*config.Config)) {
		t.Helper()
		const all, batch, passing = 600, 100, 10 // the payloads of a batch are 0 to 99
		c := cluster.Start(t, 3, settings)
		pub := join(t, allNodes(c), "pub")
		done := newTally()
		for i := range 3 {
			w := join(t, allNodes(c), fmt.Sprintf("worker-%d", i))
			if _, err := w.Subscribe(patient(t), "jobs", done.handle, client.Durable("w"), client.Shared(),
				client.AckWait(2*time.Second), client.Prefetch(16), client.Filter("artifact.size == 1")); err != nil {
				t.Fatal(err)
			}
		}
		for node := range 3 {
			publish(t, pub, "jobs", batch)
			crashing := make(chan struct{})
			go func() {
				defer close(crashing)
				c.Kill(node)
			}()
			publish(t, pub, "jobs", batch)
			<-crashing
			c.Revive(node)
		}
		c.WaitFor("what passes to be done", func() bool { return done.count() == all/batch*passing })
		c.WaitFor("all to be settled", func() bool {
			d := durables(t, pub, "jobs")
			return len(d) == 1 && d[0].Position == all+1 && d[0].InFlight == 0 && d[0].Pending == 0
		})
		done.mu.Lock()
		defer done.mu.Unlock()
		for seq := range done.n {
			if (seq-1)%batch >= passing {
				t.Errorf("artifact %d does not match, and was given out", seq)
			}
		}
	})
}

// What a filter refuses costs no log entries of its own, also when it comes one by one
// while a worker waits. A subscription keeps its filter.
func TestWhatAFilterRefusesCostsNoEntries(t *testing.T) {
	c := cluster.Start(t, 1, func(cfg *config.Config) {
		keepHistory(cfg)
		cfg.Storage.Shards = 1
	})
	cl := join(t, c.Node(0).Client(), "cl")
	got := make(chan *wire.Artifact, 10)
	handle := func(_ context.Context, a *wire.Artifact) error {
		got <- a
		return nil
	}
	if _, err := cl.Subscribe(patient(t), "jobs", handle, client.Durable("w"), client.Filter(`artifact.attributes["for"] == "me"`)); err != nil {
		t.Fatal(err)
	}
	send := func(to string) wire.Sequence {
		seq, err := cl.Publish(patient(t), "jobs", &wire.Artifact{Attributes: map[string]string{"for": to}})
		if err != nil {
			t.Fatal(err)
		}
		return seq
	}
	applied := func() (n int) {
		for line := range strings.Lines(c.Metrics(0)) {
			if _, err := fmt.Sscanf(line, `switchboard_raft_applied_index{shard="0"} %d`, &n); err == nil {
				return n
			}
		}
		t.Fatal("no index of what is applied")
		return 0
	}
	const refused = 300
	before := applied()
	for range refused {
		send("others")
	}
	last := send("me")
	if a := <-got; a.Sequence != last {
		t.Errorf("got artifact %d, want %d", a.Sequence, last)
	}
	c.WaitFor("all to be settled", func() bool {
		d := durables(t, cl, "jobs")
		return len(d) == 1 && d[0].Position == last+1
	})
	if n := applied() - before; n > refused+refused/2 {
		t.Errorf("%d log entries for %d artifacts", n, refused+1)
	}
	other := join(t, c.Node(0).Client(), "other")
	_, err := other.Subscribe(patient(t), "jobs", handle, client.Durable("w"), client.Filter("true"))
	if err == nil || !strings.Contains(err.Error(), `has the filter "artifact.attributes[\"for\"] == \"me\"", not "true"`) {
		t.Errorf("with another filter: %v", err)
	}
}

// Retention does not wait for a durable subscription, and what is lost to it is told:
// to people at once, whoever leads, and to the next worker before what is left.
func TestWhatRetentionTakesFromADurableIsTold(t *testing.T) {
	c := cluster.Start(t, 3, func(cfg *config.Config) {
		cfg.Storage.Shards = 1
		most := 10
		cfg.Topics = append(cfg.Topics, config.Topic{Pattern: "jobs", History: &config.TopicHistory{MaxArtifacts: &most}})
	})
	cl := join(t, allNodes(c), "cl")
	done := newTally()
	opts := []client.SubscribeOption{client.Durable("w"), client.Shared()}
	sub, err := cl.Subscribe(patient(t), "jobs", done.handle, opts...)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, cl, "jobs", 5)
	c.WaitFor("the first to be done", func() bool { return done.count() == 5 })
	if err := sub.Unsubscribe(patient(t)); err != nil {
		t.Fatal(err)
	}
	publish(t, cl, "jobs", 30)
	told := func(what string, lost, pending uint64) {
		t.Helper()
		c.WaitFor(what, func() bool {
			d := durables(t, cl, "jobs")
			return len(d) == 1 && d[0].Lost == lost && d[0].Pending == pending
		})
	}
	told("the loss to be told while nobody works", 20, 10)
	counted := func(node int) bool {
		return strings.Contains(c.Metrics(node), `switchboard_durable_lost_artifacts_total{durable="jobs/w"} 20`)
	}
	c.WaitFor("the loss to be counted", func() bool { return counted(0) || counted(1) || counted(2) })

	gaps := make(chan client.HistoryGapError, 9)
	if _, err := cl.Subscribe(patient(t), "jobs", done.handle, append(opts, client.OnGap(func(g *client.HistoryGapError) { gaps <- *g }))...); err != nil {
		t.Fatal(err)
	}
	c.WaitFor("what is left to be done", func() bool { return done.count() == 15 })
	if gap := <-gaps; gap.From != 6 || gap.To != 25 || gap.Topic != "jobs" || len(gaps) > 0 {
		t.Errorf("the worker was told of %v, and %d more gaps", &gap, len(gaps))
	}
	for node := range 3 {
		if strings.Contains(c.Metrics(node), `switchboard_raft_leader{shard="0"} 1`) {
			c.Crash(node)
			break
		}
	}
	told("the loss to be told by the next leader", 20, 0)
}

func TestDurableSubscriptionsThatCannotBe(t *testing.T) {
	c := cluster.Start(t, 1, func(cfg *config.Config) {
		some := 10
		cfg.Topics = append(cfg.Topics, config.Topic{Pattern: "kept.>", History: &config.TopicHistory{MaxArtifacts: &some}})
	})
	cl := join(t, c.Node(0).Client(), "cl")
	none := func(context.Context, *wire.Artifact) error { return nil }
	for name, test := range map[string]struct {
		topic string
		opts  []client.SubscribeOption
		want  string
	}{
		"a pattern":             {"kept.*", []client.SubscribeOption{client.Durable("d")}, `"kept.*" is a pattern, whose topics are in several shards: subscribe to each topic`},
		"no history":            {"live", []client.SubscribeOption{client.Durable("d")}, `topic "live" keeps no history`},
		"a bad name":            {"kept.a", []client.SubscribeOption{client.Durable("a b")}, `name "a b"`},
		"no name":               {"kept.a", []client.SubscribeOption{client.Shared()}, `Durable`},
		"a bad filter":          {"kept.a", []client.SubscribeOption{client.Durable("d"), client.Filter("no CEL")}, `filter "no CEL"`},
		"a group":               {"kept.a", []client.SubscribeOption{client.Durable("d"), client.Group("g")}, `use Shared`},
		"a tiny wait":           {"kept.a", []client.SubscribeOption{client.Durable("d"), client.AckWait(1)}, `ackWait 1ns: want 100ms to 12h0m0s`},
		"dead letters nowhere":  {"kept.a", []client.SubscribeOption{client.Durable("d"), client.MaxDeliveries(1, "live")}, `dead-letter topic "live" keeps no history`},
		"dead letters in place": {"kept.a", []client.SubscribeOption{client.Durable("d"), client.MaxDeliveries(1, "kept.a")}, `its own dead-letter`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := cl.Subscribe(patient(t), test.topic, none, test.opts...)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
		})
	}
}
