package cluster_test

import (
	"fmt"
	"testing"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/test/cluster"
	"github.com/switchboardhub/switchboard/wire"
)

// A home that comes back with nothing must not give sequences again that a
// subscriber has seen: those artifacts would look like repeats.
func TestSequencesGoOnAfterTheHomeLostItsHistory(t *testing.T) {
	c := cluster.Start(t, 3, keepHistory)
	box := make(inbox, 100)
	addrs := c.Node(0).Client() + "," + c.Node(1).Client() + "," + c.Node(2).Client()
	topic := homedOn(t, c, 0)
	// Both are on the home itself: no other node sees what is published.
	both, err := client.Connect(patient(t), addrs, client.WithID("both"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = both.Close() })
	if _, err := both.Subscribe(patient(t), topic, box.handle); err != nil {
		t.Fatal(err)
	}
	publish := func(want wire.Sequence) {
		t.Helper()
		seq, err := both.Publish(patient(t), topic, &wire.Artifact{})
		if err != nil || seq != want {
			t.Fatalf("Publish = %d, %v; want %d", seq, err, want)
		}
		if a := box.next(t); a.Sequence != want {
			t.Fatalf("the subscriber gets sequence %d, want %d", a.Sequence, want)
		}
	}
	for i := range 3 {
		publish(wire.Sequence(i + 1))
	}
	c.Crash(0)
	for i := range 3 {
		publish(wire.Sequence(i + 4))
	}
}

// homedOn returns a topic whose history is kept by the node with an ordinal.
func homedOn(t *testing.T, c *cluster.Cluster, ordinal int) string {
	t.Helper()
	for i := 0; ; i++ {
		if topic := fmt.Sprintf("topic.%d", i); c.Home(topic) == ordinal {
			return topic
		}
	}
}
