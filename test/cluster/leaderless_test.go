package cluster_test

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// A subscription is made while no majority is there to tell what the topics hold, and its
// connection is lost. It gets what it asked for all the same, each once.
func TestSubscriptionMadeWithoutLeaders(t *testing.T) {
	const topics, old = 10, 5
	leads := regexp.MustCompile(`switchboard_raft_leader\{[^}]*\} 1\n`)
	root := t.TempDir()
	c := cluster.Start(t, 3, func(c *config.Config) {
		keepHistory(c)
		c.Storage.Dir = root + "/" + c.Node
	})
	name := func(i int) string { return fmt.Sprint("orders.", i) }
	pub := connect(t, c.Node(0), "pub")
	publish := func(n int) {
		t.Helper()
		for range n {
			for i := range topics {
				if _, err := pub.Publish(patient(t), name(i), text("x")); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	publish(old)
	published := time.Now()
	c.Kill(1)
	c.Kill(2)
	c.WaitFor("loss of all leaders", func() bool { return !leads.MatchString(c.Metrics(0)) })
	time.Sleep(time.Until(published.Add(6 * time.Second))) // what is old to whoever resumes, the time for the way included

	var w wires
	sub := w.connect(t, c.Node(0).Client(), "sub")
	type subscription struct {
		got   inbox
		first wire.Sequence
	}
	subs := make(map[string]subscription)
	for kind, test := range map[string]struct {
		first wire.Sequence
		opts  []client.SubscribeOption
	}{
		"new":      {old + 1, nil},
		"last":     {old, []client.SubscribeOption{client.SinceLast()}},
		"sequence": {3, []client.SubscribeOption{client.Since(3)}},
		"all":      {1, []client.SubscribeOption{client.SinceAll()}},
	} {
		s := subscription{make(inbox, 1000), test.first}
		if _, err := sub.Subscribe(patient(t), "orders.*", s.got.handle, test.opts...); err != nil {
			t.Fatal(err)
		}
		subs[kind] = s
	}
	w.cut()
	c.Run(1)
	c.Run(2)
	c.WaitReady(c.Node(1))
	c.WaitReady(c.Node(2))
	w.cut()
	publish(1)
	for kind, s := range subs {
		next := make(map[string]wire.Sequence)
		for range topics * (old + 2 - s.first) {
			a := s.got.next(t)
			if next[a.Topic] == 0 {
				next[a.Topic] = s.first
			}
			if a.Sequence != next[a.Topic] {
				t.Fatalf("%s: got %d of %s, want %d", kind, a.Sequence, a.Topic, next[a.Topic])
			}
			next[a.Topic]++
		}
	}
	publish(1)
	for kind, s := range subs {
		for range topics {
			if a := s.got.next(t); a.Sequence != old+2 {
				t.Fatalf("%s: got %d of %s, want %d", kind, a.Sequence, a.Topic, old+2)
			}
		}
	}
}
