package shard

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// The disk of a follower takes nothing for a while: the others are a majority, and what
// they acknowledge it has once its disk goes on.
func TestADiskThatStandsStillHoldsUpNobody(t *testing.T) {
	g := (&group{t: t, disks: newDisks()}).begin(3, 1)
	g.publish("a", "0", Publisher{})
	leader := g.leader("a")
	var follower *member
	for _, m := range g.members() {
		if m != leader {
			follower = m
		}
	}
	eventually(t, "the follower has the first one", func() bool { return len(follower.held("a")) == 1 })
	want := []string{"0"}
	stuck := g.disks.of(follower.name)
	stuck.frozen.Lock()
	for i := 1; i <= 100; i++ {
		value := fmt.Sprint(i)
		g.publish("a", value, Publisher{ID: 1, Number: uint64(i)})
		want = append(want, value)
	}
	if got := len(follower.held("a")); got > 1 {
		t.Errorf("%s has stored %d artifacts on a disk that takes nothing", follower.name, got)
	}
	stuck.frozen.Unlock()
	for _, m := range g.members() {
		eventually(t, "all artifacts on "+m.name, func() bool { return slices.Equal(m.held("a"), want) })
	}
}

// A disk that stops and goes on all the time costs time, and nothing else, whoever leads.
func TestASlowDiskLosesNothing(t *testing.T) {
	for i := range 3 {
		t.Run(name(i), func(t *testing.T) {
			t.Parallel() // it waits most of the time
			g := (&group{t: t, disks: newDisks()}).begin(3, 1)
			slow := g.disks.of(name(i))
			done := make(chan struct{})
			var slowing sync.WaitGroup
			slowing.Go(func() {
				tick := time.NewTicker(2 * time.Millisecond)
				defer tick.Stop()
				for {
					slow.frozen.Lock()
					select {
					case <-tick.C:
						slow.frozen.Unlock()
					case <-done:
						slow.frozen.Unlock()
						return
					}
				}
			})
			var want []string
			for n := uint64(1); n <= 30; n++ {
				value := fmt.Sprint(n)
				if seq := g.publish("a", value, Publisher{ID: 1, Number: n}); uint64(seq) != n {
					t.Errorf("artifact %d has sequence %d", n, seq)
				}
				want = append(want, value)
			}
			close(done)
			slowing.Wait()
			for _, m := range g.members() {
				eventually(t, "all artifacts on "+m.name, func() bool { return slices.Equal(m.held("a"), want) })
			}
		})
	}
}
