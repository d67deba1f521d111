package shard

import (
	"slices"
	"syscall"
	"testing"
)

// All nodes start again while something is in the way that says nothing of what they
// hold. It is all there when it is gone.
func TestStateStaysThatCantBeOpenedNow(t *testing.T) {
	for name, why := range map[string]error{"no room": syscall.ENOSPC, "no file left": syscall.EMFILE, "somebody else's": syscall.EACCES} {
		t.Run(name, func(t *testing.T) {
			g := (&group{t: t, disks: newDisks()}).begin(3, 1)
			g.publish("a", "0", Publisher{})
			g.publish("a", "1", Publisher{})
			before := make(map[string]string)
			for _, m := range g.members() {
				eventually(t, m.name+" holds all", func() bool { return slices.Equal(m.held("a"), []string{"0", "1"}) })
				before[m.name] = string(m.shards.replica(0).id)
			}
			for node := range before {
				g.kill(node)
			}
			for node := range before {
				g.disks.of(node).keepsNoVotes(why)
				g.start(node)
			}
			for node := range before {
				failed := g.disks.of(node).failed.Load()
				eventually(t, node+" tries again", func() bool { return g.disks.of(node).failed.Load() > failed })
			}
			for node := range before {
				g.disks.of(node).keepsNoVotes(nil)
			}
			if seq := g.publish("a", "2", Publisher{}); seq != 3 {
				t.Errorf("the next artifact has sequence %d, want 3", seq)
			}
			for node, id := range before {
				m := g.node(node)
				eventually(t, node+" holds all", func() bool { return slices.Equal(m.held("a"), []string{"0", "1", "2"}) })
				if now := string(m.shards.replica(0).id); now != id {
					t.Errorf("%s has the replica %s, want that of before, %s", node, now, id)
				}
			}
		})
	}
}

// Raft would end the process, and with it all else that the node does.
func TestReplicaWaitsForRoomForVotes(t *testing.T) {
	g := (&group{t: t, disks: newDisks()}).begin(3, 1)
	g.publish("a", "0", Publisher{})
	leader := g.leader("a")
	members := slices.DeleteFunc(g.members(), func(m *member) bool { return m == leader })
	waits, other := members[0], members[1]
	disk := g.disks.of(waits.name)
	id := waits.shards.replica(0).id
	disk.keepsNoVotes(syscall.ENOSPC)
	g.kill(leader.name)
	eventually(t, "it waits for room", func() bool { return disk.failed.Load() > 1 })
	g.start(leader.name)
	g.publish("a", "1", Publisher{})

	disk.keepsNoVotes(nil)
	eventually(t, "it takes part again", func() bool { return slices.Equal(waits.held("a"), []string{"0", "1"}) })
	g.kill(other.name)
	g.publish("a", "2", Publisher{})
	if now := waits.shards.replica(0).id; now != id {
		t.Errorf("it has the replica %s, want that of before, %s", now, id)
	}
}

// A node stops in order also then, and what it could not keep is not heard of.
func TestReplicaThatWaitsForRoomForVotesEnds(t *testing.T) {
	g := (&group{t: t, disks: newDisks()}).begin(3, 1)
	g.publish("a", "0", Publisher{})
	leader := g.leader("a")
	members := slices.DeleteFunc(g.members(), func(m *member) bool { return m == leader })
	waits := members[0]
	disk := g.disks.of(waits.name)
	disk.keepsNoVotes(syscall.ENOSPC)
	g.kill(leader.name)
	eventually(t, "it waits for room", func() bool { return disk.failed.Load() > 1 })
	g.kill(waits.name)
	disk.keepsNoVotes(nil)
	g.start(waits.name)
	g.start(leader.name)
	g.publish("a", "1", Publisher{})
	eventually(t, "it takes part again", func() bool { return slices.Equal(g.node(waits.name).held("a"), []string{"0", "1"}) })
}

func TestVotesThatCantBeKeptMakeTheReplicaAnew(t *testing.T) {
	g := (&group{t: t, disks: newDisks()}).begin(3, 1)
	g.publish("a", "0", Publisher{})
	leader := g.leader("a")
	broken := slices.DeleteFunc(g.members(), func(m *member) bool { return m == leader })[0]
	disk := g.disks.of(broken.name)
	disk.keepsNoVotes(syscall.EIO)
	g.kill(leader.name)
	eventually(t, "its replica fails", func() bool { return broken.shards.Remade() > 0 })
	disk.keepsNoVotes(nil)
	g.start(leader.name)
	g.publish("a", "1", Publisher{})
	eventually(t, "it holds all again", func() bool { return slices.Equal(broken.held("a"), []string{"0", "1"}) })
}
