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
	leader, unheard := g.leader("a"), 0
	logged := leader.shards.Stats()[0].Logged
	for i := range 3 {
		m := g.node(name(i))
		eventually(t, "the log of "+m.name, func() bool { return m.shards.Stats()[0].Logged == logged })
		st := m.shards.Stats()[0]
		if st.Leads != (m == leader) {
			t.Errorf("%s: leads is %v", m.name, st.Leads)
		}
		if st.Applied < logged {
			unheard++
		}
	}
	if unheard == 0 { // whose acknowledgement made the majority can't have heard of it
		t.Errorf("everybody has heard that entry %d is stored: this proves nothing", logged)
	}
}
