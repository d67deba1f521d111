package shard

import (
	"testing"
	"time"
)

// A follower that has the newest entry has all of the log, however long it takes until
// it hears that a majority has it.
func TestAFollowerHasWhatItHasNotHeardToBeStored(t *testing.T) {
	timing := quick
	timing.Commit = time.Hour
	g := newGroupWith(t, 3, 1, "", timing)
	g.publish("a", "x", Publisher{})
	leader := g.leader("a")
	logged := leader.shards.Stats()[0].Logged
	for i := range 3 {
		m := g.node(name(i))
		eventually(t, "the log of "+m.name, func() bool { return m.shards.Stats()[0].Logged == logged })
		st := m.shards.Stats()[0]
		if st.Leads != (m == leader) {
			t.Errorf("%s: leads is %v", m.name, st.Leads)
		}
		if !st.Leads && st.Applied >= logged {
			t.Errorf("%s has heard of entry %d already: this proves nothing", m.name, logged)
		}
	}
}
