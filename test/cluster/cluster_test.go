package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/test/check"
	"github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// memberlist's Shutdown does not wait for the probe under way, which ends by
// itself within a second.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// patient returns a context that bounds what a test waits for.
func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), cluster.Patience)
	t.Cleanup(cancel)
	return ctx
}

func connect(t *testing.T, n *cluster.Node, id string, opts ...client.Option) *client.Client {
	t.Helper()
	c, err := client.Connect(patient(t), n.Client(), append(opts, client.WithID(id))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// startLedger puts a load of history on a hub, which says at the end whether it kept it.
func startLedger(t *testing.T, c *cluster.Cluster, nodes int, opts ...client.Option) *check.Ledger {
	t.Helper()
	ledger, err := check.StartLedger(patient(t), check.LedgerConfig{Servers: servers(c, nodes), Topics: 3, Publishers: 2, Window: 32, Pause: 5 * time.Millisecond, Options: opts})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ledger.Close)
	return ledger
}

// servers returns where the nodes' clients connect.
func servers(c *cluster.Cluster, nodes int) (all []string) {
	for i := range nodes {
		all = append(all, c.Node(i).Client())
	}
	return all
}

// keepsPromises stops a load of history and checks that nothing of it was lost.
func keepsPromises(t *testing.T, ledger *check.Ledger) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*cluster.Patience)
	defer cancel()
	v, err := ledger.Stop(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("acknowledged %d, stored %d, handled again %d", v.Acknowledged, v.Stored, v.Repeats)
	if err := v.Err(); err != nil {
		t.Error(err)
	}
}

// inbox collects what a handler is given.
type inbox chan *wire.Artifact

func (in inbox) handle(ctx context.Context, a *wire.Artifact) error {
	select {
	case in <- a:
	case <-ctx.Done():
	}
	return nil
}

func (in inbox) next(t *testing.T) *wire.Artifact {
	t.Helper()
	select {
	case a := <-in:
		return a
	case <-time.After(cluster.Patience):
		t.Fatal("nothing arrived")
		return nil
	}
}

func keepHistory(c *config.Config) {
	c.History.MaxArtifacts = 1000
}

func TestSendAcrossNodesSucceedsAsSoonAsConnectHasReturned(t *testing.T) {
	c := cluster.Start(t, 3, nil)
	sender := connect(t, c.Node(0), "sender")
	for i := range 20 {
		id := fmt.Sprintf("receiver-%d", i)
		got := make(inbox, 1)
		receiver := connect(t, c.Node(1+i%2), id)
		receiver.Handle(func(_ context.Context, a *wire.Artifact) (*wire.Artifact, error) {
			got <- a
			return nil, nil
		})
		if err := sender.Send(patient(t), id, &wire.Artifact{Payload: []byte("hello")}); err != nil {
			t.Fatalf("Send to %s = %v", id, err)
		}
		if a := got.next(t); string(a.Payload) != "hello" || a.From != "sender" {
			t.Errorf("received %q from %q, want hello from sender", a.Payload, a.From)
		}
	}
}

func TestSendToNobodyFails(t *testing.T) {
	c := cluster.Start(t, 2, nil)
	err := connect(t, c.Node(0), "a").Send(patient(t), "nobody", &wire.Artifact{})
	var noClient *client.NoClientError
	if !errors.As(err, &noClient) || noClient.ID != "nobody" {
		t.Errorf("Send = %v, want NoClientError for nobody", err)
	}
}

func TestPublishReachesSubscribersOnEveryNode(t *testing.T) {
	c := cluster.Start(t, 3, nil)
	boxes := make([]inbox, 3)
	for i := range boxes {
		boxes[i] = make(inbox, 10)
		if _, err := connect(t, c.Node(i), fmt.Sprintf("sub-%d", i)).Subscribe(patient(t), "news.*", boxes[i].handle); err != nil {
			t.Fatal(err)
		}
	}
	pub := connect(t, c.Node(0), "pub")
	c.WaitFor("interest of all nodes", func() bool {
		if _, err := pub.Publish(patient(t), "news.probe", &wire.Artifact{}); err != nil {
			t.Fatal(err)
		}
		for _, b := range boxes {
			if len(b) == 0 {
				return false
			}
		}
		return true
	})
}

func TestLateJoinerReplaysFromAnyNode(t *testing.T) {
	c := cluster.Start(t, 3, keepHistory)
	pub := connect(t, c.Node(0), "pub")
	for topic := range 6 {
		for i := range 5 {
			seq, err := pub.Publish(patient(t), fmt.Sprintf("t.%d", topic), &wire.Artifact{Payload: []byte{byte(i)}})
			if err != nil || seq != wire.Sequence(i+1) {
				t.Fatalf("Publish = %d, %v; want %d", seq, err, i+1)
			}
		}
	}
	for node := range 3 {
		box := make(inbox, 100)
		if _, err := connect(t, c.Node(node), fmt.Sprintf("late-%d", node)).Subscribe(patient(t), "t.>", box.handle, client.SinceAll()); err != nil {
			t.Fatal(err)
		}
		next := map[string]wire.Sequence{}
		for range 30 {
			a := box.next(t)
			if next[a.Topic]++; a.Sequence != next[a.Topic] {
				t.Errorf("topic %s: sequence %d, want %d", a.Topic, a.Sequence, next[a.Topic])
			}
		}
	}
}

func TestHistorySurvivesARollingRestart(t *testing.T) {
	c := cluster.Start(t, 3, keepHistory)
	pub, err := client.Connect(patient(t), c.Node(0).Client()+","+c.Node(1).Client()+","+c.Node(2).Client(), client.WithID("pub"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pub.Close() })
	box := make(inbox, 1000)
	if _, err := pub.Subscribe(patient(t), "t.>", box.handle, client.SinceAll()); err != nil {
		t.Fatal(err)
	}
	const topics = 9
	publish := func(want wire.Sequence) {
		for i := range topics {
			seq, err := pub.Publish(patient(t), fmt.Sprintf("t.%d", i), &wire.Artifact{})
			if err != nil || seq != want {
				t.Fatalf("Publish to t.%d = %d, %v; want %d", i, seq, err, want)
			}
		}
	}
	publish(1)
	for i := range 3 {
		c.Restart(i)
		publish(wire.Sequence(i + 2))
	}
	next := map[string]wire.Sequence{}
	for range topics * 4 {
		a := box.next(t)
		if next[a.Topic]++; a.Sequence != next[a.Topic] {
			t.Errorf("topic %s: sequence %d, want %d", a.Topic, a.Sequence, next[a.Topic])
		}
	}
}

func TestNewerSessionReplacesTheOlderOnAnotherNode(t *testing.T) {
	c := cluster.Start(t, 2, nil)
	older := connect(t, c.Node(0), "twin")
	watcher := connect(t, c.Node(1), "watcher")
	c.WaitFor("twin on node 1's directory", func() bool { // so that the newer one's epoch is higher
		return watcher.Send(patient(t), "twin", &wire.Artifact{}) == nil
	})
	connect(t, c.Node(1), "twin")
	select {
	case <-older.Done():
	case <-time.After(cluster.Patience):
		t.Fatal("the older session was not ended")
	}
	var replaced *client.SessionReplacedError
	if err := older.Err(); !errors.As(err, &replaced) {
		t.Errorf("the older session ended with %v, want SessionReplacedError", err)
	}
}
