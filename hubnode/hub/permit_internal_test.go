package hub

import (
	"testing"

	"github.com/switchboardhub/switchboard/wire"
)

func TestAPermitCostsNoAllocation(t *testing.T) {
	// Two topics in turn, so that the last one is never the same.
	c := &Client{hub: &Hub{}, id: "a"}
	c.permit.Store(&permitted{Permit: Permit{Identity: "x", Allows: func(wire.Action, string) bool { return true }}})
	one, other := &route{topic: "t"}, &route{topic: "u"}
	f := wire.Frame(wire.AppendFrame(nil, wire.Header{Kind: wire.KindSend}, "b", "a", nil))
	if n := testing.AllocsPerRun(1000, func() {
		if c.mayPublish(one) != nil || c.mayPublish(other) != nil || c.maySend(f) != nil {
			t.Fatal("what is allowed is denied")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
