package shard

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/switchboardhub/switchboard/wire"
)

// The power of all machines fails at one moment, again and again, under load: disks
// hold what was synced, and by chance some of what was not. Everything that was
// acknowledged is there afterwards, once and in its place, and on every replica. (A
// peer lost acknowledged writes in the same case.)
func TestNothingAcknowledgedIsLostWhenAllPowerFails(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel() // it waits most of the time
			g := (&group{t: t, disks: newDisks()}).begin(3, 2)
			var (
				mu      sync.Mutex
				acked   = make(map[string]map[wire.Sequence]string) // by topic
				count   atomic.Int64
				quiet   atomic.Bool
				working sync.WaitGroup
			)
			for p := range 3 {
				working.Go(func() {
					for n := uint64(1); !quiet.Load(); n++ {
						topic, value := string(rune('a'+p)), fmt.Sprintf("%d.%d", p, n)
						seq := g.publish(topic, value, Publisher{ID: uint64(p + 1), Number: n})
						mu.Lock()
						if acked[topic] == nil {
							acked[topic] = make(map[wire.Sequence]string)
						}
						if other := acked[topic][seq]; other != "" {
							t.Errorf("%s of topic %s was acknowledged with %d, as %s was", value, topic, seq, other)
						}
						acked[topic][seq] = value
						mu.Unlock()
						count.Add(1)
					}
				})
			}
			chance := rand.New(rand.NewPCG(seed, 5))
			for range 4 {
				before := count.Load()
				eventually(t, "some more are acknowledged", func() bool { return count.Load() > before+20 })
				g.lasts(chance, 30)
				g.powerFails(chance, name(0), name(1), name(2))
			}
			quiet.Store(true)
			working.Wait()
			for topic, values := range acked {
				want := make([]string, len(values))
				for seq, value := range values {
					if int(seq) > len(values) {
						t.Fatalf("%s of topic %s has sequence %d of %d", value, topic, seq, len(values))
					}
					want[seq-1] = value
				}
				for i := range 3 {
					m := g.node(name(i))
					eventually(t, fmt.Sprintf("all %d of topic %s on %s", len(want), topic, m.name), func() bool { return slices.Equal(m.held(topic), want) })
				}
			}
		})
	}
}
