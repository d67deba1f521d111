package hub_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/switchboardhub/switchboard/hubnode/hub"
	"github.com/switchboardhub/switchboard/wire"
)

// damagedLeader returns two nodes, of which the first leads a topic with ten artifacts, and
// a client of it.
func damagedLeader(t *testing.T) (c *cluster, sub *peer) {
	t.Helper()
	c = newCluster(t, "a", []string{"a", "b"}, hub.WithHistory("kept", 100))
	pub := join(t, c.nodes["a"].Hub, "pub")
	for i := range uint32(10) {
		pub.publish(i+1, "kept", fmt.Sprint(i+1))
	}
	return c, join(t, c.nodes["a"].Hub, "sub")
}

func (p *peer) expectSequences(ref uint32, from, to wire.Sequence) {
	p.t.Helper()
	for want := from; want <= to; want++ {
		if f := p.expect(wire.KindPublish, ref); f.Sequence() != want {
			p.t.Fatalf("%s: got %v; want sequence %d", p.id, f, want)
		}
	}
	p.quiet()
}

// Damage is found in a leader's replica. Until another one leads, a subscriber waits: that its history
// can't be read does not say that there never was one.
func TestCatchingUpWaitsForAnotherLeader(t *testing.T) {
	c, sub := damagedLeader(t)
	tried := c.damage()
	sub.subscribe(5, "kept", wire.Subscription{Positions: map[string]wire.Sequence{"kept": 8}, Again: true})
	tried()
	c.move("b")
	sub.expectSequences(5, 8, 10)
}

// Where an age begins can't be read either, which is not the end.
func TestAPageByAgeWaitsForAnotherLeader(t *testing.T) {
	c, sub := damagedLeader(t)
	c.damage()
	sub.write(control(wire.KindRead, 5, "kept", wire.Read{Age: time.Hour}))
	sub.expectFault(wire.KindError, 5, wire.CodeNoQuorum)
	c.move("b")
	sub.write(control(wire.KindRead, 6, "kept", wire.Read{Age: time.Hour}))
	for want := wire.Sequence(1); want <= 10; want++ {
		if f := sub.expect(wire.KindPublish, 6); f.Sequence() != want {
			t.Fatalf("got %v; want sequence %d", f, want)
		}
	}
	sub.expect(wire.KindAck, 6)
}
