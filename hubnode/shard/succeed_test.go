package shard

import "testing"

// One broken link deposes nobody; when all have lost the leader, one of them stands.
func TestWhoSucceedsALeader(t *testing.T) {
	g := newGroup(t, 3, 1, "")
	g.publish("a", "x", Publisher{})
	eventually(t, "three voters", func() bool { return g.voters(0) == 3 })
	leader := g.leader("a")
	var others []*member
	for i := range 3 {
		if m := g.node(name(i)); m != leader {
			others = append(others, m)
		}
	}
	eventually(t, "the same log everywhere", func() bool {
		last := leader.shards.replica(0).raft.LastIndex()
		return others[0].shards.replica(0).raft.LastIndex() == last && others[1].shards.replica(0).raft.LastIndex() == last
	})
	disconnect := func(a, b *member) { // without anybody being told
		a.disconnect(b.name)
		b.disconnect(a.name)
	}
	next := func(m *member) (first, sure bool) { return m.shards.replica(0).isNext(t.Context(), leader.name) }

	disconnect(leader, others[0])
	if _, sure := next(others[0]); sure {
		t.Error("one broken link counts as the leader's loss")
	}
	disconnect(leader, others[1])
	first0, sure0 := next(others[0])
	first1, sure1 := next(others[1])
	if !sure0 || !sure1 || first0 == first1 {
		t.Errorf("both have lost the leader: is it the first, and sure? %v, %v and %v, %v", first0, sure0, first1, sure1)
	}
	full, other := others[0], others[1]
	if first1 {
		full, other = other, full
	}
	full.shards.replica(0).machine.waits.Store(true)
	if first, sure := next(full); first || !sure {
		t.Errorf("one without room: is it the first, and sure? %v, %v", first, sure)
	}
	if first, sure := next(other); !first || !sure {
		t.Errorf("the other one, which has room: is it the first, and sure? %v, %v", first, sure)
	}
	full.shards.replica(0).machine.waits.Store(false)
	for _, m := range others {
		leader.shards.Unlinked(m.name)
		m.shards.Unlinked(leader.name)
	}
	eventually(t, "a successor", func() bool { return g.leader("a") != leader })
	g.link(leader, others[0])
	g.link(leader, others[1])
	g.publish("a", "y", Publisher{})
}

// A leader may lose its leadership and win the next term before anybody has seen it not lead.
// What it put into the log for the one before is refused then, and must not be waited for.
func TestALeadershipThatBeganAnewIsAnotherOne(t *testing.T) {
	g := newGroup(t, 1, 1, "")
	g.publish("a", "x", Publisher{})
	r := g.leader("a").shards.replica(0)
	term := r.raft.CurrentTerm()
	if !r.catchUp(term) {
		t.Error("the leader of now does not catch up")
	}
	if r.catchUp(term - 1) {
		t.Error("a leadership that has ended goes on, because another one has begun")
	}
}
